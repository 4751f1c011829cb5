"""Fair scheduling of the event loop: each peer's data is processed in small pieces, with other peers in between.

One event loop serves all peers, so a callback that processes everything that one peer has sent delays all others: a MiB
of SSH's smallest packets takes a third of a second. Each peer's work therefore goes through a ``Budget``. It has
``SHARE`` seconds per turn of the loop, and all budgets together have ``TURN``, however many peers flood. The rest
continues in a later turn. The peer with the smallest recent usage goes first: typing before a flood.

Take one budget per peer (connection, socket, process) from ``budget()``. There are three ways to use it:

1. Callbacks (``data_received``): put the bytes into a bounded buffer and call ``schedule()``. It calls ``work``, now
   or in a later turn. ``work`` checks ``exhausted()`` after each packet, stops once that is true, and returns whether
   something is left. If so, ``pause`` is called (stop reading), and ``resume`` once all is done.
2. Coroutines that process what they have read: ``await budget.run(steps)``, where ``steps`` is a generator that
   yields after each small piece of work (a frame, an entry of a listing)::

       def _take(self, data: bytes) -> Iterator[None]:
           for frame in self._reader.feed(data):
               self._obey(frame)
               yield

       await self._budget.run(self._take(data))

   The generator must be lazy: no piece may take more than a few hundred microseconds. It may append to a list.
3. Work whose cost is known only afterwards: ``await budget.charge_and_wait(seconds)``.

What a peer is sent costs on its way as well: ``gather`` says how long to collect small messages before the next one.

``charge`` adds costs that arise elsewhere, such as in a task that a packet starts. A peer without competitors is
delayed by one turn of the loop at most, about 20 us.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable, Iterable, Iterator
from weakref import WeakValueDictionary

# Seconds of one budget, and of all budgets together, per turn of the loop. A keystroke and its echo take about five
# turns.
SHARE = 0.002
TURN = 0.005
# Extra seconds per turn for budgets that have used little recently: they run at once even if the turn is used up.
AT_ONCE = 0.003
# Recent use in seconds that still counts as little. A keystroke and its echo cost 0.3 ms.
LITTLE = 0.003
# Recent use decays exponentially with this time constant, in seconds.
LATELY = 0.5
# Seconds for which small messages are gathered after one was sent: for each that all peers are sent, and at most.
# In a pod each costs some 0.3 ms, mostly in the API server and the kubelet, and an event of 150 bytes adds hardly any.
GATHER = 0.0008
GATHER_MOST = 0.002


class Turns:
    """Counts the turns of one event loop and schedules the budgets that wait for one.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self.loop = loop
        self.clock = clock
        self.number = 0
        """The current turn. Goes up with every turn in which work was done."""
        self.left = TURN
        """Seconds left of this turn; negative if more was used."""
        self.gathered_until = 0.0
        self._waiting: list[tuple[float, int, Budget]] = []
        self._enqueued = 0
        self._called = False

    def __repr__(self) -> str:
        return f"<Turns {len(self._waiting)} waiting, {self.left * 1000:.1f} ms left of this one>"

    def use(self, seconds: float) -> None:
        """Take this many seconds from the current turn."""
        self.left -= seconds
        if not self._called:
            self._called = True
            self.loop.call_soon(self._next)

    def enqueue(self, budget: Budget, used: float) -> None:
        """Let ``budget`` continue in a later turn. The budget with the smallest ``used`` goes first."""
        self._enqueued += 1
        heapq.heappush(self._waiting, (used, self._enqueued, budget))
        self.use(0.0)

    def _next(self) -> None:
        self._called = False
        self.number += 1
        self.left = TURN
        waiting = self._waiting
        had_theirs: list[tuple[float, int, Budget]] = []
        try:
            while waiting and self.left > 0:
                entry = heapq.heappop(waiting)
                if not entry[2].resume():
                    had_theirs.append(entry)
        finally:
            # Also if a callback fails: nobody else would bring these back.
            for entry in had_theirs:
                heapq.heappush(waiting, entry)
            if waiting:
                self.use(0.0)


