"""The marks by which a program in a pod tells its end, and what holds its connection until they have come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from sshgate.providers.kubernetes.exec.process import EOF_SECONDS, HOLD_SECONDS, ExecProcess
from sshgate.providers.kubernetes.exec.remotecommand import CUT
from sshgate.sandbox.launcher import KILLED, UNTAKEN
from sshgate.stream.interfaces import STDERR, STDOUT, Exited, Lost, Outcome, Signalled
from tests.unit.exec_server import SUCCESS, FakePodContext, process


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
        await _given_the_mark(made)
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
        await _given_the_mark(made, no_input)
        if no_input:
            await made.write_eof()  # tells the program nothing: it has no stdin of ours
        output = {STDOUT: b"", STDERR: b""}
        while (chunk := await made.read()) is not None:
            output[chunk[0]] += chunk[1]
        assert output == {STDOUT: b"e\x01", STDERR: b"e\x01late\x01"}
        assert await made.wait() == Exited(0)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    ("behind", "status", "outcome"),
    [
        (KILLED, 137, Signalled("KILL")),
        (KILLED, 143, Signalled("TERM")),
        (KILLED, 128 + 64, Signalled("RTMAX")),
        (KILLED, 255, Exited(255)),
        (b"", 137, Exited(137)),
    ],
)
async def test_a_program_that_a_signal_ended_differs_from_a_status(
    tmp_path: Path, behind: bytes, status: int, outcome: Outcome, cut: bool
) -> None:
    failure = b'\x03{"reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"%d"}]}}'

    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        await socket.send_bytes(b"\x02said" + mark + (b"" if cut else behind))
        if cut and behind:
            await socket.send_bytes(b"\x02" + behind)
        await socket.send_bytes(b"\x02later" + KILLED)
        await socket.send_bytes(b"\x01" + mark)
        await socket.send_bytes(failure % status)

    async with process(tmp_path, script) as made:
        await _given_the_mark(made)
        assert await _output(made, STDERR, b"saidlater" + KILLED)
        assert await made.read() is None
        assert await made.wait() == outcome


@pytest.mark.parametrize("size", [3, UNTAKEN])
async def test_a_launcher_whose_input_had_ended_learns_by_a_second_exec_that_all_has_come(
    tmp_path: Path, size: int
) -> None:
    home = FakePodContext(dead=False)

    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        assert (await socket.receive()).data == b"\xff\x00"
        await socket.send_bytes(b"\x01" + bytes(size) + mark)
        assert home.taken_by == [], "not before both have ended"
        await socket.send_bytes(b"\x02" + mark)
        await home.acknowledged.wait()
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, home=home) as made:
        made.pid = 7
        await _given_the_mark(made)
        await made.write_eof()
        assert await _output(made, STDOUT, bytes(size))
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
        mark = await _given_the_mark(made)
        assert await _output(made, stream, b"an answer" + mark[:size])
        await made.write(b"a question")
        assert await _output(made, stream, b"another" + mark[:size])
        await made.write(b"the last")
        assert await made.read() is None
        assert await made.wait() == Exited(0)


async def _given_the_mark(made: ExecProcess, no_input: bool = False) -> bytes:
    """The mark, which the other end reads first."""
    mark = made.expect_end_mark(no_input)
    assert mark is not None
    await made.write(mark)
    return mark


async def _output(made: ExecProcess, stream: int, expected: bytes) -> bool:
    output = b""
    async with asyncio.timeout(10):
        while len(output) < len(expected):
            chunk = await made.read()
            assert chunk is not None
            assert chunk[0] == stream
            output += chunk[1]
    return output == expected


async def test_a_mark_on_stdout_whose_end_is_late_is_waited_for_once_stderr_has_its_own(tmp_path: Path) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        mark = (await socket.receive()).data[1:]
        await socket.send_bytes(b"\x02" + mark)
        await socket.send_bytes(b"\x01all" + mark[:9])
        await asyncio.sleep(HOLD_SECONDS * 6)
        await socket.send_bytes(b"\x01" + mark[9:])
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script) as made:
        await _given_the_mark(made)
        assert await _output(made, STDOUT, b"all")
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
        mark = await _given_the_mark(made)
        assert await made.read() == (STDOUT, mark[:9])
        await made.write(b"seen")
        assert await made.read() is None
        assert await made.wait() == Lost(CUT)


async def test_a_program_on_a_terminal_that_ends_at_once_is_not_sent_the_end_of_input(tmp_path: Path) -> None:
    """A node that is sent a byte while it closes loses the status, which then looks like success."""
    received = asyncio.Event()

    async def script(socket: web.WebSocketResponse) -> None:
        try:
            async with asyncio.timeout(EOF_SECONDS / 4):
                await socket.receive()
                received.set()
        except TimeoutError:
            pass
        await socket.send_bytes(SUCCESS)

    async with process(tmp_path, script, terminal=True) as made:
        ending = asyncio.create_task(made.write_eof())
        assert await made.read() is None
        await ending
    assert not received.is_set()
