"""What enters a sandbox, when something inside talks without an end: each read is bounded, and not quadratic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest

from sshgate.errors import StartFailed
from sshgate.sandbox import enter as launch
from sshgate.sandbox import launcher
from sshgate.sandbox.launcher import Program
from sshgate.sandbox.probe import Probe, Verdict
from sshgate.sandbox.side_execs import LONGEST_TALK, ExecLimits, SideExecs, dismiss
from sshgate.stream.interfaces import STDERR, STDOUT, Exited, Process, Request, Shell
from sshgate.stream.terminal import Terminal
from tests.rig.ends import TestProcess

# Enough that whoever reads it all is seen to: the attacks filled memory and 15 s of a core.
ENOUGH = 64 << 20


class Talkative(TestProcess):
    """Says ``chunk`` again and again."""

    def __init__(self, stream: int, chunk: bytes) -> None:
        super().__init__()
        self.written = 0
        self._chunk = stream, chunk

    async def read(self) -> tuple[int, bytes] | None:
        assert self.written < ENOUGH, "it is read without an end"
        self.written += len(self._chunk[1])
        return self._chunk


class Place:
    """A sandbox in which every program is ``process``."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.aside = SideExecs(self.start, ExecLimits(), "dev")

    def probe(self, parked: bool) -> None: ...

    async def judge(self, verdict: Verdict) -> None: ...

    def parked(self, kind: str) -> None:
        return None

    async def start(self, *_: object) -> Process:
        return self.process


async def _terminal(process: Process) -> object:
    return await launch.launch(process, Program(Request(Shell(), Terminal())))


@pytest.mark.parametrize("stream", [STDOUT, STDERR])
@pytest.mark.parametrize("size", [1, 100, 32_768])
@pytest.mark.parametrize(
    "read",
    [_terminal, lambda process: launch.park(Place(process), None), launch.has_sftp_server],  # type: ignore[arg-type]
    ids=["the terminal's mark", "the mark", "the file server's"],
)
async def test_a_start_that_is_talked_into_fails(
    read: Callable[[Process], Awaitable[object]], stream: int, size: int
) -> None:
    process = Talkative(stream, b"x" * size)
    began = time.process_time()
    with contextlib.suppress(StartFailed):
        assert await read(process) is False  # whatever is no server's mark is the other one
    assert process.written <= LONGEST_TALK + 2 * size
    assert time.process_time() - began < 2


@pytest.mark.parametrize("stream", [STDOUT, STDERR])
async def test_a_look_into_which_others_write_shows_nothing(stream: int) -> None:
    process = Talkative(stream, b"x" * 32_768)
    assert await Place(process).aside.busy(7)
    await dismiss(process)
    assert process.written <= 2 * (LONGEST_TALK + 2 * 32_768)
    assert process.closed


async def test_the_terminals_mark_is_found_among_other_output() -> None:
    process = TestProcess()
    process.output.put(b"a" * 4000, STDOUT)
    process.output.put(b"b" + launcher.TERMINAL_MARK + b"c" * 9000, STDOUT)
    assert await _terminal(process) == b"a" * 4000 + b"b" + b"c" * 9000


class Looking(Place):
    """A sandbox whose launchers have to look at an address first."""

    def probe(self, parked: bool) -> Probe:  # type: ignore[override]
        return Probe("", "", 2)


@pytest.mark.parametrize(("first", "waits"), [(b"", 0.1), (b"\x01", 2.1)])
async def test_a_node_that_starts_nothing_is_not_waited_for_as_long_as_a_launcher_that_looks(
    first: bytes, waits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "MARK_SECONDS", 0.1)
    process = TestProcess()
    if first:
        process.output.put(first, STDOUT)
    began = time.monotonic()
    with pytest.raises(StartFailed):
        await launch.park(Looking(process), None)  # type: ignore[arg-type]
    assert waits <= time.monotonic() - began < waits + 1.9


async def test_a_shell_that_ends_says_why_and_nothing_to_a_terminal() -> None:
    process = TestProcess()
    process.output.put(b"\x1b]0;x\x07no memory\n", STDERR)
    process.end(Exited(1))
    with pytest.raises(StartFailed, match="no memory") as raised:
        await launch.park(Place(process), None)  # type: ignore[arg-type]
    assert str(raised.value).isprintable()
