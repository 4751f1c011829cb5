"""asyncssh's user authentication (RFC 4252) with corrections, and the owner that decides for a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.public_key import CERT_TYPE_USER, SSHOpenSSHCertificate, SSHOpenSSHCertificateV01

from sshgate.forwarding.destinations import Tcp, Unix
from sshgate.ssh._asyncssh.incoming import BoundedInput

# OpenSSH sends a command in one packet of up to 256 KiB. A longer one should get an error, not a disconnect.
PACKET_AFTER_LOGIN = 1 << 20
LONGEST_USER_NAME = 512
# Algorithms that users may sign with. NIST curves are included because hardware tokens use them.
SIGNATURES = (
    "ssh-ed25519", "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip

# Flags in a security key's signature (OpenSSH's PROTOCOL.u2f): its user was present, and was verified.
TOUCHED, VERIFIED = 0x01, 0x04

# asyncssh refuses certificates with critical options that it does not know. `validate_public_key` enforces this one.
SSHOpenSSHCertificateV01._user_option_decoders[b"verify-required"] = SSHOpenSSHCertificate._decode_bool


def acceptable(signature: bytes) -> bool:
    """Return whether a signature's algorithm is one of ``SIGNATURES``. Does not verify the signature."""
    try:
        return SSHPacket(signature).get_string().decode("ascii", "replace") in SIGNATURES
    except PacketDecodeError:
        return False


class Owner(Protocol):
    """Callbacks of a transport to the object that decides for its connection, in addition to asyncssh's."""

    def attempt_failed(self, method: bytes) -> bool:
        """A login attempt has failed. Returns false if no further attempt is allowed.

        Args:
            method: The authentication method as the client sent it (RFC 4252).
        """

    def certificate_accepted(self, user: str, certificate: asyncssh.SSHCertificate) -> bool:
        """Return whether a certificate with a valid signature may log in as ``user``, the whole login name."""

    def presence_required(self) -> tuple[bool, bool]:
        """Return whether the key just accepted must have been touched, and must have verified its user (PIN)."""

    def keys_exchanged(self) -> None:
        """A key exchange is done, the first one or a rekey."""

    def sessions_ended(self) -> None:
        """The client will open no more sessions (no-more-sessions@openssh.com)."""

    def connect(self, destination: Tcp | Unix) -> Awaitable[Any]:
        """Connect from inside the sandbox. The awaitable returns the session of the forwarded connection.

        Both raise ``asyncssh.ChannelOpenError`` if it is not allowed or fails.
        """

    def listen(self, where: Tcp | Unix) -> Awaitable[int | None]:
        """Start a listener in the sandbox.

        The awaitable returns the port (0 for a path), or ``None`` if it is refused. Never raises.
        """

    def unlisten(self, where: Tcp | Unix) -> bool:
        """Close a listener. Returns whether there was one."""


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
        self._cert_options = dict(cast(SSHOpenSSHCertificate, cert).options)
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


class UserCertificate(NamedTuple):
    """What a user certificate of OpenSSH says.

    ``valid_after`` and ``valid_before`` are seconds since the epoch. ``signer`` is the authority's public key in SSH
    wire encoding. ``options`` are the decoded critical options and extensions by name.
    """

    valid_after: int
    valid_before: int
    principals: Sequence[str]
    signer: bytes
    signature: bytes
    options: Mapping[str, Any]

    @classmethod
    def of(cls, certificate: asyncssh.SSHCertificate) -> UserCertificate | None:
        """Return what ``certificate`` says; ``None`` if it is no user certificate of OpenSSH."""
        if not isinstance(certificate, SSHOpenSSHCertificate) or certificate._cert_type != CERT_TYPE_USER:
            return None
        # asyncssh has verified the authority's signature, but accepts any algorithm (RFC 8332 and older).
        packet = SSHPacket(certificate.public_data)
        try:
            packet.get_string()
            SSHOpenSSHCertificateV01._decode(packet, type(certificate.key))
            signer, signature = packet.get_string(), packet.get_string()
        except PacketDecodeError:
            return None
        return cls(
            certificate._valid_after, certificate._valid_before, certificate.principals, signer, signature,
            certificate.options,
        )  # fmt: skip
