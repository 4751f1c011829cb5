"""What the SSH front door needs of the rest of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, Protocol

from sshgate.access.connections import Entrant
from sshgate.access.identity import Identity, Restrictions
from sshgate.access.penalties import Offence
from sshgate.forwarding.values import Destination
from sshgate.stream.interfaces import Client, OpenReverseChannel, Request, Stream


class Authority(Protocol):
    """Who signed a certificate, and what that allows."""

    @property
    def principals(self) -> frozenset[str]:
        """The certificate names at least one of these."""

    @property
    def restrictions(self) -> Restrictions:
        """Holds for every certificate of this signer, besides its own limits."""


class Keyring(Protocol):
    """The keys that open the gateway. Unknown users cost the same time as known ones."""

    def key(self, user: str, blob: bytes, source: str, now: float) -> Restrictions | None:
        """What the owner of this public key (SSH wire encoding) may do as ``user``; ``None``: refuse."""

    def authority(
        self, user: str, blob: bytes, source: str, now: float, names: frozenset[str] | None = None
    ) -> Authority | None:
        """What a certificate for ``names`` signed by this key needs to log in as ``user``; ``None``: refuse."""


class Slot(Protocol):
    """The place of one admitted connection."""

    def authenticated(self, user: str) -> None:
        """It has logged in. Raises ``LimitReached`` where this user has too many."""

    def failed(self, offence: Offence) -> None:
        """It ends without a login, and how."""

    def release(self) -> None:
        """It has ended. May be called again."""


class Admission(Protocol):
    """How many connections there may be."""

    def connect(self, source: str, entrant: Entrant) -> Slot:
        """Admit a connection from this address. Raises ``LimitReached``."""


class Forwards(Protocol):
    """What one connection forwards through its sandboxes."""

    @property
    def work(self) -> Collection[asyncio.Task[None]]:
        """Tasks that end when nothing uses the forwards any more, at the latest with the connection."""

    @property
    def listeners(self) -> int:
        """Listeners that are open."""

    async def connect(self, destination: Destination) -> Stream:
        """Connect from inside the sandbox. Raises ``GateError``."""

    def listen(self, where: Destination, back: OpenReverseChannel) -> Coroutine[Any, Any, int]:
        """Listen inside the sandbox; connections go to ``back``. The port, 0 for a path. Raises ``GateError``.

        A session waits for it from the call on, not only when it is awaited.
        """

    def unlisten(self, where: Destination) -> bool:
        """Let go of a listener; whether there was one."""

    def agent_allowed(self) -> bool:
        """Whether programs may use the client's agent, as far as the login name tells."""

    def sessions_ended(self) -> None:
        """The client will open no further session."""


class Login(Protocol):
    """One authenticated connection, as the gateway sees it."""

    @property
    def forwards(self) -> Forwards:
        """What it forwards."""

    def start_speculative_claim(self) -> None:
        """A channel asked for a terminal, what to run in it follows. Never raises."""

    async def run(self, request: Request, client: Client) -> None:
        """Serve one channel to its end. Raises nothing but ``CancelledError``."""

    def sessions_ended(self) -> None:
        """The client will open no further session."""

    def disconnected(self) -> None:
        """The connection has ended; its sessions are about to."""

    async def close(self) -> None:
        """The connection has ended, and so have its sessions. Never raises."""


class Gateway(Protocol):
    """Turns identities into logins."""

    def login(self, identity: Identity) -> Login:
        """Called once authentication has succeeded, never before."""
