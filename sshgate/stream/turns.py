"""Fair shares of the event loop: what a peer sends is worked off in pieces, and others get their turn between.

One loop serves everybody, so a callback that works off all that one peer has sent keeps everybody else waiting: a MiB
of SSH's smallest packets takes a third of a second. So each peer's work goes through a ``Budget``: it has ``SHARE``
seconds per turn of the loop, and all of them together have ``TURN``, however many flood. What is left goes on in a
later turn, and who has used the loop least lately goes first: a typist before a flood.

Three ways to use one. Take one per peer (connection, socket, process) from ``budget()``:

1. Callbacks (``data_received``): put the bytes into a bounded buffer and call ``ready()``. It calls ``work``, at once
   or in a later turn. ``work`` asks ``over()`` after each packet, stops once that is true, and returns whether
   something is left. Then ``pause`` is called (stop reading), and ``resume`` when all is done.
2. Coroutines that work off what they have read: ``await budget.run(steps)``, where ``steps`` is a generator that
   yields after each small piece of work (a frame, an entry of a listing)::

       def _take(self, data: bytes) -> Iterator[None]:
           for frame in self._reader.feed(data):
               self._obey(frame)
               yield

       await self._budget.run(self._take(data))

   The generator must be lazy: no piece may cost more than a few hundred microseconds. It may append to a list.
3. Work whose cost is known only afterwards: ``await budget.spent(seconds)``.

``charge`` adds what a packet costs later, in a task of its own. Nothing here holds up a peer that nobody competes
with by more than a turn of the loop, some 20 us.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from weakref import WeakValueDictionary

# Seconds of one budget, and of all of them, in one turn of the loop. A keystroke and its echo take about five turns.
SHARE = 0.002
TURN = 0.005
# Who has used little lately is served at once even when the others have used up the turn: this much besides.
AT_ONCE = 0.003
# What counts as little. A keystroke and its echo cost 0.3 ms.
LITTLE = 0.003
# Seconds in which use is forgotten (a time constant).
LATELY = 0.5


class Turns:
    """The turns of one event loop, and the budgets that wait for theirs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self.loop = loop
        self.clock = clock
        self.number = 0
        """Goes up with every turn in which something was worked off."""
        self.left = TURN
        """Seconds that are left of this turn; below zero where more was used."""
        self._waiting: list[tuple[float, int, Budget]] = []
        self._enqueued = 0
        self._called = False

    def __repr__(self) -> str:
        return f"<Turns {len(self._waiting)} waiting, {self.left * 1000:.1f} ms left of this one>"

    def use(self, seconds: float) -> None:
        """So much of the turn was used."""
        self.left -= seconds
        if not self._called:
            self._called = True
            self.loop.call_soon(self._next)

    def enqueue(self, budget: Budget, used: float) -> None:
        """Let it go on in a later turn; who has ``used`` less goes first."""
        self._enqueued += 1
        heapq.heappush(self._waiting, (used, self._enqueued, budget))
        self.use(0.0)

    def _next(self) -> None:
        self._called = False
        self.number += 1
        self.left = TURN
        waiting = self._waiting
        had_theirs: list[tuple[float, int, Budget]] = []
        while waiting and self.left > 0:
            entry = heapq.heappop(waiting)
            if not entry[2].go_on():
                had_theirs.append(entry)
        for entry in had_theirs:
            heapq.heappush(waiting, entry)
        if waiting:
            self.use(0.0)


