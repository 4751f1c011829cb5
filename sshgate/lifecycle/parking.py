"""Parks launchers in warm sandboxes, so that a login need not wait for an exec.

Each gateway parks only in the warm sandboxes of its own slice (``pick.is_mine``), so that the number of launchers does
not grow with the number of gateways. When the watch shows that another gateway has claimed a sandbox, the launchers
parked there are closed. A user's bytes reach a parked launcher only after the claim is won, when the launcher is handed
out with its sandbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import structlog

from sshgate.errors import GateError
from sshgate.lifecycle.pick import is_mine
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.sandbox.enter import park
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.side_execs import dismiss
from sshgate.stream.interfaces import Process
from sshgate.stream.terminal import Terminal

Kind = Literal["terminal", "pipe"]

# Seconds, varied by a quarter: the kubelet closes an exec without traffic after 4 h, many load balancers after 1 h.
# Each launcher is replaced before that.
RENEW = 2400.0
# Seconds until a sandbox in which parking failed is tried again. A login that claims it starts its own launcher.
AGAIN = 30.0
# Execs that are started at a time, so that logins take precedence on the nodes.
AT_ONCE = 4

log = structlog.get_logger("sshgate.lifecycle")


class ParkableSandbox(Sandbox, Protocol):
    """A warm sandbox in which launchers can be parked."""

    def leave(self, terminal: bool, process: Process) -> None:
        """Give the sandbox a parked launcher: ``parked(terminal)`` returns it, and the sandbox closes it otherwise."""

    async def forget(self) -> None:
        """Close the launchers parked in it; the sandbox itself stays. Never raises."""


@dataclass(eq=False)
class _ParkingPlace:
    """One warm sandbox with its launchers."""

    sandbox: ParkableSandbox
    waiting: dict[Kind, _ParkedLauncher] = field(default_factory=dict)
    tried: float = float("-inf")
    task: asyncio.Task[None] | None = None


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
        jitter: Callable[[], float],
    ) -> None:
        """Nothing is parked before the first ``look``.

        Args:
            kinds: what to park, by profile.
            enter: the sandbox of a pod; ``None`` where there is none, for now or for good: its profile was removed,
                or its pod is not known yet or any more.
            jitter: a random number from 0 to 1.
        """
        self._registry = registry
        self._kinds = kinds
        self._enter = enter
        self._jitter = jitter
        self._places: dict[str, _ParkingPlace] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._closing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Parking {self.count} launchers in {len(self._places)} sandboxes>"

    @property
    def count(self) -> int:
        """The number of parked launchers."""
        return sum(len(place.waiting) for place in self._places.values())

    def look(self) -> float:
        """Begin to park where launchers are missing, and close useless ones. Returns when to look again (monotonic)."""
        registry, now = self._registry, self._registry.now
        lives = registry.lives
        wanted = {
            one.record.uid: one.record
            for one in registry.cache.cached_pods(now)
            if one.record.session is None
            and one.record.usable
            and self._kinds.get(one.record.profile)
            and is_mine(one.record.uid, registry.life, lives)
        }
        for uid, place in tuple(self._places.items()):
            # One launcher of a kind that is no longer wanted closes all in its sandbox: settings seldom change.
            if uid not in wanted or not place.waiting.keys() <= set(self._kinds[wanted[uid].profile]):
                self._let_go(uid)
        soonest = now.mono + RENEW
        for uid, record in wanted.items():
            soonest = min(soonest, self._see_to(uid, record, now.mono))
        return soonest

    def take(self, uid: str) -> ParkableSandbox | None:
        """The sandbox of a claimed pod and its parked launchers, the caller's from now on; ``None``: there is none."""
        place = self._places.pop(uid, None)
        if place is None:
            return None
        self._stop(place)
        return place.sandbox

    async def close(self) -> None:
        """Close every launcher, and wait for that."""
        for uid in tuple(self._places):
            self._let_go(uid)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _see_to(self, uid: str, record: Record, mono: float) -> float:
        place = self._places.get(uid)
        if place is None:
            sandbox = self._enter(record)
            if sandbox is None:
                return mono + AGAIN
            place = self._places[uid] = _ParkingPlace(sandbox)
        missing = [kind for kind in self._kinds[record.profile] if kind not in place.waiting]
        due = [kind for kind, one in place.waiting.items() if one.until <= mono]
        if place.task is None and (missing or due):
            if mono - place.tried < AGAIN:
                return place.tried + AGAIN
            place.tried = mono
            place.task = asyncio.create_task(self._fill(place, record, [*missing, *due]))
            place.task.add_done_callback(lambda _: self._registry.notify())
        return min((one.until for one in place.waiting.values()), default=mono + AGAIN)

    async def _fill(self, place: _ParkingPlace, record: Record, kinds: Sequence[Kind]) -> None:
        try:
            for kind in kinds:
                async with self._room:
                    process = await park(place.sandbox, Terminal() if kind == "terminal" else None, fresh=True)
                self._left(place, kind, process)
            place.tried = float("-inf")
        except GateError as error:
            log.debug("parking.failed", sandbox=record.name, reason=str(error))
            # The sandbox may have recorded that it cannot be entered: replace it, so that a login tries for itself.
            fresh = self._enter(record) if self._places.get(record.uid) is place else None
            if fresh is not None:
                place.sandbox = fresh
        finally:
            place.task = None

    def _left(self, place: _ParkingPlace, kind: Kind, process: Process) -> None:
        old = place.waiting.pop(kind, None)
        if old is not None:
            old.watch.cancel()
            self._spawn(dismiss(old.process))
        until = self._registry.now.mono + RENEW * (0.75 + self._jitter() / 2)
        watch = asyncio.create_task(self._see_end(place, kind, process))
        place.waiting[kind] = _ParkedLauncher(process, until, watch)
        place.sandbox.leave(kind == "terminal", process)

    async def _see_end(self, place: _ParkingPlace, kind: Kind, process: Process) -> None:
        """A parked launcher prints nothing, so anything that can be read means that it is of no more use."""
        await process.read()
        place.waiting.pop(kind, None)
        self._spawn(process.close())
        self._registry.notify()

    def _let_go(self, uid: str) -> None:
        place = self._places.pop(uid)
        self._stop(place)
        self._spawn(place.sandbox.forget())

    def _stop(self, place: _ParkingPlace) -> None:
        for one in place.waiting.values():
            one.watch.cancel()
        place.waiting.clear()
        if place.task is not None:
            place.task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