class Budget:
    """Limits the work that one peer causes per turn of the event loop. ``close`` it when the peer has disconnected.

    Args:
        work: Processes what has arrived until ``exhausted()`` is true; returns whether something is left.
        pause: Called when work has to wait: stop reading from the peer.
        resume: Called when all waiting work is done: read again.
        abort: Called with an exception that ``work`` has raised, after it was reported and the budget closed: end the
            peer. The others go on.
    """

    __slots__ = (
        "_abort", "_at", "_began", "_charged", "_due", "_lately", "_left", "_pause", "_paused", "_queued", "_resume",
        "_turn", "_turns", "_until", "_waiters", "_work", "_working",
    )  # fmt: skip

    def __init__(
        self,
        turns: Turns,
        work: Callable[[], bool],
        pause: Callable[[], None],
        resume: Callable[[], None],
        abort: Callable[[Exception], None],
    ) -> None:
        self._turns = turns
        self._work = work
        self._pause = pause
        self._resume = resume
        self._abort = abort
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
        # Few have more than some: an empty deque takes 600 bytes, and there are two budgets in each warm sandbox.
        self._waiters: list[tuple[asyncio.Future[None], float]] = []

    def __repr__(self) -> str:
        state = "working" if self._working else "waiting" if self._queued else "idle"
        return f"<Budget {state}, used {self._lately * 1000:.1f} ms lately{' paused' * self._paused}>"

    # --- callbacks ---

    def schedule(self) -> None:
        """Data has arrived: call ``work`` now, or in a later turn."""
        if self._due:
            return
        self._due = True
        if self._may() and not self._working:
            self._work_off()
        else:
            self._wait()

    def exhausted(self) -> bool:
        """Return whether this turn's share is used up. Only ``work`` may call it, after each piece of work."""
        return self._turns.clock() >= self._until

    def charge(self, seconds: float) -> None:
        """Charge ``seconds`` of work that is done elsewhere, now or later."""
        if self._working:
            self._charged += seconds
            self._until -= seconds
        else:
            self._renew()
            self._account(seconds, self._turns.clock())

    def gather(self) -> float:
        """A small message was sent to the peer. Returns for how many seconds to gather others before the next.

        That is little until all peers together are sent many, and ``GATHER_MOST`` at most.
        """
        turns, now = self._turns, self._turns.clock()
        turns.gathered_until = min(max(turns.gathered_until, now) + GATHER, now + GATHER_MOST)
        return turns.gathered_until - now

    def close(self) -> None:
        """The peer has disconnected: stop calling ``work``, and let all waiting coroutines continue."""
        self._due = False
        self._work, self._pause, self._resume, self._abort = _no_work, _nothing, _nothing, _nothing
        waiters, self._waiters = self._waiters, []
        for waiter, _ in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- coroutines ---

    async def run(self, steps: Iterable[object]) -> None:
        """Consume the lazy iterable ``steps``, in as many turns as needed.

        Raises what a step raises. Cancellation leaves the remaining steps undone.
        """
        rest = iter(steps)
        await self._admitted(SHARE)
        while self._some(rest):
            await self._admitted(SHARE)

    async def charge_and_wait(self, seconds: float) -> None:
        """Charge ``seconds`` of work that was just done, and wait until there is time for more."""
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
        """Do steps until the share is used up. Returns whether some may be left."""
        self._begin()
        try:
            return any(self.exhausted() for _ in steps)
        finally:
            self._end()

    # --- turns ---

    def resume(self) -> bool:
        """Continue waiting work; called by ``Turns``. Returns false if this turn's share is already used up."""
        self._renew()
        if self._left <= 0:
            return False
        self._queued = False
        # Coroutines get half of the share first: they send the replies, which a flood from the peer must not block.
        room = self._left / 2
        while self._waiters and room > 0:
            waiter, seconds = self._waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                # It runs in the next turn, but is charged now, so that not all waiters start at once.
                room -= seconds
                self._turns.use(seconds)
        try:
            if self._due:
                self._work_off()
        finally:
            if self._waiters:
                self._wait()
        return True

    def _renew(self) -> None:
        """Add a share for each new turn. Overuse of earlier turns is deducted."""
        turns = self._turns.number - self._turn
        if turns:
            self._turn += turns
            self._left = min(SHARE, self._left + turns * SHARE)

    def _may(self) -> bool:
        """Return whether this budget may work right now."""
        self._renew()
        if self._left <= 0:
            return False
        left = self._turns.left
        return left > 0 or (left > -AT_ONCE and self._used(self._turns.clock()) < LITTLE)

    def _used(self, now: float) -> float:
        return self._lately * math.exp((self._at - now) / LATELY)

    def _wait(self) -> None:
        if not self._queued:
            self._queued = True
            # All use decays at the same rate, so the order of waiting budgets does not change over time.
            self._turns.enqueue(self, math.log(self._lately + 1e-9) + self._at / LATELY)
        if self._due and not self._paused:
            self._paused = True
            self._pause()

    def _work_off(self) -> None:
        self._begin()
        try:
            self._due = self._work()
        except Exception as error:
            self._turns.loop.call_exception_handler({"message": "work of a budget failed", "exception": error})
            abort = self._abort
            self.close()
            abort(error)
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
        # With nothing left it still does one piece: there was time when it was admitted.
        left = self._turns.left
        self._until = self._began + min(self._left, left if left > 0 else AT_ONCE + left)

    def _end(self) -> None:
        self._working = False
        now = self._turns.clock()
        self._account(now - self._began + self._charged, now)

    def _account(self, seconds: float, now: float) -> None:
        self._left -= seconds
        self._lately = self._used(now) + seconds
        self._at = now
        self._turns.use(seconds)


def _no_work() -> bool:
    return False


def _nothing(*_: object) -> None:
    pass


# A `Turns` lives as long as one of its budgets. It holds a reference to its loop, so that no other loop can get the
# same id meanwhile.
_turns: WeakValueDictionary[int, Turns] = WeakValueDictionary()


def budget(
    work: Callable[[], bool] = _no_work,
    pause: Callable[[], None] = _nothing,
    resume: Callable[[], None] = _nothing,
    abort: Callable[[Exception], None] = _nothing,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Budget:
    """Return a new budget of ``loop``, by default of the running loop. See ``Budget`` for the other arguments."""
    loop = loop or asyncio.get_running_loop()
    turns = _turns.get(id(loop))
    if turns is None:
        turns = _turns[id(loop)] = Turns(loop)
    return Budget(turns, work, pause, resume, abort)
