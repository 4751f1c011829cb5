"""Named sandboxes: what the gateway needs of a provider that keeps sandboxes between logins. Contracts only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from sshgate.sandbox.provider import Notice, Order, Sandbox

Admit = Callable[[], Callable[[], None]]
"""Called when a sandbox has to be made. Raises ``LimitReached``, or returns the function that ends the admission."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A sandbox as listed for its user and the operator. Times are in seconds."""

    id: str
    user: str
    name: str | None
    """``None``: an ephemeral one."""
    profile: str
    state: Literal["starting", "attached", "detached", "ending"]
    """``attached``: it has clients."""
    age: float
    left: float | None
    """Until its maximum lifetime is over; ``None`` where that is not known."""
    home: bool = False
    cpu: float | None = None
    """Cores in use; ``None`` where that is not measured."""
    memory: int | None = None
    """Bytes in use; ``None`` where that is not measured."""


@dataclass(frozen=True, slots=True)
class ListedHome:
    """The home of a named sandbox, which outlives it. ``age`` is in seconds."""

    user: str
    name: str
    size: str
    age: float
    in_use: bool


class Attachment(Protocol):
    """One channel's use of a named sandbox. The caller of ``join`` calls ``leave``."""

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox. Other channels may share it, so the holder of an attachment never deletes it."""

    @property
    def made(self) -> bool:
        """Whether the sandbox was made for this attachment."""

    @property
    def left(self) -> float:
        """Seconds that remained of the sandbox's maximum lifetime when it was joined."""

    async def leave(self) -> None:
        """End this channel's use. Idempotent; never raises.

        When the last channel leaves, the time for which the sandbox is kept without clients starts.
        """


class NamedSandboxes(Protocol):
    """The named sandboxes. A name is looked up among one user's sandboxes only, never among another's."""

    outlast: bool
    """Whether they keep running when the gateway ends."""

    def profile(self, user: str, name: str) -> str | None:
        """The profile of an existing sandbox, as far as is known; for a user who did not ask for a profile."""

    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        """Join the sandbox ``order.name`` of this user, or make it.

        Args:
            notice: called with progress texts.
            admit: called only if the sandbox has to be made.

        Raises:
            BadRequest: it exists with another profile, and the user asked for one (``order.chosen``).
            GateError: as ``Provider.create`` and ``admit``.
        """

    async def list(self, user: str | None) -> list[Listed]:
        """The sandboxes of this user, also ephemeral ones, oldest first; ``None``: of all. Raises ``Unavailable``."""

    async def end(self, user: str, name: str) -> str | None:
        """End a sandbox and everything that runs in it; its home is kept.

        Returns the sandbox's id, ``None`` when there is none. Raises ``Unavailable``.
        """


class Homes(Protocol):
    """The homes of named sandboxes: volumes that outlive them."""

    async def list(self, user: str | None) -> list[ListedHome]:
        """The homes of this user, sorted by name; ``None``: of all users. Raises ``Unavailable``."""

    async def delete(self, user: str, name: str) -> bool:
        """Delete a home for good; False when there is none. Raises ``BadRequest`` while a sandbox uses it."""
