"""The contract of a provider of sandboxes: Kubernetes, or this machine. Also of named sandboxes and their homes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sshgate.config.model import Limits, Profile
from sshgate.sandbox.probe import Probe, Verdict
from sshgate.sandbox.side_execs import SideExecs
from sshgate.stream.interfaces import Process
from sshgate.stream.terminal import Terminal

Kind = Literal["terminal", "pipe", "resident", "kept"]
"""What can be parked in a sandbox: a launcher with a terminal or on pipes, or an exec attached to its resident."""

Notice = Callable[[str], None]
"""Called with a short progress text while a sandbox starts (``pulling image``); must not block."""


@dataclass(frozen=True, slots=True)
class Order:
    """A sandbox to be made for this user.

    ``session`` is the id of the claim, as it appears in logs; ``name`` is set for a named sandbox only.
    """

    profile: Profile
    user: str
    session: str
    name: str | None = None
    chosen: bool = False
    """Whether the user asked for this profile; if not, a named sandbox of any profile is accepted."""


class Sandbox(Protocol):
    """One pod, or one bubblewrap tree. The caller of ``Provider.create`` deletes it."""

    id: str
    """Its name for logs and operators; on Kubernetes the pod's name."""
    uid: str
    """Differs from that of every earlier sandbox with the same id."""
    warm: bool
    """Whether it was ready before a login asked for it."""
    aside: SideExecs
    """The gateway's own execs in it, beside its users' programs."""

    @property
    def usable(self) -> bool:
        """Whether a program could still be started in it, as far as is known."""

    async def exists(self) -> bool:
        """Ask the provider whether it still exists and is not being deleted. Raises ``GateError`` without an answer."""

    @property
    def hostname(self) -> str:
        """The host name that programs in it get; empty if that is the node's."""

    async def addresses(self) -> tuple[str, ...]:
        """Its own IP addresses, without loopback. Waits a moment if they are not known yet; may be empty."""

    def parked(self, kind: Kind) -> Process | None:
        """Take what is parked in it; ``None``: there is none of this kind. The caller closes it."""

    async def forget(self) -> None:
        """End the launchers parked in it. Programs can still be started. Never raises."""

    def probe(self, parked: bool) -> Probe | None:
        """What the next launcher in it looks at before its mark; ``None``: nothing. Its verdict goes to ``judge``.

        Args:
            parked: the launcher is to be parked: nobody waits for it.
        """

    async def judge(self, verdict: Verdict) -> None:
        """Wait until programs of its user may start, judging by what a launcher has found.

        Args:
            verdict: what the probe of the launcher found.

        Raises:
            StartFailed: the network policy is not in force in it.
        """

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        """Start a program. The caller closes the process.

        Waits until the sandbox has started as far as needed. Calls may run concurrently. Cancelling ends a program that
        was begun.

        Args:
            argv: the program's path in the sandbox and its arguments; not a shell's command line.
            terminal: ``None``: pipes, with separate stderr.

        Raises:
            StartFailed: the sandbox cannot start; raised as soon as that is certain, at the latest after the profile's
                ``limits.start``.
            ProgramMissing: the sandbox has no such program.
            Unavailable: the provider does not answer.
        """

    async def delete(self) -> None:
        """End every program in it and remove it. Idempotent, allowed at any time; never raises.

        Returns when the provider has accepted the deletion, not when the last process is gone. A failed deletion is
        retried in the background until it succeeds or ``Provider.close`` gives up.
        """


# --- sandboxes that a provider keeps between logins ---

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


class Attachment:
    """One channel's use of a named sandbox. The caller of ``join`` calls ``leave``.

    Other channels may share the sandbox, so the holder of an attachment never deletes it.

    Args:
        made: whether the sandbox was made for this attachment.
        left: seconds that remained of the sandbox's maximum lifetime when it was joined.
        leaving: called once, by ``leave``, with its argument; must not raise.
    """

    def __init__(self, sandbox: Sandbox, made: bool, left: float, leaving: Callable[[bool], None]) -> None:
        self.sandbox = sandbox
        self.made = made
        self.left = left
        self._leaving: Callable[[bool], None] | None = leaving

    async def leave(self, returns: bool = False) -> None:
        """End this channel's use. Idempotent; never raises.

        When the last channel leaves, the time for which the sandbox is kept without clients starts.

        Args:
            returns: its client has left a held session, and may come back to it.
        """
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving(returns)