class Budget:
    """What one peer may have done per turn. ``close`` it when the peer has gone."""

    __slots__ = (
        "_at", "_began", "_charged", "_due", "_lately", "_left", "_pause", "_paused", "_queued", "_resume", "_turn",
        "_turns", "_until", "_waiters", "_work", "_working",
    )  # fmt: skip

    def __init__(
        self, turns: Turns, work: Callable[[], bool], pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self._turns = turns
        self._work = work
        self._pause = pause
        self._resume = resume
        self._turn = turns.number
        self._left = SHARE
        self._lately = 0.0
        self._at = turns.clock()
        self._began = 0.0
        self._until = 0.0
        self._charged = 0.0
        self._working = False
        self._due = False
        self._paused = False
        self._queued = False
        self._waiters: deque[tuple[asyncio.Future[None], float]] = deque()

    def __repr__(self) -> str:
        state = "working" if self._working else "waiting" if self._queued else "idle"
        return f"<Budget {state}, used {self._lately * 1000:.1f} ms lately{' paused' * self._paused}>"

    # --- callbacks ---

    def ready(self) -> None:
        """Something has come for ``work``: call it now, or in a later turn."""
        if self._due:
            return
        self._due = True
        if self._may() and not self._working:
            self._work_off()
        else:
            self._wait()

    def over(self) -> bool:
        """Whether this share is used up. Asked after each piece of work, by ``work`` and by nobody else."""
        return self._turns.clock() >= self._until

    def charge(self, seconds: float) -> None:
        """Something costs this much besides, now or later."""
        if self._working:
            self._charged += seconds
            self._until -= seconds
        else:
            self._account(seconds)

    def close(self) -> None:
        """The peer has gone: ``work`` is not called any more, and no coroutine is held up."""
        self._due = False
        self._work, self._pause, self._resume = _no_work, _nothing, _nothing
        waiters, self._waiters = self._waiters, deque()
        for waiter, _ in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- coroutines ---

    async def run(self, steps: Iterable[object]) -> None:
        """Do all ``steps``, in as many turns as that takes."""
        rest = iter(steps)
        await self._admitted(SHARE)
        while self._some(rest):
            await self._admitted(SHARE)

    async def spent(self, seconds: float) -> None:
        """Pay for work that was done; returns when there is time for as much again."""
        self.charge(seconds)
        await self._admitted(seconds)

    async def _admitted(self, seconds: float) -> None:
        if not self._waiters and self._may():
            return
        waiter: asyncio.Future[None] = self._turns.loop.create_future()
        entry = waiter, seconds
        self._waiters.append(entry)
        self._wait()
        try:
            await waiter
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    def _some(self, steps: Iterator[object]) -> bool:
        """Some of the steps; whether any may be left."""
        self._begin()
        try:
            return any(self.over() for _ in steps)
        finally:
            self._end()

    # --- turns ---

    def go_on(self) -> bool:
        """Called by ``Turns`` when its turn has come; false: it had its share of this one already."""
        self._renew()
        if self._left <= 0:
            return False
        self._queued = False
        # Coroutines first, for half of the share: they carry what the peer is answered, whatever it floods with.
        room = self._left / 2
        while self._waiters and room > 0:
            waiter, seconds = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                # It works in the next turn; paid for now, so that not all of them begin at once.
                room -= seconds
                self._turns.use(seconds)
        if self._due:
            self._work_off()
        if self._waiters:
            self._wait()
        return True

    def _renew(self) -> None:
        """A new turn brings a new share; what was used beyond the last one is taken off."""
        turns = self._turns.number - self._turn
        if turns:
            self._turn += turns
            self._left = min(SHARE, self._left + turns * SHARE)

    def _may(self) -> bool:
        """Whether it may work right now."""
        self._renew()
        if self._left <= 0:
            return False
        left = self._turns.left
        return left > 0 or (left > -AT_ONCE and self._used(self._turns.clock()) < LITTLE)

    def _used(self, now: float) -> float:
        return self._lately * math.exp((self._at - now) / LATELY)

    def _wait(self) -> None:
        if self._due and not self._paused:
            self._paused = True
            self._pause()
        if not self._queued:
            self._queued = True
            # All use is forgotten at one pace, so the order of those who wait stays as it is.
            self._turns.enqueue(self, math.log(self._lately + 1e-9) + self._at / LATELY)

    def _work_off(self) -> None:
        self._begin()
        try:
            self._due = self._work()
        except BaseException:
            self._due = False
            raise
        finally:
            self._end()
        if self._due:
            self._wait()
        elif self._paused:
            self._paused = False
            self._resume()

    def _begin(self) -> None:
        self._working = True
        self._charged = 0.0
        self._began = self._turns.clock()
        # Where nothing is left it does one piece: it was granted when something was.
        left = self._turns.left
        self._until = self._began + min(self._left, left if left > 0 else AT_ONCE + left)

    def _end(self) -> None:
        self._working = False
        self._account(self._turns.clock() - self._began + self._charged)

    def _account(self, seconds: float) -> None:
        now = self._turns.clock()
        self._renew()
        self._left -= seconds
        self._lately = self._used(now) + seconds
        self._at = now
        self._turns.use(seconds)


def _no_work() -> bool:
    return False


def _nothing() -> None:
    pass


# A `Turns` lives as long as one of its budgets, and keeps its loop, so that no other has its id meanwhile.
_turns: WeakValueDictionary[int, Turns] = WeakValueDictionary()


def budget(
    work: Callable[[], bool] = _no_work,
    pause: Callable[[], None] = _nothing,
    resume: Callable[[], None] = _nothing,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Budget:
    """A new budget of the running loop, or of ``loop``."""
    loop = loop or asyncio.get_running_loop()
    turns = _turns.get(id(loop))
    if turns is None:
        turns = _turns[id(loop)] = Turns(loop)
    return Budget(turns, work, pause, resume)
