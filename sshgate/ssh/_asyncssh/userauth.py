"""asyncssh's user authentication (RFC 4252) with corrections. Written against asyncssh 2.24.1."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import asyncssh
from asyncssh.packet import SSHPacket

from sshgate.ssh._asyncssh.owner import Owner
from sshgate.ssh._asyncssh.reading import BoundedInput
from sshgate.ssh.certificates import certificate_options
from sshgate.ssh.options import acceptable

# OpenSSH sends a command in one packet of up to 256 KiB. A longer one should get an error, not a disconnect.
PACKET_AFTER_LOGIN = 1 << 20
LONGEST_USER_NAME = 512
# Flags in a security key's signature (OpenSSH's PROTOCOL.u2f): its user was present, and was verified.
TOUCHED, VERIFIED = 0x01, 0x04


class UserAuth(BoundedInput):
    """The part of a transport that handles logins."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop, options)
        self._auth_began = False
        self._auth_method = b""

    @property
    def owner(self) -> Owner | None:
        """The object that decides for this connection; ``None`` once the connection has ended."""
        return cast("Owner | None", self._owner)

    async def reload_config(self) -> None:
        """Do nothing. asyncssh would prepare all options again for every login, in a thread; ours depend on no user."""

    def _process_userauth_exactly(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> Any:
        # asyncssh disconnects if a user name is too long or fails stringprep, which makes such names distinguishable
        # from a wrong key. It also lets the name change during a login (the cause of CVE-2023-46446). OpenSSH does
        # neither.
        name = packet.get_string()
        service = packet.get_string()
        self._auth_method = packet.get_string()
        if service != b"ssh-connection":
            raise asyncssh.ServiceNotAvailable("Unexpected service in auth request")
        if self._auth_complete:
            if self._auth_final:
                raise asyncssh.ProtocolError("Unexpected userauth request")
            return None
        # No valid name has a backslash, so a name that cannot be decoded stays invalid.
        username = name[:LONGEST_USER_NAME].decode("utf-8", "backslashreplace")
        if self._auth_began and username != self._username:
            raise asyncssh.ProtocolError("Change of user name is not allowed")
        if self._auth is not None:
            auth, self._auth = self._auth, None
            auth.cancel()
        begin, self._auth_began = not self._auth_began, True
        self._username = username
        self._key_options = {}
        self._cert_options = None
        return self._finish_userauth(begin, self._auth_method, packet)

    def send_userauth_failure(self, partial_success: bool) -> None:
        # asyncssh has no MaxAuthTries.
        if self.owner is not None and not self.owner.attempt_failed(self._auth_method):
            raise asyncssh.PermissionDenied("Too many authentication failures")
        super().send_userauth_failure(partial_success)

    async def send_userauth_success(self) -> None:
        self._max_recv_pktlen = PACKET_AFTER_LOGIN
        await super().send_userauth_success()

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        # signature_algs is only advertised: asyncssh still accepts RSA signatures with SHA-1.
        if msg and not acceptable(signature):
            return False
        if not await super().validate_public_key(username, key_data, msg, signature) or self.owner is None:
            return False
        touch, verify = self.owner.presence_required()
        return not msg or _presence(signature) & (wanted := touch * TOUCHED | verify * VERIFIED) == wanted

    async def _validate_openssh_certificate(
        self, username: str, cert: asyncssh.SSHCertificate
    ) -> asyncssh.SSHKey | None:
        # asyncssh looks for the whole login name (user+profile=name) among the principals, and accepts a certificate
        # without principals for every user. It takes the options that it enforces itself (permit-pty, ...) from here.
        if self.owner is None or not self.owner.certificate_accepted(username, cert):
            return None
        self._cert_options = dict(certificate_options(cert))
        return cert.key

    async def _validate_client_public_key(self, username: str, key_data: bytes) -> asyncssh.SSHKey | None:
        key = await super()._validate_client_public_key(username, key_data)
        if key is not None:
            # Checked above: asyncssh does not know verify-required, and reads key options only from its own files.
            key.set_touch_required(False)
        return key


def _presence(signature: bytes) -> int:
    """Return the user flags in a verified signature of a security key. Other keys count as touched and verified."""
    packet = SSHPacket(signature)
    if not packet.get_string().startswith(b"sk-"):
        return TOUCHED | VERIFIED
    packet.get_string()
    return packet.get_byte()
