"""The exec websocket against servers that speak v4, break off, lie, or flood."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import WSCloseCode, WSMsgType, web

from sshgate.errors import GateError
from sshgate.launcher import UNTAKEN
from sshgate.sandbox.kubernetes.exec import HOLD_SECONDS, ExecProcess
from sshgate.sandbox.kubernetes.remotecommand import CUT, V4, V5
from sshgate.streams import STDERR, STDOUT, Exited, Lost, Resize
from sshgate.terminal import TerminalSize
from tests.unit.apiserver import connected, serve

SUCCESS = b'\x03{"status":"Success"}'
FAILED_3 = (
    b"\x03"
    + json.dumps(
        {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
        }
    ).encode()
)

Script = Callable[[web.WebSocketResponse], Awaitable[None]]


class Home:
    """The sandbox of a process: nothing is signalled, and ``dead`` says whether its process is gone."""

    def __init__(self, dead: bool) -> None:
        self.dead = dead
        self.asked: list[int] = []
        self.taken_by: list[int] = []
        self.told = asyncio.Event()

    async def signal(self, pid: int, name: str, foreground: bool) -> None:
        raise AssertionError("no signal was asked for")

    async def taken(self, pid: int) -> None:
        self.taken_by.append(pid)
        self.told.set()

    async def fate(self) -> str | None:
        return None

    async def killed(self) -> str | None:
        return None

    async def gone(self, pid: int) -> bool:
        self.asked.append(pid)
        return self.dead

    def ended(self, process: ExecProcess) -> None:
        assert process.outcome is not None


@asynccontextmanager
async def process(
    tmp_path: Path,
    script: Script,
    subprotocol: str = V5,
    terminal: bool = False,
    dead: bool = True,
    home: Home | None = None,
) -> AsyncIterator[ExecProcess]:
    """A process whose other end follows ``script``."""

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(subprotocol,), max_msg_size=0, autoping=False)
        await socket.prepare(request)
        await socket.send_bytes(b"\x01")
        await script(socket)
        await socket.close()
        return socket

    async with serve(answer, tmp_path) as served, connected(served) as api:
        socket = await api.websocket(api.path("pods", "x", "exec"), "command=true")
        made = ExecProcess(socket, terminal, home or Home(dead))
        try:
            async with asyncio.timeout(20):
                yield made
        finally:
            await made.close()


async def test_output_of_both_streams_then_the_status(tmp_path: Path) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        for frame in (b"\x01out", b"\x01", b"\x02err", b"\x02", b"\x01more", FAILED_3):
            await socket.send_bytes(frame)

    async with process(tmp_path, script) as made:
        said = [await made.read() for _ in range(3)]
        assert said == [(STDOUT, b"out"), (STDERR, b"err"), (STDOUT, b"more")]
        assert await made.read() is None
        assert await made.wait() == Exited(3)


@pytest.mark.parametrize("ending", ["close frame", "cut", "text frame", "masked nonsense"])
async def test_an_end_without_a_status_is_lost_never_success(tmp_path: Path, ending: str) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x01half")
        if ending == "close frame":
            await socket.close(code=WSCloseCode.OK)
        elif ending == "text frame":
            await socket.send_str('\x03{"status":"Success"}')
        else:
            transport = socket._req.transport  # type: ignore[union-attr]
            assert transport is not None
            transport.abort() if ending == "cut" else transport.write(b"\x82\xff\xff")

    async with process(tmp_path, script) as made:
        said = b""
        while (chunk := await made.read()) is not None:
            said += chunk[1]
        assert said in (b"half", b"") if ending == "cut" else said == b"half"
        outcome = await made.wait()
        assert isinstance(outcome, Lost)
        assert outcome.status == 255


async def test_stdin_is_half_closed_once_on_v5(tmp_path: Path) -> None:
    received: list[bytes] = []

    async def script(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            received.append(message.data)
            if message.data[:1] == b"\xff":
                await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script) as made:
        await made.write(b"hello")
        await made.write_eof()
        await made.write_eof()
        await made.write(b"too late")
        assert await made.read() is None
        assert await made.wait() == Exited(0)
    assert received == [b"\x00hello", b"\xff\x00"]


async def test_v4_has_no_half_close_and_nothing_is_sent_for_it(tmp_path: Path) -> None:
    received: list[bytes] = []

    async def script(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            received.append(message.data)
            if message.data == b"\x00end":
                await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, V4) as made:
        assert made.expect_end_mark(False) is None
        await made.write_eof()
        await made.write(b"end")
        assert await made.read() is None
        assert await made.wait() == Exited(0)
    assert received == [b"\x00end"]


@pytest.mark.parametrize(("typed", "end"), [(b"", b"\x04"), (b"a\n", b"\x04"), (b"half", b"\x04\x04")])
async def test_the_end_of_input_on_a_terminal_is_its_character_never_a_close(
    tmp_path: Path, typed: bytes, end: bytes
) -> None:
    received: list[bytes] = []

    async def script(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            received.append(message.data)
            if message.data.endswith(b"\x04"):
                await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, terminal=True) as made:
        await made.write(typed)
        await made.write_eof()
        assert await made.read() is None
    assert received[-1] == b"\x00" + end
    assert all(frame[:1] == b"\x00" for frame in received)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("dead", [True, False])
async def test_without_marks_a_success_is_believed_only_if_the_process_is_gone(
    tmp_path: Path, terminal: bool, dead: bool
) -> None:
    """The API server reports success when the node's side breaks off, too."""

    async def script(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, V5 if terminal else V4, terminal=terminal, dead=dead) as made:
        made.pid = 7
        assert made.expect_end_mark(False) is None
        await made.write(b"go")
        assert await made.read() is None
        assert isinstance(await made.wait(), Exited if dead else Lost)
        assert await made.wait() is await made.wait()


