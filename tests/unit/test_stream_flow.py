"""Queues with water marks: order, joins, bounds and ends."""

from __future__ import annotations

import asyncio
import tracemalloc
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.stream.flow import COALESCE_LIMIT, MOST_CHUNKS, Flow
from sshgate.stream.interfaces import CHUNK, STDERR, STDOUT


class Source:
    """What a flow pauses and resumes."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def flow(self, high: int, low: int) -> Flow:
        return Flow(high, low, lambda: self.calls.append("pause"), lambda: self.calls.append("resume"))


async def drained(flow: Flow) -> list[tuple[int, bytes]]:
    chunks = []
    while (chunk := await flow.get()) is not None:
        chunks.append(chunk)
    return chunks


async def test_small_neighbours_of_one_stream_are_joined() -> None:
    flow = Flow(100, 10)
    for data, stream in ((b"a", STDOUT), (b"b", STDOUT), (b"c", STDERR), (b"d", STDOUT)):
        flow.put(data, stream)
    flow.put_eof()
    assert await drained(flow) == [(STDOUT, b"ab"), (STDERR, b"c"), (STDOUT, b"d")]


async def test_a_join_does_not_pass_the_limit_and_a_large_chunk_stays_whole() -> None:
    flow = Flow(100, 10)
    for size in (CHUNK - COALESCE_LIMIT - 1, COALESCE_LIMIT + 1, 1, CHUNK + 1):
        flow.put(bytes(size))
    flow.put_eof()
    assert [len(data) for _, data in await drained(flow)] == [CHUNK, 1, CHUNK + 1]


async def test_a_flow_with_a_limit_of_its_own_joins_up_to_that() -> None:
    flow = Flow(100, 10, most=3 * CHUNK)
    for _ in range(4):
        flow.put(bytes(CHUNK))
    flow.put_eof()
    assert [len(data) for _, data in await drained(flow)] == [3 * CHUNK, CHUNK]


async def test_streams_that_take_turns_are_bounded_in_chunks() -> None:
    """A byte costs more than a hundred where none is joined to its neighbour."""
    source = Source()
    flow = source.flow(1 << 20, 1 << 19)
    for number in range(MOST_CHUNKS + 1):
        assert not source.calls
        flow.put(b"x", STDERR if number % 2 else STDOUT)
    assert source.calls == ["pause"]
    for _ in range(MOST_CHUNKS // 2):
        assert source.calls == ["pause"]
        await flow.get()
    await flow.get()
    assert source.calls == ["pause", "resume"]


async def test_the_source_is_paused_above_high_and_resumed_at_low() -> None:
    source = Source()
    flow = source.flow(CHUNK, 3)
    flow.put(b"x" * CHUNK)
    assert source.calls == []
    flow.put(b"y" * CHUNK)
    flow.put(b"z" * 3)
    assert source.calls == ["pause"]
    assert repr(flow) == f"<Flow {2 * CHUNK + 3}/{CHUNK} bytes paused>"
    await flow.get()
    assert source.calls == ["pause"]
    await flow.get()
    assert source.calls == ["pause", "resume"]
    assert not flow.paused


async def test_a_reader_waits_for_the_next_chunk() -> None:
    flow = Flow(10, 1)
    reader = asyncio.create_task(flow.get())
    await asyncio.sleep(0)
    assert not reader.done()
    flow.put(b"x")
    assert await reader == (0, b"x")


async def test_a_waiting_reader_gets_the_end() -> None:
    flow = Flow(10, 1)
    reader = asyncio.create_task(flow.get())
    await asyncio.sleep(0)
    flow.put_eof()
    assert await reader is None
    assert await flow.get() is None


async def test_empty_chunks_and_late_ones_are_dropped() -> None:
    flow = Flow(10, 1)
    flow.put(b"")
    flow.put(b"x")
    flow.put_eof()
    flow.put(b"late")
    assert flow.ended
    assert await drained(flow) == [(0, b"x")]


async def test_discard_lets_the_source_run_dry() -> None:
    source = Source()
    flow = source.flow(2, 1)
    reader = asyncio.create_task(flow.get())
    await asyncio.sleep(0)
    flow.put(b"abc")
    flow.discard()
    assert await reader is None
    assert source.calls == ["pause", "resume"]
    flow.put(b"more")
    assert (flow.size, repr(flow)) == (0, "<Flow 0/2 bytes eof>")


async def test_a_cancelled_reader_loses_nothing() -> None:
    flow = Flow(10, 1)
    reader = asyncio.create_task(flow.get())
    await asyncio.sleep(0)
    flow.put(b"x")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    flow.put(b"y")
    assert await flow.get() == (0, b"xy")


async def test_tiny_chunks_that_wait_cost_little_more_than_their_bytes() -> None:
    flow = Flow(1 << 20, 1 << 20)
    tracemalloc.start()
    try:
        for number in range(200_000):
            flow.put(b"%d" % (number % 10))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * flow.size
    flow.put_eof()
    assert b"".join([data for _, data in await drained(flow)]) == b"0123456789" * 20_000


SIZES = st.sampled_from([0, 1, 5, COALESCE_LIMIT - 5, COALESCE_LIMIT, CHUNK - COALESCE_LIMIT, CHUNK - 1, CHUNK])
CHUNKS = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), SIZES), max_size=30)


@given(CHUNKS, st.integers(1, 3 * CHUNK))
async def test_every_byte_comes_out_once_and_in_order(chunks: list[tuple[int, int]], high: int) -> None:
    source = Source()
    flow = source.flow(high, high // 2)
    sent = [(stream, bytes([number]) * size) for number, (stream, size) in enumerate(chunks)]
    for stream, data in sent:
        flow.put(data, stream)
    flow.put_eof()
    got = await drained(flow)
    assert runs(got) == runs(sent)
    assert all(len(data) <= CHUNK for _, data in got)
    assert source.calls in ([], ["pause", "resume"])
    assert flow.size == 0


def runs(chunks: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The bytes between one change of the stream and the next."""
    grouped = groupby((chunk for chunk in chunks if chunk[1]), key=lambda chunk: chunk[0])
    return [(stream, b"".join(data for _, data in group)) for stream, group in grouped]
