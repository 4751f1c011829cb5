"""Sessions as the front ends use them. ``sshgate.session.gateway`` implements this."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Protocol

from sshgate.access.identity import Identity
from sshgate.config.model import Profile
from sshgate.forwarding.destinations import Destination
from sshgate.sandbox.interfaces import Provider
from sshgate.session.subsystems.held_sessions import HeldSessions
from sshgate.stream.interfaces import Client, OpenReverseChannel, Request, Stream


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
        """Listen inside the sandbox on ``where``; ``back`` is called for each connection.

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
    """One authenticated connection, or one session of a browser."""

    @property
    def forwards(self) -> Forwards:
        """What the connection forwards."""

    def shell_pid(self, client: Client) -> int | None:
        """Return the process id, in its sandbox, of this client's program; ``None`` while it has none."""

    def ends(self, client: Client) -> Mapping[str, float]:
        """Return when this client's session ends: monotonic time by clock, ``lifetime``, ``idle`` or ``detached``."""

    def start_speculative_claim(self) -> None:
        """A channel has a terminal but no program yet: claim a sandbox in advance. Never raises."""

    async def run(self, request: Request, client: Client) -> None:
        """Serve one channel from its request to the exit status. May run several times at once.

        Reports every error to the client and always ends with ``client.finish``. Notices itself when the client
        disconnects. Run it in a task of its own, and cancel it only for a shutdown: then it cleans up, finishes the
        client and raises ``CancelledError``. Raises nothing else.
        """

    def sessions_ended(self) -> None:
        """The client will open no more sessions."""

    def disconnected(self) -> None:
        """The connection has ended: programs in sandboxes that are deleted with it need not be hung up first."""

    async def close(self) -> None:
        """Close forwards and delete shared sandboxes. Call it once, after every ``run`` has ended. Never raises."""


class Gateway(Protocol):
    """Turns identities into logins."""

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """By name; the policy decides who may use which."""

    def existing_profile(self, user: str, name: str) -> str | None:
        """Return the profile of the user's existing sandbox with this name; ``None`` if there is none."""

    def login(self, identity: Identity, together: bool = False) -> Login:
        """Return a new login. Call it only after authentication has succeeded; the caller closes it.

        Args:
            together: All channels share one sandbox, even if the profile gives every channel its own.
        """


class SessionGateway(Gateway, Protocol):
    """A gateway that also knows what is held, and which sandboxes there are."""

    @property
    def provider(self) -> Provider:
        """What makes sandboxes."""

    @property
    def held(self) -> HeldSessions:
        """The held sessions of all users' sandboxes."""