Unattended = tuple[str, str, str]
"""A named sandbox without clients: its user, its name and its profile."""


class NamedSandboxes(Protocol):
    """The named sandboxes. A name is looked up among one user's sandboxes only, never among another's."""

    outlast: bool
    """Whether they keep running when the gateway ends."""

    def profile(self, user: str, name: str) -> str | None:
        """The profile of an existing sandbox, as far as is known without asking; ``None``: none is known."""

    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        """Join the sandbox ``order.name`` of this user, or make it.

        Args:
            notice: called with progress texts.
            admit: called only if the sandbox has to be made.

        Raises:
            BadRequest: it exists with another profile, and the user asked for one (``order.chosen``).
            GateError: as ``Provider.create`` and ``admit``.
        """

    def names(self, user: str) -> Collection[str]:
        """The names of this user's sandboxes, as far as is known, without asking."""

    def unattended(self) -> Sequence[Unattended]:
        """Those without clients that this gateway has to look after: none, or all where it is the leader.

        As far as is known, without asking.
        """

    async def find(self, order: Order) -> Sandbox | None:
        """Look up the sandbox ``order.name`` of this user; ``None`` if there is none.

        Unlike ``join``, this does not count as use: the time for which it is kept without clients goes on. Raises
        ``Unavailable``.
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


# --- providers ---


class UserRecords(Protocol):
    """Persistent storage of one text per user."""

    async def all(self) -> Mapping[str, str]:
        """Return the texts of all users, by user name. Raises ``GateError`` when the storage cannot be read."""

    async def read(self, user: str) -> str:
        """Return a user's text; empty if there is none. Raises ``GateError`` when the storage cannot be read."""

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        """Atomically replace a user's text, also against other gateways, and return the new text.

        If this is cancelled, the text may have been replaced or not.

        Args:
            change: maps the old text (empty: none yet) to the new one. It may be called more than once, and in
                another thread, so it must have no side effects.

        Raises:
            GateError: the storage cannot be read or written.
        """


class Provider(Protocol):
    """Makes sandboxes. One object per gateway."""

    @property
    def named(self) -> NamedSandboxes:
        """The sandboxes that outlive a login."""

    @property
    def homes(self) -> Homes | None:
        """The homes of named sandboxes; ``None`` where the provider has none."""

    @property
    def user_records(self) -> UserRecords | None:
        """Where gateways share what they record of users; ``None``: each keeps it on its own machine."""

    @property
    def spending_records(self) -> UserRecords | None:
        """Where gateways share what users have spent on models; ``None``: each keeps it in memory."""

    async def open(self) -> None:
        """Prepare, once, before any other call: read credentials, check that sandboxes can be made.

        Also removes the ephemeral sandboxes of earlier instances of this gateway. Raises ``Unavailable``.
        """

    async def create(self, order: Order, notice: Notice) -> Sandbox:
        """Make or claim a sandbox for ``order``. Returns once the provider has accepted it, maybe before it is ready.

        Nothing is left behind when this raises or is cancelled. ``notice`` is called with progress texts.

        Raises:
            StartFailed: denied or invalid.
            LimitReached: a limit of the gateway, or a quota.
            Unavailable: the provider does not answer.
        """

    def reconfigure(self, profiles: Mapping[str, Profile], limits: Limits) -> None:
        """Use other profiles and limits from now on. Sandboxes in use stay as they were made."""

    def counts(self) -> Mapping[tuple[str, ...], float]:
        """The number of sandboxes by profile and state.

        States are ``warm``, ``starting``, ``held`` (waiting for room or an image) and ``claimed``. A provider that
        several gateways share counts those of all, and returns zeros too.
        """

    async def check(self) -> None:
        """Check with one cheap request that sandboxes could be made now. Raises ``GateError`` with the reason."""

    async def close(self) -> None:
        """Delete every remaining ephemeral sandbox, within a few seconds, and release all resources.

        Named ones stay where they can outlive the gateway (``NamedSandboxes.outlast``).
        """
