"""What the wire of a connection asks of the object that decides for it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import asyncssh

from sshgate.forwarding.values import Tcp, Unix


class Owner(Protocol):
    """What a transport asks of the object that decides for its connection, besides asyncssh's callbacks."""

    def attempt_failed(self, method: bytes) -> bool:
        """An attempt to log in has failed; false: it was the last one."""

    def certificate_accepted(self, user: str, certificate: asyncssh.SSHCertificate) -> bool:
        """Whether a certificate whose signature is right may log in."""

    def presence_required(self) -> tuple[bool, bool]:
        """Whether the security key that was just accepted must have been touched, and have asked for its PIN."""

    def keys_exchanged(self) -> None:
        """Both sides have new keys. Called again at every rekey."""

    def sessions_ended(self) -> None:
        """The client will not open another session (no-more-sessions@openssh.com)."""

    def listen(self, where: Tcp | Unix) -> Awaitable[int | None]:
        """The client wants a listener in the sandbox: its port (0 for a path), ``None``: refused. Raises nothing."""

    def unlisten(self, where: Tcp | Unix) -> bool:
        """The client no longer wants it; false: there was none."""
