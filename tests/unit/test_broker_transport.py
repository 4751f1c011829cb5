"""A stream as a transport: what the protocol writes arrives in order, whether or not it had to wait."""

from __future__ import annotations

import asyncio

from sshgate.broker.transport import StreamTransport
from sshgate.stream.interfaces import CHUNK
from tests.unit.far_end import FarEnd


class Protocol(asyncio.Protocol):
    """Remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


async def test_nothing_overtakes_what_waits_and_the_end_comes_after_it() -> None:
    far, protocol = FarEnd(), Protocol()
    far.room.set()
    transport = StreamTransport(far, protocol)
    running = asyncio.create_task(transport.run())
    await asyncio.sleep(0)
    transport.write(b"1")
    assert far.written == b"1"
    far.room.clear()
    transport.write(b"2")
    await asyncio.sleep(0.05)  # it is being written, and nothing is queued
    far.says.put(b"question")
    transport.write(b"3" * (CHUNK + 1))
    far.says.put_eof()
    await asyncio.sleep(0.05)
    assert protocol.calls == ["pause", b"question"]
    assert transport.is_closing()
    far.room.set()
    transport.write(b"4")  # after the end
    async with asyncio.timeout(10):
        await running
    assert far.written == b"12" + b"3" * (CHUNK + 1)
    assert protocol.calls == ["pause", b"question", "resume", "lost"]
    assert far.closed


async def test_a_stream_that_has_gone_ends_what_waits_for_it_and_a_pause_holds_input_back() -> None:
    far, protocol = FarEnd(), Protocol()
    far.room.set()
    transport = StreamTransport(far, protocol)
    transport.pause_reading()
    running = asyncio.create_task(transport.run())
    far.room.clear()
    for piece in (b"one", b"two"):
        far.says.put(piece)
        await asyncio.sleep(0.05)
    assert protocol.calls == [b"one"]  # was asked for before
    transport.write(b"never taken")
    far.gone.set()
    async with asyncio.timeout(10):
        await running
    assert protocol.calls[-1] == "lost"
    assert b"two" not in protocol.calls
    assert far.closed
