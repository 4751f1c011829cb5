"""The copy loop: what reaches the other side, in which order, and when it ends."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.stream.bridge import Traffic, bridge
from sshgate.stream.interfaces import STDERR, STDOUT, Exited, Lost, Resize, Signal
from sshgate.stream.terminal import TerminalSize
from tests.rig.ends import TestClient, TestProcess


async def test_bytes_pass_both_ways_and_are_counted() -> None:
    client, process, traffic = TestClient(), TestProcess(), Traffic()
    client.input.put(b"typed")
    client.input.put_eof()
    process.output.put(b"out", STDOUT)
    process.output.put(b"err", STDERR)
    running = asyncio.create_task(bridge(client, process, traffic))
    await process.eof.wait()
    process.end(Exited(3))
    assert await running == Exited(3)
    assert (bytes(process.sent), bytes(client.written)) == (b"typed", b"outerr")
    assert (traffic.up, traffic.down) == (5, 6)


async def test_what_was_read_before_comes_first() -> None:
    client, process = TestClient(), TestProcess()
    client.input.put(b"b")
    client.input.put_eof()
    process.output.put(b"d", STDOUT)
    running = asyncio.create_task(bridge(client, process, Traffic(), b"a", initial_output=b"c"))
    await process.eof.wait()
    process.end(Exited(0))
    await running
    assert (bytes(process.sent), bytes(client.written)) == (b"ab", b"cd")


async def test_controls_pass_while_nobody_reads_the_input() -> None:
    client, process = TestClient(), TestProcess()
    running = asyncio.create_task(bridge(client, process, Traffic()))
    client.press(Resize(TerminalSize(90, 30)))
    client.press(Signal("INT"))
    while len(process.controls) < 2:  # noqa: ASYNC110  (the process has no event for that)
        await asyncio.sleep(0)
    process.end(Lost("gone."))
    assert await running == Lost("gone.")
    assert process.controls == [Resize(TerminalSize(90, 30)), Signal("INT")]


async def test_a_client_that_leaves_ends_it_without_an_outcome() -> None:
    client, process = TestClient(), TestProcess()
    running = asyncio.create_task(bridge(client, process, Traffic()))
    await asyncio.sleep(0.01)
    client.leave()
    assert await running is None
    # On a terminal that would be a ^D.
    assert not process.eof.is_set()


async def test_a_stuck_client_that_leaves_does_not_hold_it() -> None:
    client, process = TestClient(), TestProcess()
    client.stuck = True
    process.output.put(b"x", STDOUT)
    running = asyncio.create_task(bridge(client, process, Traffic()))
    await asyncio.sleep(0.01)
    client.leave()
    async with asyncio.timeout(1):
        await running


async def test_the_outcome_waits_for_all_output() -> None:
    client, process = TestClient(), TestProcess()
    for number in range(100):
        process.output.put(b"%03d" % number, number % 2 + 1)
    process.end(Exited(0))
    assert await bridge(client, process, Traffic()) == Exited(0)
    assert client.written == b"".join(b"%03d" % number for number in range(100))


async def test_a_broken_adapter_is_heard_and_cancelling_stops_all() -> None:
    class Broken(TestProcess):
        async def write(self, data: bytes) -> None:
            raise RuntimeError("defect")

    client = TestClient()
    client.input.put(b"x")
    with pytest.raises(RuntimeError, match="defect"):
        await bridge(client, Broken(), Traffic())
    before = asyncio.all_tasks()
    running = asyncio.create_task(bridge(TestClient(), TestProcess(), Traffic()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before
