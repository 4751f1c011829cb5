"""What the gateway needs of a place that can make sandboxes: Kubernetes, or this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sshgate.config.model import Limits, Profile
from sshgate.sandbox.side_execs import SideExecs
from sshgate.stream.interfaces import Process
from sshgate.stream.terminal import Terminal

if TYPE_CHECKING:
    from sshgate.sandbox.named import Homes, NamedSandboxes

Notice = Callable[[str], None]
"""Called with a short progress text while a sandbox starts (``pulling image``); must not block."""


@dataclass(frozen=True, slots=True)
class Order:
    """A sandbox to be made, claimed from the start by this user.

    ``session`` is the id under which logs speak of it; ``name`` is set for a named sandbox only.
    """

    profile: Profile
    user: str
    session: str
    name: str | None = None
    chosen: bool = False
    """Whether the user asked for this profile; otherwise any that the named sandbox has will do."""


class Sandbox(Protocol):
    """One pod, or one bubblewrap tree. Whoever created it deletes it."""

    id: str
    """How logs and operators name it: the pod's name."""
    warm: bool
    """Whether it was ready before anybody asked for it."""
    aside: SideExecs
    """What the gateway does in it beside its users' programs."""

    @property
    def usable(self) -> bool:
        """Whether a program could still be started in it, as far as is known."""

    @property
    def hostname(self) -> str:
        """What programs in it see as their machine's name; empty where that is another machine's."""

    async def addresses(self) -> tuple[str, ...]:
        """Its own addresses on its network, besides loopback; waits a moment where they are not known yet."""

    def parked(self, terminal: bool) -> Process | None:
        """A launcher that waits in it already, with a terminal or on pipes; whoever gets it closes it."""

    async def forget(self) -> None:
        """End the launchers that wait in it; programs can still be started. Never raises."""

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        """Start a program: with a terminal of this size, or on pipes with stderr apart.

        Waits until the sandbox has started as far as needed; several calls may run side by side. When the
        sandbox cannot start, raises ``StartFailed`` with the reason as soon as it is known to be hopeless,
        at the latest after the profile's ``limits.start``. Raises ``ProgramMissing`` when the program is not
        there and ``Unavailable`` when the provider does not answer. Cancelling ends what was begun.
        """

    async def delete(self) -> None:
        """End every program in it and remove it. May be called at any time, again, and never raises.

        Returns when the provider has accepted the deletion, not when the last process is gone. A failed
        deletion is tried again in the background until it succeeds or ``Provider.close`` gives up.
        """


class Shelf(Protocol):
    """A text for each user; see ``access.ledger.Shelf``."""

    async def all(self) -> Mapping[str, str]:
        """The texts of all users. Raises ``GateError``."""

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        """Replace a user's text, as one step. Raises ``GateError``."""


class Provider(Protocol):
    """Makes sandboxes. One object per gateway."""

    @property
    def named(self) -> NamedSandboxes:
        """Those that outlive a login."""

    @property
    def homes(self) -> Homes | None:
        """What named sandboxes keep; ``None`` where there is no place for it."""

    @property
    def shelf(self) -> Shelf | None:
        """Where gateways keep what they share of their users; ``None``: nowhere but on their own machine."""

    async def open(self) -> None:
        """Get ready, once, before all else: read credentials, look whether sandboxes can be made at all.

        Also removes the ephemeral sandboxes of this gateway's own earlier lives. Raises ``Unavailable``.
        """

    async def create(self, order: Order, notice: Notice) -> Sandbox:
        """A fresh sandbox for ``order``, as soon as the provider has accepted it.

        Raises ``StartFailed`` (denied, invalid), ``LimitReached`` (quota) or ``Unavailable``. Nothing is
        left behind when it raises or is cancelled.
        """

    def reconfigure(self, profiles: Mapping[str, Profile], limits: Limits) -> None:
        """Other profiles and limits from now on. Sandboxes that are in use stay as they were made."""

    def counts(self) -> Mapping[tuple[str, ...], float]:
        """How many sandboxes there are, by profile and state: ``warm``, ``starting``, ``held`` (they wait for room or
        an image), ``claimed``. A provider that others share counts theirs too, and tells zeros."""

    async def check(self) -> None:
        """Whether sandboxes could be made now, by one cheap question. Raises ``GateError`` with the reason."""

    async def close(self) -> None:
        """Delete every ephemeral sandbox that is still there, within a few seconds, and let go of everything.

        Named ones stay where they can outlive the gateway.
        """
