"""What the gateway does in a sandbox beside its users' programs: signals, hang-ups, looks.

Each of these is an exec, which costs the API server, the node and the container runtime far more than the request
behind it. So they are collected: at any time one exec of a kind runs in a sandbox, and its script does all that was
asked for until it began. What is asked for twice is done once, so nothing that waits needs a bound but its kinds: a
process has one hang-up, one look and the signals that there are. ``ExecLimits`` bounds them over all sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakValueDictionary

from sshgate.errors import GateError
from sshgate.sandbox import launcher
from sshgate.sandbox import side_scripts as sidescripts
from sshgate.stream.interfaces import Process
from sshgate.stream.terminal import Terminal

# Side execs at a time, of one user and of the gateway. Programs of a user can stop a script of ours until it is cut.
PER_USER = 4
PER_GATEWAY = 32
# Execs of all kinds that are begun at a time on one node.
PER_NODE = 16
NOBODY = ""
"""The user of what the gateway does for itself: parking, and looking into sandboxes that are left."""
# Connections by a program each, where a sandbox has no relay; see `forwarding.plain`.
PLAIN_CONNECTIONS = 64
# A script of ours takes some 50 ms, a hang-up at most 3 s; on a loaded node, more.
SCRIPT_SECONDS = 15.0
# Sessions that end together (a client that leaves has many) are hung up together.
COLLECT_SECONDS = 0.05
# A launcher that nobody will use ends when it reads so: in some milliseconds, or when a slow node has begun it.
DISMISS_SECONDS = 5.0
GIVE_UP_SECONDS = 60.0
# What a script of ours, or a launcher that ends, may say until it has ended. Whatever runs in the sandbox can write to
# another program's output, without a pause.
LONGEST_TALK = 64 * 1024
# What one script is asked to do at most.
MOST_ITEMS = 256

Start = Callable[[Sequence[str], Terminal | None], Awaitable[Process]]
"""``Sandbox.start``."""


class ExecLimits:
    """How many execs may be begun, or run on the side, at a time. One per gateway; its sandboxes share it."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(PER_GATEWAY)
        self._users: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._nodes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def side(self, user: str) -> AsyncIterator[None]:
        """A place for one side exec of this user's; first come, first served."""
        async with _shared(self._users, user, PER_USER), self._all:
            yield

    def node(self, name: str) -> asyncio.Semaphore:
        """The places of execs that are being begun on a node."""
        return _shared(self._nodes, name, PER_NODE)


def _shared(places: WeakValueDictionary[str, asyncio.Semaphore], name: str, most: int) -> asyncio.Semaphore:
    found = places.get(name)
    if found is None:
        found = places[name] = asyncio.Semaphore(most)
    return found


