"""The exec websocket against servers that speak v4, break off, lie, or flood."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import WSCloseCode, WSMsgType, web

from sshgate.errors import GateError
from sshgate.providers.kubernetes.api.websocket import V4, V5
from sshgate.stream.interfaces import STDERR, STDOUT, Exited, Lost, Resize
from sshgate.stream.terminal import TerminalSize
from tests.unit.apiserver import connected, serve
from tests.unit.exec_server import SUCCESS, process

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


async def test_output_of_both_streams_then_the_status(tmp_path: Path) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        for frame in (b"\x01out", b"\x01", b"\x02err", b"\x02", b"\x01more", FAILED_3):
            await socket.send_bytes(frame)

    async with process(tmp_path, script) as made:
        output = [await made.read() for _ in range(3)]
        assert output == [(STDOUT, b"out"), (STDERR, b"err"), (STDOUT, b"more")]
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
        output = b""
        while (chunk := await made.read()) is not None:
            output += chunk[1]
        assert output in (b"half", b"") if ending == "cut" else output == b"half"
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
