"""Named sandboxes: what the gateway needs of a provider that keeps one between logins. Values and contracts only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from sshgate.sandbox.provider import Notice, Order, Sandbox

Admit = Callable[[], Callable[[], None]]
"""Called when a sandbox has to be made: raises ``LimitReached``, or returns what gives the place back."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A sandbox as its user and the operator see it. Times are seconds."""

    id: str
    user: str
    name: str | None
    """``None``: an ephemeral one."""
    profile: str
    state: Literal["starting", "attached", "detached", "ending"]
    """``attached``: somebody is logged in to it."""
    age: float
    left: float | None
    """Until its maximum lifetime is over; ``None`` where nobody wrote it down."""
    home: bool = False
    cpu: float | None = None
    """Cores in use; ``None`` where nobody measures."""
    memory: int | None = None
    """Bytes in use."""


@dataclass(frozen=True, slots=True)
class ListedHome:
    """What is kept of a named sandbox between its lives."""

    user: str
    name: str
    size: str
    age: float
    in_use: bool


class Attachment(Protocol):
    """One channel's part in a named sandbox. Whoever joined leaves."""

    @property
    def sandbox(self) -> Sandbox:
        """Shared with others: never to be deleted by who is attached."""

    @property
    def made(self) -> bool:
        """Whether it was not there before."""

    @property
    def left(self) -> float:
        """Seconds that remained of its maximum lifetime when it was joined."""

    async def leave(self) -> None:
        """This channel has ended. Never raises; may be called again. The last to leave starts the clock that
        ends a sandbox nobody comes back to."""


class NamedSandboxes(Protocol):
    """The sandboxes that have names. Every call tells the users apart: nobody reaches another's."""

    outlast: bool
    """Whether they go on when the gateway ends."""

    def profile(self, user: str, name: str) -> str | None:
        """The profile of a sandbox that is there, as far as is known; for who did not say which."""

    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        """The sandbox ``order.name`` of this user, made if there is none.

        Raises as ``Provider.create`` and ``admit`` do, and ``BadRequest`` when it is there with another
        profile than ``order.chosen`` asks for.
        """

    async def list(self, user: str | None) -> list[Listed]:
        """What this user has, also ephemeral ones, oldest first; ``None``: of all users. Raises ``Unavailable``."""

    async def end(self, user: str, name: str) -> str | None:
        """End it with all that runs in it: the id of the sandbox, ``None`` when there is none. Its home is kept.

        Raises ``Unavailable``.
        """


class Homes(Protocol):
    """What is kept of named sandboxes."""

    async def list(self, user: str | None) -> list[ListedHome]:
        """The homes of this user by name; ``None``: of all users. Raises ``Unavailable``."""

    async def delete(self, user: str, name: str) -> bool:
        """Delete one for good; False when there is none. Raises ``BadRequest`` while a sandbox uses it."""
