"""The gateway's own execs in a sandbox, beside its users' programs: signals, hang-ups, checks of processes.

An exec costs the API server, the node and the container runtime far more than the request that causes it. So requests
are batched: one exec of a kind runs in a sandbox at a time (two of hang-ups), and its script does all that was
requested before it began. Duplicate requests are merged, so what waits is bounded: a process has one hang-up, one check
of each kind and a fixed set of signals. ``ExecLimits`` bounds the execs over all sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from weakref import WeakValueDictionary

from sshgate.errors import GateError
from sshgate.sandbox import launcher
from sshgate.sandbox import side_scripts as sidescripts
from sshgate.sandbox.shares import Shares
from sshgate.stream.interfaces import Process
from sshgate.stream.tasks import TaskSet
from sshgate.stream.terminal import Terminal

# Execs of all kinds that are being started at a time on one node, and of one user.
PER_NODE = 16
PER_NODE_OF_ONE = 8
NOBODY = ""
"""The user of the gateway's own work: parking, and checking sandboxes without clients."""
# Connections at a time that use a program each, where a sandbox cannot run the relay; see `forwarding.plain`.
PLAIN_CONNECTIONS = 64
# Timeout of a script. It takes some 50 ms, a hang-up 3 s at most; on a loaded node more.
SCRIPT_SECONDS = 15.0
# The same of one that has the sandbox to itself: first it waits for starts, then some hundred sessions end by turns.
ALONE_SECONDS = 60.0
# Sessions that end together, as when a client with many sessions disconnects, are hung up by one exec.
COLLECT_SECONDS = 0.05
# Timeouts for an unused launcher to read that it should end: some milliseconds, or as long as a slow node starts it.
DISMISS_SECONDS = 5.0
GIVE_UP_SECONDS = 60.0
# Bytes that a script of ours, or a launcher that ends, may print. Any program in the sandbox could write endlessly to
# another one's output.
LONGEST_TALK = 64 * 1024
# Items of one script at most.
MOST_ITEMS = 256

Start = Callable[[Sequence[str], Terminal | None], Awaitable[Process]]
"""Has the signature of ``Sandbox.start``."""

Alone = Callable[[], AbstractAsyncContextManager[None]]


class ExecLimits:
    """Bounds the side execs that run, and all execs that are being started. One per gateway, for all its sandboxes."""

    def __init__(self) -> None:
        # A user's programs can block a script of ours until its timeout.
        self.side = Shares(total=32, most=4)
        self._nodes: WeakValueDictionary[str, Shares] = WeakValueDictionary()

    def node(self, name: str) -> Shares:
        """The places of which to hold one while an exec is being started on this node."""
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = Shares(PER_NODE, PER_NODE_OF_ONE)
        return found


async def dismiss(process: Process, seconds: float = DISMISS_SECONDS) -> None:
    """End an unused launcher and close it, waiting up to ``seconds`` for its end. Never raises.

    Closing alone would leave a launcher with a terminal running: the node keeps the terminal, and the launcher waits.
    """
    try:
        with contextlib.suppress(TimeoutError, GateError):
            async with asyncio.timeout(seconds):
                await process.write(launcher.NOTHING)
                await until_end(process)
    finally:
        await process.close()


async def until_end(process: Process) -> bool:
    """Discard its output until it ends. False when it prints more than ``LONGEST_TALK`` bytes."""
    output = 0
    while output <= LONGEST_TALK:
        chunk = await process.read()
        if chunk is None:
            return True
        output += len(chunk[1])
    return False


