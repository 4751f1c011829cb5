"""Parks launchers in warm sandboxes, so that a login need not wait for an exec.

Each gateway parks only in the warm sandboxes of its own slice (``membership.is_mine``), so that the number of launchers
does not grow with the number of gateways. When the watch shows that another gateway has claimed a sandbox, the
launchers parked there are closed. A user's bytes reach a parked launcher only after the claim is won, when the launcher
is handed out with its sandbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from sshgate.errors import GateError
from sshgate.lifecycle.indexes import Index
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.sandbox.enter import park
from sshgate.sandbox.interfaces import Kind, Sandbox
from sshgate.sandbox.side_execs import dismiss
from sshgate.stream.interfaces import Process
from sshgate.stream.tasks import TaskSet
from sshgate.stream.terminal import Terminal

# Seconds, varied by a quarter: the kubelet closes an exec without traffic after 4 h, many load balancers after 1 h.
# Each launcher is replaced before that.
RENEW = 2400.0
# Seconds until a sandbox in which parking failed is tried again. A login that claims it starts its own launcher.
AGAIN = 30.0
# A resident that has not started, or has ended soon after that, so often is not started again.
EARLY_ENDS = 3
# Execs that are started at a time, so that logins take precedence on the nodes.
AT_ONCE = 4

log = structlog.get_logger("sshgate.lifecycle")


class ParkableSandbox(Sandbox, Protocol):
    """A warm sandbox in which launchers can be parked."""

    def leave(self, kind: Kind, process: Process) -> None:
        """Give the sandbox a parked launcher: ``parked(kind)`` returns it, and the sandbox closes it otherwise."""

    @property
    def fenced(self) -> bool:
        """Whether a launcher in it has found that the network policy is in force."""

    async def forget(self) -> None:
        """Close the launchers parked in it; the sandbox itself stays. Never raises."""


@dataclass(eq=False)
class _ParkingPlace:
    """One warm sandbox with its launchers."""

    sandbox: ParkableSandbox
    waiting: dict[Kind, _ParkedLauncher] = field(default_factory=dict)
    without_resident: bool = False
    early_ends: int = 0
    tried: float = float("-inf")
    task: asyncio.Task[None] | None = None

    def count_early_end(self) -> None:
        """A resident has not started, or not lasted: the image's python3 may be such that each time."""
        self.early_ends += 1
        self.without_resident = self.early_ends >= EARLY_ENDS


@dataclass(eq=False)
class _ParkedLauncher:
    """A parked launcher, when to replace it (monotonic), and the task that waits for its end."""

    process: Process
    until: float
    watch: asyncio.Task[None]


