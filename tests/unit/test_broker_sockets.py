"""A reader that hands on what comes: nothing is lost, overtaken or taken by a task that has gone."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.broker.sockets import DirectReader, reading
from tests.unit.far_end import FarEnd


@pytest.fixture
async def reader() -> DirectReader:
    """Its protocol and a connection are not needed."""
    return reading()[0]


async def waited_for(reader: DirectReader) -> asyncio.Task[bytes]:
    waiting = asyncio.create_task(reader.read(100))
    await asyncio.sleep(0)
    return waiting


async def test_what_comes_is_handed_on_while_it_is_waited_for(reader: DirectReader) -> None:
    reader.sink = far = FarEnd()
    far.room.set()
    reader.feed_data(b"a")
    assert await reader.read(100) == b"a"
    waiting = await waited_for(reader)
    reader.feed_data(b"b")
    reader.feed_data(b"c")
    reader.feed_eof()
    assert await waiting == b""
    assert far.written == b"bc"


async def test_what_finds_no_room_is_not_overtaken(reader: DirectReader) -> None:
    """There is room again before the task that was woken has run."""
    reader.sink = far = FarEnd()
    waiting = await waited_for(reader)
    reader.feed_data(b"a")
    far.room.set()
    reader.feed_data(b"b")
    assert await waiting == b"ab"
    assert far.written == b""


async def test_nothing_is_handed_on_once_nobody_waits(reader: DirectReader) -> None:
    reader.sink = far = FarEnd()
    far.room.set()
    waiting = await waited_for(reader)
    waiting.cancel()
    await asyncio.wait({waiting})
    reader.feed_data(b"a")
    assert far.written == b""
    assert await reader.read(100) == b"a"


async def test_what_came_before_a_connection_broke_was_handed_on(reader: DirectReader) -> None:
    reader.sink = far = FarEnd()
    far.room.set()
    waiting = await waited_for(reader)
    reader.feed_data(b"a")
    reader.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await waiting
    assert far.written == b"a"