class SideExecs:
    """The side execs of one sandbox. If the sandbox is gone they have no effect and no method raises.

    Except for ``signal`` and ``give_up``, each method returns when its script has run. Cancelling it leaves the script
    running, except for ``anything``.

    Args:
        start: ``Sandbox.start``.
        user: whose share of ``limits`` is used.
        alone: while it is entered, no program is being started in the sandbox.
    """

    __slots__ = (
        "_alone", "_ends", "_hangups", "_limits", "_looks", "_signals", "_start", "plain_connections", "tasks", "user",
    )  # fmt: skip

    def __init__(self, start: Start, limits: ExecLimits, user: str, alone: Alone = contextlib.nullcontext) -> None:
        self.user = user
        self._alone = alone
        self.plain_connections = 0
        self._start = start
        self._limits = limits
        self._signals = _Batch(self, sidescripts.signal_argv)
        self._hangups = _Batch(self, sidescripts.end_argv, at_once=2, delay=COLLECT_SECONDS, few=sidescripts.FEW)
        self._ends = _Batch(self, sidescripts.gone_argv)
        self._looks = _Batch(self, sidescripts.busy_argv)
        self.tasks = TaskSet()

    def signal(self, pid: int, name: str, foreground: bool) -> None:
        """Send a signal, without waiting, to the process group of ``pid`` or its terminal's ``foreground`` group.

        As in a kernel, a signal that is already pending is sent once. Unknown signal names are ignored, as by OpenSSH,
        and so is a process that is gone.
        """
        with contextlib.suppress(ValueError):
            self._signals.add(sidescripts.signal_item(pid, name, foreground))

    async def taken(self, pid: int) -> None:
        """Notify the launcher ``pid`` that all output of its program has arrived; see ``launcher.line``."""
        await self._signals.ask(sidescripts.taken_item(pid))

    async def hang_up(self, pid: int) -> None:
        """Hang up the session of ``pid``, in a sandbox that stays; see ``side_scripts.end_argv``."""
        await self._hangups.ask(str(pid))

    async def busy(self, pid: int) -> bool:
        """Whether the shell ``pid`` runs a program, also in the background. True when it cannot be found out."""
        return await self._looks.ask(str(pid)) is not False

    async def gone(self, pid: int) -> bool:
        """Whether the process ``pid`` is gone. False when it cannot be found out."""
        return await self._ends.ask(str(pid)) is True

    async def alive(self) -> bool:
        """Whether the sandbox answers: a script could be run to its end."""
        return await self._ends.ask("1") is not None

    async def anything(self) -> bool:
        """Whether any program runs in it. True when it cannot be found out."""
        async with self.place():
            return await self.answer(sidescripts.anything_argv()) != []

    def give_up(self, process: Process) -> None:
        """End and close, in the background, a launcher that may not have started yet."""
        self.tasks.start(dismiss(process, GIVE_UP_SECONDS))

    def place(self) -> AbstractAsyncContextManager[None]:
        """A place among the side execs of the user and of the gateway, once one is free."""
        return self._limits.side.hold(self.user)

    async def answer(self, argv: tuple[str, ...], alone: bool = False) -> list[str] | None:
        """The words that a script printed before its final dot; ``None`` where there was no dot.

        ``alone``: the script, once it has printed something, waits for a line of input. It gets that when nothing is
        being started in the sandbox, and nothing is started there before its end.
        """
        output = b""
        ended = False
        with contextlib.suppress(GateError, TimeoutError):
            process = await self._start(argv, None)
            try:
                async with asyncio.timeout(ALONE_SECONDS if alone else SCRIPT_SECONDS), AsyncExitStack() as stack:
                    while len(output) <= LONGEST_TALK:
                        chunk = await process.read()
                        if chunk is None:
                            ended = True
                            break
                        if alone and not output:
                            await stack.enter_async_context(self._alone())
                            await process.write(b"\n")
                        output += chunk[1]
            finally:
                await process.close()
        words = output.decode("ascii", "replace").split()
        return words[:-1] if ended and words[-1:] == ["."] else None


class _Batch:
    """Collects items for the next exec of one kind, whose script handles all of them.

    ``argv`` makes the command for some items. At most ``at_once`` execs run; each first waits ``delay`` seconds for
    more items. One with more than ``few`` items runs alone; see ``SideExecs.answer``.
    """

    __slots__ = ("_argv", "_at_once", "_collecting", "_delay", "_execs", "_few", "_running", "_waiting")

    def __init__(
        self,
        execs: SideExecs,
        argv: Callable[[Sequence[str]], tuple[str, ...]],
        at_once: int = 1,
        delay: float = 0.0,
        few: int = MOST_ITEMS,
    ) -> None:
        self._execs = execs
        self._argv = argv
        self._at_once = at_once
        self._delay = delay
        self._few = few
        self._waiting: dict[str, asyncio.Future[bool | None]] = {}
        self._running = 0
        self._collecting = False

    def __repr__(self) -> str:
        return f"{len(self._waiting)} waiting, {self._running} running"

    def add(self, item: str) -> asyncio.Future[bool | None]:
        """Request an item, or share a waiting duplicate. The future's result is that of ``ask``."""
        found = self._waiting.get(item)
        if found is None:
            found = self._waiting[item] = asyncio.get_running_loop().create_future()
            self._begin()
        return found

    async def ask(self, item: str) -> bool | None:
        """Request an item. Returns whether the script printed it; ``None`` where that cannot be found out.

        Cancelling leaves it requested.
        """
        return await asyncio.shield(self.add(item))

    def _begin(self) -> None:
        if self._waiting and not self._collecting and self._running < self._at_once:
            self._collecting = True
            self._running += 1
            self._execs.tasks.start(self._work()).add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running -= 1
        if not task.cancelled():
            self._begin()

    async def _work(self) -> None:
        items: _Items = {}
        try:
            await asyncio.sleep(self._delay)
            async with self._execs.place():
                self._collecting = False
                items, named = self._take(MOST_ITEMS), None
                try:
                    named = await self._execs.answer(self._argv(tuple(items)), alone=len(items) > self._few)
                finally:
                    _settle(items, named)
        finally:
            if not items:  # it was still collecting; later it may be another one that does
                self._collecting = False

    def _take(self, most: int) -> _Items:
        return {item: self._waiting.pop(item) for item in tuple(self._waiting)[:most]}


_Items = dict[str, asyncio.Future[bool | None]]


def _settle(items: _Items, named: list[str] | None) -> None:
    for item, future in items.items():
        if not future.done():
            future.set_result(None if named is None else item in named)
