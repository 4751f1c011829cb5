"""User certificates: what they and the authority that signed them allow together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.public_key import CERT_TYPE_USER, SSHOpenSSHCertificate, SSHOpenSSHCertificateV01

from sshgate.access.identity import Certified, Restrictions, comes_from
from sshgate.access.key_line import acceptable as strong
from sshgate.access.key_line import fingerprint_of
from sshgate.ssh.contracts import Keyring
from sshgate.ssh.options import acceptable

# "forever", as OpenSSH writes it.
_NO_END = 0xFFFF_FFFF_FFFF_FFFF

# A critical option that asyncssh does not know makes it refuse the certificate; `userauth` keeps this one.
SSHOpenSSHCertificateV01._user_option_decoders[b"verify-required"] = SSHOpenSSHCertificate._decode_bool


@dataclass(frozen=True, slots=True)
class Proof:
    """How somebody has shown who they are."""

    method: str
    fingerprint: str
    restrictions: Restrictions
    certificate: Certified | None = field(default=None, compare=False)


def proof(certificate: asyncssh.SSHCertificate, user: str, source: str, now: float, keyring: Keyring) -> Proof | None:
    """What the owner of ``certificate`` (its signature is right already) may do as ``user``; ``None``: refuse.

    Refused are host certificates, those out of their time or without principals, for a key or by a signature that
    would not do without a certificate either, from a signer that the keyring does not know for this user and these
    principals, and from an address they do not name.
    """
    if not isinstance(certificate, SSHOpenSSHCertificate) or certificate._cert_type != CERT_TYPE_USER:
        return None
    if not strong(certificate.key.public_data) or not acceptable(_signature(certificate)):
        return None
    signer, names = certificate.signing_key.public_data, frozenset(certificate.principals)
    authority = keyring.authority(user, signer, source, now, names)
    # A certificate without principals would be good for everybody.
    if authority is None or not authority.principals & names:
        return None
    if not certificate._valid_after <= now < certificate._valid_before:
        return None
    options = certificate_options(certificate)
    networks = options.get("source-address")
    certified = Certified(
        authority=fingerprint_of(signer),
        principals=tuple(sorted(authority.principals & names)),
        ends=None if certificate._valid_before == _NO_END else float(certificate._valid_before),
        sources=None if networks is None else tuple(map(str, networks)),
    )
    restrictions = _both(authority.restrictions, options)
    if restrictions is None or not comes_from(source, certified.sources):
        return None
    return Proof("certificate", certificate.key.get_fingerprint(), restrictions, certified)


def _signature(certificate: SSHOpenSSHCertificate) -> bytes:
    """The authority's, which asyncssh has checked, whatever its algorithm was (RFC 8332 and before)."""
    packet = SSHPacket(certificate.public_data)
    try:
        packet.get_string()
        SSHOpenSSHCertificateV01._decode(packet, type(certificate.key))
        packet.get_string()  # the authority's key
        return packet.get_string()
    except PacketDecodeError:
        return b""


def certificate_options(certificate: asyncssh.SSHCertificate) -> Mapping[str, Any]:
    """Its critical options and extensions by name, decoded."""
    return cast("Mapping[str, Any]", getattr(certificate, "options", {}))


def _both(signer: Restrictions, options: Mapping[str, Any]) -> Restrictions | None:
    """The stricter of both; ``None`` where they force different commands (OpenSSH refuses that as well)."""
    forced = options.get("force-command")
    command = None if forced is None else str(forced).encode()
    if command is not None and signer.command is not None and command != signer.command:
        return None
    return replace(
        signer,
        command=signer.command if command is None else command,
        terminal=signer.terminal and bool(options.get("permit-pty")),
        port_forwarding=signer.port_forwarding and bool(options.get("permit-port-forwarding")),
        agent_forwarding=signer.agent_forwarding and bool(options.get("permit-agent-forwarding")),
        touch=signer.touch or not options.get("no-touch-required"),
        verify=signer.verify or bool(options.get("verify-required")),
    )