@pytest.mark.parametrize("streams", [b"", b"\x01", b"\x02"], ids=["no mark", "on stdout only", "on stderr only"])
async def test_a_success_without_the_end_of_both_outputs_is_not_believed(tmp_path: Path, streams: bytes) -> None:
    """Even when the process is gone: what it said last may have been lost on the way."""

    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        await socket.send_bytes(b"\x01cut sho")
        for stream in streams:
            await socket.send_bytes(bytes([stream]) + mark)
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, dead=True) as made:
        made.pid = 7
        mark = made.expect_end_mark(False)
        assert mark is not None
        await made.write(mark)
        assert await made.read() == (STDOUT, b"cut sho")
        assert await made.read() is None
        assert await made.wait() == Lost(CUT)


@pytest.mark.parametrize("no_input", [True, False])
@pytest.mark.parametrize("cuts", [(), (1,), (10,), (17,), (1, 2, 3)])
async def test_the_marks_are_taken_out_of_both_outputs_however_they_are_cut(
    tmp_path: Path, cuts: tuple[int, ...], no_input: bool
) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        for stream in (b"\x01", b"\x02"):
            start = 0
            for cut in (*cuts, len(mark)):
                await socket.send_bytes(stream + (b"e\x01" if start == 0 else b"") + mark[start:cut])
                start = cut
        if not no_input:
            assert (await socket.receive()).data == b"\x00" + mark  # behind all input: it has all come
        assert (await socket.receive()).data == b"\xff\x00"
        await socket.send_bytes(b"\x02late\x01")
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, dead=False) as made:
        made.pid = 7
        mark = made.expect_end_mark(no_input)
        assert mark is not None
        await made.write(mark)
        if no_input:
            await made.write_eof()  # tells the program nothing: it has no stdin of ours
        said = {STDOUT: b"", STDERR: b""}
        while (chunk := await made.read()) is not None:
            said[chunk[0]] += chunk[1]
        assert said == {STDOUT: b"e\x01", STDERR: b"e\x01late\x01"}
        assert await made.wait() == Exited(0)


@pytest.mark.parametrize("size", [3, UNTAKEN])
async def test_a_launcher_whose_input_had_ended_is_told_aside_that_all_has_come(tmp_path: Path, size: int) -> None:
    home = Home(dead=False)

    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        assert (await socket.receive()).data == b"\xff\x00"
        await socket.send_bytes(b"\x01" + bytes(size) + mark)
        assert home.taken_by == [], "not before both have ended"
        await socket.send_bytes(b"\x02" + mark)
        await home.told.wait()
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, home=home) as made:
        made.pid = 7
        mark = made.expect_end_mark(False)
        assert mark is not None
        await made.write(mark)
        await made.write_eof()
        assert await _said(made, STDOUT, bytes(size))
        assert await made.read() is None
        assert await made.wait() == Exited(0)
    assert home.taken_by == [7]


