"""User certificates: what they and the authority that signed them allow together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, cast

import asyncssh
from asyncssh.public_key import CERT_TYPE_USER, SSHOpenSSHCertificate

from sshgate.access.identity import Restrictions
from sshgate.ssh.contracts import Keyring


@dataclass(frozen=True, slots=True)
class Proof:
    """How somebody has shown who they are."""

    method: str
    fingerprint: str
    restrictions: Restrictions


def proof(certificate: asyncssh.SSHCertificate, user: str, source: str, now: float, keyring: Keyring) -> Proof | None:
    """What the owner of ``certificate`` (its signature is right already) may do as ``user``; ``None``: refuse.

    Refused are host certificates, those out of their time or without principals, from a signer that the
    keyring does not know for this user and these principals, and from an address they do not name.
    """
    if not isinstance(certificate, SSHOpenSSHCertificate):
        return None
    authority = keyring.authority(
        user, certificate.signing_key.public_data, source, now, frozenset(certificate.principals)
    )
    # A certificate without principals would be good for everybody.
    if authority is None or not authority.principals & frozenset(certificate.principals):
        return None
    try:
        certificate.validate(CERT_TYPE_USER, None)
    except ValueError:
        return None
    options = certificate_options(certificate)
    if not _comes_from(source, options.get("source-address")):
        return None
    restrictions = _both(authority.restrictions, options)
    if restrictions is None:
        return None
    return Proof("certificate", certificate.key.get_fingerprint(), restrictions)


def certificate_options(certificate: asyncssh.SSHCertificate) -> Mapping[str, Any]:
    """Its critical options and extensions by name, decoded."""
    return cast("Mapping[str, Any]", getattr(certificate, "options", {}))


def _comes_from(source: str, networks: Any) -> bool:
    if networks is None:
        return True
    try:
        address = ip_address(source)
    except ValueError:
        return False
    return any(address in network for network in networks)


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
    )
