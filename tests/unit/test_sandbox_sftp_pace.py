"""What holds back an sftp client that does not wait: the bytes stay as they are, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sshgate.sandbox import sftp_pace as pace
from sshgate.sandbox.sftp_pace import FEW, MOST, Paced
from sshgate.stream.interfaces import STDERR, STDOUT, Exited
from tests.hostile.polling import until
from tests.rig.ends import TestProcess


def packets(count: int, size: int = 20) -> bytes:
    return (size.to_bytes(4, "big") + b"p" * size) * count


async def test_what_is_not_answered_is_not_followed_by_more() -> None:
    process = TestProcess()
    paced = Paced(process)
    writing = asyncio.create_task(paced.write(packets(1000)))
    await until(lambda: len(process.sent) == len(packets(MOST)))
    await asyncio.sleep(0.05)
    assert len(process.sent) == len(packets(MOST))
    process.output.put(packets(MOST - FEW - 1, 9), STDOUT)
    await paced.read()
    await asyncio.sleep(0.05)
    assert len(process.sent) == len(packets(MOST)), "in one go when there is room for many"
    process.output.put(packets(1, 9), STDOUT)
    await paced.read()
    await until(lambda: len(process.sent) == len(packets(2 * MOST - FEW)))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_server_that_never_answers_gets_more_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FORGET_SECONDS", 0.05)
    process = TestProcess()
    async with asyncio.timeout(5):
        await Paced(process).write(packets(1000))
    assert process.sent == packets(1000)


async def test_a_server_that_ends_holds_nobody() -> None:
    process = TestProcess()
    paced = Paced(process)
    writing = asyncio.create_task(paced.write(packets(1000)))
    await until(lambda: len(process.sent) == len(packets(MOST)))
    process.end(Exited(0))
    assert await paced.read() is None
    async with asyncio.timeout(0.5):
        await writing


@pytest.mark.parametrize("odd", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"SSH-2.0-x\r\n"])
async def test_what_is_no_sftp_passes(odd: bytes) -> None:
    process = TestProcess()
    async with asyncio.timeout(0.5):
        await Paced(process).write(odd + packets(1000))
    assert process.sent == odd + packets(1000)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(5, 3000), max_size=400), st.lists(st.integers(1, 5000)), st.lists(st.integers(1, 50)))
def test_bytes_stay_as_they_are_however_they_are_cut(sizes: list[int], cuts: list[int], answer_cuts: list[int]) -> None:
    """A server that answers what it has whole, in pieces of any size: nothing is held for long, nothing is changed."""
    asked = b"".join(size.to_bytes(4, "big") + bytes([size & 255]) * size for size in sizes)

    async def serve(process: TestProcess) -> None:
        answered, at, owed = 0, 0, b""
        pieces = iter(answer_cuts * 1000 or [7] * 100_000)
        while answered < len(sizes):
            while at + 4 <= len(process.sent):
                end = at + 4 + int.from_bytes(process.sent[at : at + 4], "big")
                if end > len(process.sent):
                    break
                at, answered, owed = end, answered + 1, owed + packets(1, 13)
            while owed:
                piece = next(pieces, 1000)
                process.output.put(owed[:piece], STDOUT)
                process.output.put(b"warning", STDERR)
                owed = owed[piece:]
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        process.end(Exited(0))

    async def run() -> None:
        process = TestProcess()
        paced = Paced(process)
        serving = asyncio.create_task(serve(process))
        heard = b""

        async def hear() -> None:
            nonlocal heard
            while (chunk := await paced.read()) is not None:
                heard += chunk[1] if chunk[0] == STDOUT else b""
                outstanding = len(sizes) - heard.count(b"\0\0\0\x0d")
                assert outstanding >= 0

        hearing = asyncio.create_task(hear())
        async with asyncio.timeout(0.9):  # nothing was forgotten on the way
            at = 0
            for cut in [*cuts, len(asked)]:
                await paced.write(asked[at : at + cut])
                at += cut
            await asyncio.gather(serving, hearing)
        assert process.sent == asked
        assert heard == packets(len(sizes), 13)

    asyncio.run(run())
