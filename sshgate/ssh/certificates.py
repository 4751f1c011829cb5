"""User certificates: what a certificate and the authority that signed it allow together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import asyncssh

from sshgate.access.authorized_keys import Keyring
from sshgate.access.identity import Certified, Restrictions, comes_from
from sshgate.access.key_line import acceptable as strong
from sshgate.access.key_line import fingerprint_of
from sshgate.ssh._asyncssh.userauth import UserCertificate, acceptable

# OpenSSH's value for "forever".
_NO_END = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Proof:
    """How a user was authenticated, and what that allows."""

    method: str
    fingerprint: str
    restrictions: Restrictions
    certificate: Certified | None = field(default=None, compare=False)


def proof(certificate: asyncssh.SSHCertificate, user: str, source: str, now: float, keyring: Keyring) -> Proof | None:
    """Return what the holder of ``certificate`` may do as ``user``, or ``None`` to refuse it.

    Refused are host certificates, certificates that are expired, not yet valid or without principals, and those whose
    key or signature algorithm would be refused without a certificate too. The keyring must accept the signer for this
    user and one of the principals, and ``source`` must be among the certificate's and the signer's addresses.

    Args:
        certificate: Its signature has already been verified.
        source: The client's address.
        now: Seconds since the epoch.
    """
    read = UserCertificate.of(certificate)
    if read is None or not strong(certificate.key.public_data) or not acceptable(read.signature):
        return None
    signer, names = read.signer, frozenset(read.principals)
    authority = keyring.authority(user, signer, source, now, names)
    # A certificate without principals would be valid for every user.
    if authority is None or not authority.principals & names:
        return None
    if not read.valid_after <= now < read.valid_before:
        return None
    networks = read.options.get("source-address")
    certified = Certified(
        authority=fingerprint_of(signer),
        principals=tuple(sorted(authority.principals & names)),
        ends=None if read.valid_before == _NO_END else float(read.valid_before),
        sources=None if networks is None else tuple(map(str, networks)),
    )
    restrictions = _both(authority.restrictions, read.options)
    if restrictions is None or not comes_from(source, certified.sources):
        return None
    return Proof("certificate", fingerprint_of(certificate.key.public_data), restrictions, certified)


def _both(signer: Restrictions, options: Mapping[str, Any]) -> Restrictions | None:
    """Combine to the stricter of both; ``None`` if they force different commands, which OpenSSH refuses as well."""
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
