"""Authentication of an SSH connection: the callbacks by which asyncssh asks whether a key or certificate may log in."""

from __future__ import annotations

import time
from collections.abc import Callable

import asyncssh
import structlog

from sshgate.access.authorized_keys import Keyring
from sshgate.access.identity import LoginName, Restrictions
from sshgate.access.key_line import fingerprint_of
from sshgate.config.model import Config
from sshgate.ssh import certificates
from sshgate.ssh._asyncssh.userauth import UserAuth
from sshgate.ssh.certificates import Proof
from sshgate.ssh.login_progress import LoginProgress

# A name that no user can have. Invalid login names are looked up under it.
NOBODY = "."
# By its form alone, before any user is looked up: it reveals nothing.
NOT_A_LOGIN_NAME = (
    "sshgate: this is not a login name, which is USER+PROFILE=NAME=SESSION or its beginning; "
    "PROFILE, NAME and SESSION have lower-case letters, digits and inner dashes, 40 at most.\r\n"
)

log = structlog.get_logger("sshgate.ssh")


class Authentication(asyncssh.SSHServer):
    """The part of a connection that authenticates its user."""

    _transport: UserAuth | None
    _login_progress: LoginProgress

    def __init__(self, config: Config, keyring: Keyring) -> None:
        self._config = config
        self._keyring = keyring
        self._log: structlog.typing.FilteringBoundLogger = log
        self._source = ""
        self._name: LoginName | None = None
        self._asked_name = ""
        self._proof: Proof | None = None
        self._ask: Callable[[str, float], Proof | None] = _nothing
        self._refused_key: str | None = None
        self._asked_none = False

    def begin_auth(self, username: str) -> bool:
        # Nothing that was established for another name may remain (CVE-2023-46446).
        self._proof = None
        self._asked_name = username
        try:
            self._name = LoginName.parse(username)
        except ValueError:
            self._name = None
            # Programs that guess names have no use for it.
            if ("=" in username or "+" in username) and self._transport is not None:
                self._transport.send_auth_banner(NOT_A_LOGIN_NAME)
        banner = self._config.ssh.banner
        if banner and self._transport is not None:
            self._transport.send_auth_banner("\r\n".join(banner.splitlines()) + "\r\n")
        return True  # false would log everybody in without authentication

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Return whether the key may log in. asyncssh verifies the signature, and also asks for offers without one."""
        blob = key.public_data
        fingerprint = fingerprint_of(blob)

        def ask(user: str, now: float) -> Proof | None:
            restrictions = self._keyring.key(user, blob, self._source, now)
            return Proof("publickey", fingerprint, restrictions) if restrictions is not None else None

        if not self._proven(ask):
            self._refused_key = fingerprint
        return self._login_progress.offered(self._proof is not None)

    def certificate_accepted(self, user: str, certificate: asyncssh.SSHCertificate) -> bool:
        """Return whether a certificate with a valid signature may log in."""
        accepted = self._proven(
            lambda user, now: certificates.proof(certificate, user, self._source, now, self._keyring)
        )
        return self._login_progress.offered(accepted)

    def _proven(self, ask: Callable[[str, float], Proof | None]) -> bool:
        self._proof, self._ask = None, ask
        self._proof = self._answer(time.time())
        return self._proof is not None

    def still_proven(self, at: float | None = None) -> bool:
        """Return whether the key or certificate of this login gives the same proof now, or gave it at time ``at``.

        While a defect keeps that from being looked up, nothing new may be opened (false), and what was proven at ``at``
        stays open (true).
        """
        if self._proof is None:
            return False
        answer = self._answer(time.time()) if at is None else self._answer(at, self._proof)
        return answer == self._proof

    def _answer(self, now: float, unknown: Proof | None = None) -> Proof | None:
        # An invalid name is treated like a wrong key: the same answer after the same time.
        try:
            answer = self._ask(self._name.user if self._name is not None else NOBODY, now)
        except Exception:
            self._log.exception("authentication.broken")
            return unknown
        return answer if self._name is not None else None

    def presence_required(self) -> tuple[bool, bool]:
        """Return whether the security key must have been touched, and must have verified its user (PIN)."""
        limits = self._proof.restrictions if self._proof is not None else Restrictions(verify=True)
        return limits.touch, limits.verify

    def attempt_failed(self, method: bytes) -> bool:
        """Count a failed attempt. Returns false if it was the last one allowed."""
        if method == b"none" and not self._asked_none:
            self._asked_none = True  # clients list the methods this way; OpenSSH does not count it either
            return True
        self._login_progress.failures += 1
        return self._login_progress.failures < self._config.limits.auth_attempts


def _nothing(user: str, now: float) -> Proof | None:
    return None