async def dismiss(process: Process, seconds: float = DISMISS_SECONDS) -> None:
    """End a launcher that nobody will use, and close it. Never raises.

    Closing alone would leave one with a terminal behind: the node keeps the terminal, and the launcher its read.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await process.write(launcher.NOTHING)
            await until_end(process)
    await process.close()


async def until_end(process: Process) -> bool:
    """Drop what it says until it has ended; false when it says more than a program of ours does."""
    said = 0
    while said <= LONGEST_TALK:
        chunk = await process.read()
        if chunk is None:
            return True
        said += len(chunk[1])
    return False


class SideExecs:
    """Those of one sandbox; where it has gone they come to nothing."""

    def __init__(self, start: Start, limits: ExecLimits, user: str) -> None:
        self.user = user
        self.plain_connections = 0
        self._start = start
        self._limits = limits
        self._signals = _Batch(self._place, self._answer, sidescripts.signal_argv)
        self._hangups = _Batch(self._place, self._answer, sidescripts.end_argv, at_once=2, delay=COLLECT_SECONDS)
        self._ends = _Batch(self._place, self._answer, sidescripts.gone_argv)
        self._looks = _Batch(self._place, self._answer, sidescripts.busy_argv)
        self._given_up: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<SideExecs signals {self._signals!r}, hang-ups {self._hangups!r}, looks {self._looks!r}>"

    def signal(self, pid: int, name: str, foreground: bool) -> None:
        """Signal the process group of ``pid``, or its terminal's foreground group; one that is gone is no error.

        As with a kernel, a signal that is pending already is sent once. A name that is no signal's is ignored, as
        OpenSSH does.
        """
        with contextlib.suppress(ValueError):
            self._signals.add(sidescripts.signal_item(pid, name, foreground))

    async def taken(self, pid: int) -> None:
        """Let the launcher ``pid`` know that all output of its program has come; see ``launcher.line``."""
        await self._signals.ask(sidescripts.taken_item(pid))

    async def hang_up(self, pid: int) -> None:
        """Hang up the session of ``pid`` in a sandbox that lives on; see ``sidescripts.end_argv``."""
        await self._hangups.ask(str(pid))

    async def busy(self, pid: int) -> bool:
        """Whether the shell ``pid`` runs a program, be it in the background. True when it cannot be found out."""
        return await self._looks.ask(str(pid)) is not False

    async def gone(self, pid: int) -> bool:
        """Whether there is certainly no process ``pid`` any more."""
        return await self._ends.ask(str(pid)) is True

    async def alive(self) -> bool:
        """Whether a program could be run to its end just now."""
        return await self._ends.ask("1") is not None

    async def anything(self) -> bool:
        """Whether any program was left running in it. True when it cannot be found out."""
        async with self._place():
            return await self._answer(sidescripts.anything_argv()) != []

    def give_up(self, process: Process) -> None:
        """End a launcher that may not have begun yet, and close it, without waiting for that."""
        task = asyncio.create_task(dismiss(process, GIVE_UP_SECONDS))
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)

    def _place(self) -> AbstractAsyncContextManager[None]:
        return self._limits.side(self.user)

    async def _answer(self, argv: tuple[str, ...]) -> list[str] | None:
        """The words that a script printed before its final dot; ``None`` where it did not come to that."""
        said = b""
        ended = False
        with contextlib.suppress(GateError, TimeoutError):
            process = await self._start(argv, None)
            try:
                async with asyncio.timeout(SCRIPT_SECONDS):
                    while len(said) <= LONGEST_TALK:
                        chunk = await process.read()
                        if chunk is None:
                            ended = True
                            break
                        said += chunk[1]
            finally:
                await process.close()
        words = said.decode("ascii", "replace").split()
        return words[:-1] if ended and words[-1:] == ["."] else None


Place = Callable[[], AbstractAsyncContextManager[None]]


class _Batch:
    """Items that wait for the next exec of their kind, which answers for all of them."""

    def __init__(
        self,
        place: Place,
        answer: Callable[[tuple[str, ...]], Awaitable[list[str] | None]],
        argv: Callable[[Sequence[str]], tuple[str, ...]],
        at_once: int = 1,
        delay: float = 0.0,
    ) -> None:
        self._place = place
        self._answer = answer
        self._argv = argv
        self._at_once = at_once
        self._delay = delay
        self._waiting: dict[str, asyncio.Future[bool | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._collecting = False

    def __repr__(self) -> str:
        return f"{len(self._waiting)} waiting, {len(self._tasks)} running"

    def add(self, item: str) -> asyncio.Future[bool | None]:
        """Have it done; once, where it waits already. Done when it was, with whether the script named it."""
        found = self._waiting.get(item)
        if found is None:
            found = self._waiting[item] = asyncio.get_running_loop().create_future()
            self._begin()
        return found

    async def ask(self, item: str) -> bool | None:
        """Whether the script named it; ``None`` where that cannot be found out."""
        return await asyncio.shield(self.add(item))

    def _begin(self) -> None:
        if self._waiting and not self._collecting and len(self._tasks) < self._at_once:
            self._collecting = True
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()
            self._begin()

    async def _work(self) -> None:
        try:
            await asyncio.sleep(self._delay)
            async with self._place():
                self._collecting = False
                items, named = self._take(MOST_ITEMS), None
                try:
                    named = await self._answer(self._argv(tuple(items)))
                finally:
                    _settle(items, named)
        finally:
            self._collecting = False

    def _take(self, most: int) -> _Items:
        return {item: self._waiting.pop(item) for item in tuple(self._waiting)[:most]}


_Items = dict[str, asyncio.Future[bool | None]]


def _settle(items: _Items, named: list[str] | None) -> None:
    for item, future in items.items():
        if not future.done():
            future.set_result(None if named is None else item in named)
