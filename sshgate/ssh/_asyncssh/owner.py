"""The contract between a ``Transport`` and the server object that makes its decisions."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import asyncssh

from sshgate.forwarding.destinations import Tcp, Unix


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

    def listen(self, where: Tcp | Unix) -> Awaitable[int | None]:
        """Start a listener in the sandbox.

        The awaitable returns the port (0 for a path), or ``None`` if it is refused. Never raises.
        """

    def unlisten(self, where: Tcp | Unix) -> bool:
        """Close a listener. Returns whether there was one."""
