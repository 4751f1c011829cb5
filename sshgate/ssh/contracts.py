"""What the SSH front end needs from the rest of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, Protocol

from sshgate.access.connections import Offence, PendingLogin
from sshgate.access.identity import Identity, Restrictions
from sshgate.forwarding.destinations import Destination
from sshgate.stream.interfaces import Client, OpenReverseChannel, Request, Stream


class Authority(Protocol):
    """The signer of a certificate, and what its signature allows."""

    @property
    def principals(self) -> frozenset[str]:
        """Principals that the signer may certify for this user. A certificate must name at least one of them."""

    @property
    def restrictions(self) -> Restrictions:
        """Restrictions on every certificate of this signer, in addition to the certificate's own."""


class Keyring(Protocol):
    """The keys and certificate authorities that may log in. Unknown users take the same time as known ones."""

    def key(self, user: str, blob: bytes, source: str, now: float) -> Restrictions | None:
        """Return what the holder of a public key may do as ``user``, or ``None`` to refuse it.

        Args:
            blob: The key in SSH wire encoding.
            source: The client's address.
            now: Seconds since the epoch.
        """

    def authority(
        self, user: str, blob: bytes, source: str, now: float, names: frozenset[str] | None = None
    ) -> Authority | None:
        """Return what certificates signed by a key may do as ``user``, or ``None`` to refuse them.

        Args:
            blob: The signer's public key in SSH wire encoding.
            source: The client's address.
            now: Seconds since the epoch.
            names: The certificate's principals; ``None`` if they do not matter.
        """


class Slot(Protocol):
    """One admitted connection, as the limits count it."""

    def authenticated(self, user: str) -> None:
        """The connection has logged in. Raises ``LimitReached`` if this user has too many connections."""

    def failed(self, offence: Offence) -> None:
        """The connection has ended without a login; penalize its source for ``offence``."""

    def release(self) -> None:
        """The connection has ended. Idempotent."""


class Admission(Protocol):
    """Limits the number of connections."""

    def connect(self, source: str, entrant: PendingLogin) -> Slot:
        """Admit a connection from this address. Raises ``LimitReached``.

        Args:
            entrant: The connection before its login; it may be asked to make room for others.
        """


class Forwards(Protocol):
    """Everything that one connection forwards; see ``sshgate.session.forwards``."""

    @property
    def work(self) -> Collection[asyncio.Task[None]]:
        """Tasks that end when nothing uses the forwards any more, or at the latest when the connection ends."""

    @property
    def listeners(self) -> int:
        """The number of open listeners."""

    async def connect(self, destination: Destination) -> Stream:
        """Open a connection from inside the sandbox. Raises ``GateError``."""

    def listen(self, where: Destination, back: OpenReverseChannel) -> Coroutine[Any, Any, int]:
        """Listen inside the sandbox; each connection is handed to ``back``.

        The coroutine returns the port (0 for a path) and raises ``GateError``. Starting programs wait for the listener
        from this call on, so the coroutine must be awaited.
        """

    def unlisten(self, where: Destination) -> bool:
        """Close a listener. Returns whether there was one."""

    def agent_allowed(self) -> bool:
        """Return whether programs may use the client's agent, judged by the login name alone."""

    def sessions_ended(self) -> None:
        """The client will open no more sessions: do not wait for one."""


class Login(Protocol):
    """One authenticated connection; see ``sshgate.session.gateway.Login``."""

    @property
    def forwards(self) -> Forwards:
        """What the connection forwards."""

    def start_speculative_claim(self) -> None:
        """A channel has a terminal but no program yet: claim a sandbox in advance. Never raises."""

    async def run(self, request: Request, client: Client) -> None:
        """Serve one channel to its end. Raises nothing but ``CancelledError``.

        Run it in a task of its own, and cancel it only for a shutdown. It notices itself when the client disconnects.
        """

    def sessions_ended(self) -> None:
        """The client will open no more sessions."""

    def disconnected(self) -> None:
        """The connection has ended; its sessions are about to end."""

    async def close(self) -> None:
        """The connection and all its sessions have ended: clean up. Never raises."""


class Gateway(Protocol):
    """Turns identities into logins."""

    def login(self, identity: Identity) -> Login:
        """Return a new login. Called only after authentication has succeeded; the caller closes it."""
