"""Two ends of the data path in memory, a client and a process that a test plays, and a sandbox for the process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sshgate.sandbox.probe import Verdict
from sshgate.sandbox.side_execs import ExecLimits, SideExecs
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import Control, Outcome, Process
from sshgate.stream.terminal import Terminal


class TestClient:
    """A ``Client``: the test types, presses, leaves, and sees what was written."""

    __test__ = False

    def __init__(self) -> None:
        self.input = Flow(1 << 20, 0)
        self.written = bytearray()
        self.outcome: Outcome | None = None
        self.stuck = False
        self._controls: asyncio.Queue[Control] = asyncio.Queue()
        self._gone = asyncio.Event()

    def press(self, control: Control) -> None:
        self._controls.put_nowait(control)

    def leave(self) -> None:
        self._gone.set()
        self.input.discard()

    async def read(self) -> bytes | None:
        chunk = await self.input.get()
        return None if chunk is None else chunk[1]

    async def write(self, stream: int, data: bytes) -> None:
        if self.stuck:
            await self._gone.wait()
        if not self._gone.is_set():
            self.written += data

    async def control(self) -> Control:
        return await self._controls.get()

    async def wait_closed(self) -> None:
        await self._gone.wait()

    async def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._gone.set()


class TestProcess:
    """A ``Process``: the test lets it say things and end, and sees what it was sent."""

    __test__ = False

    def __init__(self) -> None:
        self.pid: int | None = 7
        self.output = Flow(1 << 20, 0)
        self.sent = bytearray()
        self.eof = asyncio.Event()
        self.controls: list[Control] = []
        self.closed = False
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def end(self, outcome: Outcome) -> None:
        self.output.put_eof()
        self._outcome.set_result(outcome)

    async def read(self) -> tuple[int, bytes] | None:
        return await self.output.get()

    async def write(self, data: bytes) -> None:
        self.sent += data

    async def write_eof(self) -> None:
        self.eof.set()

    async def control(self, control: Control) -> None:
        self.controls.append(control)

    async def wait(self) -> Outcome:
        return await asyncio.shield(self._outcome)

    async def close(self) -> None:
        self.closed = True


class TestSandbox:
    """A sandbox in which nothing is started; subclasses start what they like."""

    __test__ = False
    id = uid = "test"
    warm = True
    hostname = "sandbox"
    usable = True

    def __init__(self) -> None:
        self.aside = SideExecs(self.start, ExecLimits(), "dev")
        self.deleted = False

    async def forget(self) -> None:
        pass

    async def exists(self) -> bool:
        return self.usable

    async def addresses(self) -> tuple[str, ...]:
        return ()

    def probe(self, parked: bool) -> None: ...

    async def judge(self, verdict: Verdict) -> None: ...

    def parked(self, kind: str) -> Process | None:
        return None

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        raise AssertionError

    async def delete(self) -> None:
        self.deleted = True