class Parking:
    """The parked launchers of one gateway. Call ``look`` after each change of the cache, ``close`` at the end."""

    def __init__(
        self,
        registry: Registry,
        kinds: Mapping[str, Sequence[Kind]],
        enter: Callable[[Record], ParkableSandbox | None],
        attach: Callable[[Sandbox], Awaitable[Process | None]],
        jitter: Callable[[], float],
    ) -> None:
        """Nothing is parked before the first ``look``.

        Args:
            kinds: what to park, by profile.
            enter: the sandbox of a pod; ``None`` where there is none, for now or for good: its profile was removed,
                or its pod is not known yet or any more.
            attach: starts a sandbox's resident and attaches to it; ``None``: it cannot have one.
            jitter: a random number from 0 to 1.
        """
        self._registry = registry
        self._kinds = kinds
        self._enter = enter
        self._attach = attach
        self._jitter = jitter
        self._places: dict[str, _ParkingPlace] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._closing = TaskSet()
        self._last_kinds: dict[str, tuple[Kind, ...]] = {}
        # The pods to check at the next look, and when to check the others.
        self._changed: set[str] = set()
        self._checks: dict[str, float] = {}
        self._due: Index[None] = Index()
        registry.cache.parkable_changed = self._note

    def __repr__(self) -> str:
        return f"<Parking {self.count} launchers in {len(self._places)} sandboxes>"

    @property
    def count(self) -> int:
        """The number of parked launchers."""
        return sum(len(place.waiting) for place in self._places.values())

    def look(self) -> float:
        """Begin to park where launchers are missing, and close useless ones. Returns when to look again (monotonic)."""
        cache, mono = self._registry.cache, self._registry.now.mono
        shared = cache.share(self._registry.live_instances)
        kinds = {profile: tuple(wanted) for profile, wanted in self._kinds.items()}
        if kinds != self._last_kinds:
            self._last_kinds = kinds
            self._changed.update(self._places, cache.all_parkable())
        changed, self._changed = self._changed, set()
        for uid in changed:
            self._check(uid, mono)
        for _, uid in self._due.until(None, mono):
            self._check(uid, mono)
        return min((when for when, _ in self._due[None][:1]), default=mono + RENEW) if shared else mono

    def take(self, uid: str) -> ParkableSandbox | None:
        """The sandbox of a claimed pod and its parked launchers, the caller's from now on; ``None``: there is none."""
        place = self._places.pop(uid, None)
        if place is None:
            return None
        self._stop(place)
        self._check_at(uid, None)
        return place.sandbox

    async def close(self) -> None:
        """Close every launcher, and wait for that."""
        for uid in tuple(self._places):
            self._let_go(uid)
        await self._closing.join()

    def _note(self, uid: str) -> None:
        """The pod may have begun or ceased to be one to park in: check it at the next look."""
        if uid in self._places or self._registry.cache.parkable(uid) is not None:
            self._changed.add(uid)
        else:
            self._changed.discard(uid)

    def _check(self, uid: str, mono: float) -> None:
        record, place = self._registry.cache.parkable(uid), self._places.get(uid)
        kinds = self._kinds.get(record.profile, ()) if record is not None else ()
        # One launcher of a kind that is no longer wanted closes all in its sandbox: settings seldom change.
        if place is not None and (not kinds or not place.waiting.keys() <= set(kinds)):
            self._let_go(uid)
        self._check_at(uid, self._park_missing(record, kinds, mono) if record is not None and kinds else None)

    def _check_at(self, uid: str, when: float | None) -> None:
        """Check this pod again then (monotonic), and not before unless it changes."""
        old = self._checks.pop(uid, None)
        if old is not None:
            self._due.remove(None, (old, uid))
        if when is not None:
            self._checks[uid] = when
            self._due.add(None, (when, uid))

    def _park_missing(self, record: Record, kinds: Sequence[Kind], mono: float) -> float:
        uid = record.uid
        place = self._places.get(uid)
        if place is None:
            sandbox = self._enter(record)
            if sandbox is None:
                self._changed.add(uid)
                return mono + AGAIN
            place = self._places[uid] = _ParkingPlace(sandbox)
        if place.without_resident:
            kinds = [kind for kind in kinds if kind != "resident"]
        missing = [kind for kind in kinds if kind not in place.waiting]
        due = [kind for kind, one in place.waiting.items() if one.until <= mono]
        if place.task is None and (missing or due):
            if mono - place.tried < AGAIN:
                return place.tried + AGAIN
            place.tried = mono
            place.task = asyncio.create_task(self._fill(place, record, [*missing, *due]))
            place.task.add_done_callback(lambda _: self._wake(uid))
        if place.task is not None:
            return mono + AGAIN  # its end causes a check; the time to replace a launcher may have passed already
        return min((one.until for one in place.waiting.values()), default=mono + AGAIN)

    def _wake(self, uid: str) -> None:
        self._note(uid)
        self._registry.notify()

    async def _fill(self, place: _ParkingPlace, record: Record, kinds: Sequence[Kind]) -> None:
        try:
            for kind in kinds:
                async with self._room:
                    process = await self._park(place, kind)
                if process is None:
                    place.without_resident = True
                    self._dismiss(place, kind)
                    continue
                self._left(place, record.uid, kind, process)
                if place.sandbox.fenced:
                    self._registry.cache.fence(record.uid)
            place.tried = float("-inf")
        except GateError as error:
            log.debug("parking.failed", sandbox=record.name, reason=str(error))
            if place.without_resident:
                self._dismiss(place, "resident")
            # The sandbox may have recorded that it cannot be entered: replace it, so that a login tries for itself.
            fresh = self._enter(record) if self._places.get(record.uid) is place else None
            if fresh is not None:
                # What is parked in the old one would not be handed out with the new one.
                self._unwatch(place)
                self._closing.start(place.sandbox.forget())
                place.sandbox = fresh
        finally:
            place.task = None

    async def _park(self, place: _ParkingPlace, kind: Kind) -> Process | None:
        if kind != "resident":
            return await park(place.sandbox, Terminal() if kind == "terminal" else None, fresh=True)
        try:
            return await self._attach(place.sandbox)
        except GateError:
            place.count_early_end()
            raise

    def _dismiss(self, place: _ParkingPlace, kind: Kind) -> None:
        """End the launcher of this kind that waits, if any."""
        old = place.waiting.pop(kind, None)
        if old is not None:
            old.watch.cancel()
            self._closing.start(dismiss(old.process))

    def _left(self, place: _ParkingPlace, uid: str, kind: Kind, process: Process) -> None:
        self._dismiss(place, kind)
        until = self._registry.now.mono + RENEW * (0.75 + self._jitter() / 2)
        watch = asyncio.create_task(self._watch_end(place, uid, kind, process))
        place.waiting[kind] = _ParkedLauncher(process, until, watch)
        place.sandbox.leave(kind, process)

    async def _watch_end(self, place: _ParkingPlace, uid: str, kind: Kind, process: Process) -> None:
        """A parked launcher prints nothing, so anything that can be read means that it is of no more use."""
        parked = self._registry.now.mono
        await process.read()
        place.waiting.pop(kind, None)
        if kind == "resident" and self._registry.now.mono - parked < AGAIN:
            place.count_early_end()
        self._closing.start(process.close())
        self._wake(uid)

    def _let_go(self, uid: str) -> None:
        place = self._places.pop(uid)
        self._stop(place)
        self._closing.start(place.sandbox.forget())

    def _stop(self, place: _ParkingPlace) -> None:
        self._unwatch(place)
        if place.task is not None:
            place.task.cancel()

    def _unwatch(self, place: _ParkingPlace) -> None:
        for one in place.waiting.values():
            one.watch.cancel()
        place.waiting.clear()