@pytest.mark.parametrize("size", [1, 2, 17])
@pytest.mark.parametrize("stream", [STDOUT, STDERR])
async def test_an_answer_that_ends_like_the_beginning_of_a_mark_arrives_without_a_further_byte(
    tmp_path: Path, stream: int, size: int
) -> None:
    """The program waits for the next question, and its client for the answer."""

    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        await socket.send_bytes(bytes([stream]) + b"an answer" + mark[:size])
        assert (await socket.receive()).data == b"\x00a question"
        await socket.send_bytes(bytes([stream]) + b"another" + mark[:size])
        assert (await socket.receive()).data == b"\x00the last"
        for end in (b"\x02", b"\x01"):
            await socket.send_bytes(end + mark)
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script) as made:
        mark = made.expect_end_mark(False)
        assert mark is not None
        await made.write(mark)
        assert await _said(made, stream, b"an answer" + mark[:size])
        await made.write(b"a question")
        assert await _said(made, stream, b"another" + mark[:size])
        await made.write(b"the last")
        assert await made.read() is None
        assert await made.wait() == Exited(0)


async def _said(made: ExecProcess, stream: int, expected: bytes) -> bool:
    said = b""
    async with asyncio.timeout(10):
        while len(said) < len(expected):
            chunk = await made.read()
            assert chunk is not None
            assert chunk[0] == stream
            said += chunk[1]
    return said == expected


async def test_a_mark_on_stdout_whose_end_is_late_is_waited_for_once_stderr_has_its_own(tmp_path: Path) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        await socket.send_bytes(b"\x02" + mark)
        await socket.send_bytes(b"\x01all" + mark[:9])
        await asyncio.sleep(HOLD_SECONDS * 6)
        await socket.send_bytes(b"\x01" + mark[9:])
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script) as made:
        mark = made.expect_end_mark(False)
        assert mark is not None
        await made.write(mark)
        assert await _said(made, STDOUT, b"all")
        assert await made.read() is None
        assert await made.wait() == Exited(0)


async def test_output_into_which_a_part_of_the_mark_got_is_no_success(tmp_path: Path) -> None:
    """Whose end was so late that its beginning was taken for output: the mark still ends stdin."""

    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        for start, end in ((0, 9), (9, 12), (12, len(mark))):
            await socket.send_bytes(b"\x01" + mark[start:end])
            if end == 9:
                assert (await socket.receive()).data == b"\x00seen"
        await socket.send_bytes(b"\x02" + mark)
        assert [(await socket.receive()).data for _ in range(2)] == [b"\x00" + mark, b"\xff\x00"]
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script) as made:
        mark = made.expect_end_mark(False)
        assert mark is not None
        await made.write(mark)
        assert await made.read() == (STDOUT, mark[:9])
        await made.write(b"seen")
        assert await made.read() is None
        assert await made.wait() == Lost(CUT)


async def test_a_ping_is_answered_while_nobody_reads(tmp_path: Path) -> None:
    pongs: list[bytes] = []

    async def script(socket: web.WebSocketResponse) -> None:
        await socket.ping(b"alive?")
        message = await socket.receive()
        assert message.type is WSMsgType.PONG
        pongs.append(message.data)
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script) as made:
        assert await made.begun(5)
    assert pongs == [b"alive?"]


async def test_a_flood_is_bounded_and_arrives_whole(tmp_path: Path) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        for _ in range(2000):
            await socket.send_bytes(b"\x01" + bytes(32_000))
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script) as made:
        await asyncio.sleep(0.3)
        assert made._flow.size < 1 << 20
        total = 0
        while (chunk := await made.read()) is not None:
            total += len(chunk[1])
        assert total == 64_000_000
        assert await made.wait() == Exited(0)


async def test_sizes_wait_while_stdin_is_stuck_and_the_last_one_follows(tmp_path: Path) -> None:
    sizes: list[bytes] = []
    go = asyncio.Event()

    async def script(socket: web.WebSocketResponse) -> None:
        await go.wait()
        async for message in socket:
            if message.data[:1] == b"\x04":
                sizes.append(message.data)
                await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, terminal=True) as made:
        writing = asyncio.create_task(made.write(bytes(64 << 20)))
        await asyncio.sleep(0.2)
        assert not writing.done()
        for columns in (10, 20, 30):
            await made.control(Resize(TerminalSize(columns, 5)))
        go.set()
        await writing
        assert await made.read() is None
    assert sizes == [b'\x04{"Width":30,"Height":5}']


async def test_a_server_that_does_not_upgrade_is_refused(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="welcome")

    async with serve(answer, tmp_path) as served, connected(served) as api:
        with pytest.raises(GateError):
            await api.websocket(api.path("pods", "x", "exec"), "command=true")
