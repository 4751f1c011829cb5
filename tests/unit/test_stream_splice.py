"""The copy loop of forwarded connections: what was said before an end is delivered, as slowly as it is taken."""

from __future__ import annotations

import asyncio

from sshgate.stream.flow import Flow
from sshgate.stream.splice import splice

LINGER = 3.0


class End:
    """A ``Stream`` that a test plays. What is written waits for room; when ``slow`` for each piece anew."""

    def __init__(self) -> None:
        self.says = Flow(1 << 20, 0)
        self.written = bytearray()
        self.room = asyncio.Event()
        self.slow = False
        self.gone = asyncio.Event()
        self.eof = False
        self.closed = False

    async def read(self) -> bytes | None:
        chunk = await self.says.get()
        return None if chunk is None else chunk[1]

    async def write(self, data: bytes) -> None:
        await self.room.wait()
        if self.slow:
            self.room.clear()
        self.written += data

    async def write_eof(self) -> None:
        self.eof = True

    async def wait_closed(self) -> None:
        await self.gone.wait()

    def close(self) -> None:
        self.closed = True

    def leave(self) -> None:
        """Close, after everything that was said."""
        self.says.put_eof()
        self.gone.set()


async def test_a_slow_client_gets_all_that_a_server_sent_before_it_closed() -> None:
    client, server = End(), End()
    server.says.put(b"answer")
    server.leave()
    carrying = asyncio.create_task(splice(client, server, 0.1))
    done, _ = await asyncio.wait({carrying}, timeout=0.5)
    assert not done
    client.room.set()
    assert await carrying == (0, 6)
    assert client.written == b"answer"
    assert client.eof
    assert client.closed
    assert server.closed


async def test_a_client_that_leaves_ends_what_waits_for_it() -> None:
    client, server = End(), End()
    server.says.put(b"answer")
    server.leave()
    carrying = asyncio.create_task(splice(client, server, LINGER))
    await asyncio.sleep(0)
    client.leave()
    async with asyncio.timeout(10):
        await carrying
    assert not client.written


async def test_what_a_client_sent_before_it_closed_is_delivered_while_it_is_taken() -> None:
    client, server = End(), End()
    pieces = [bytes([number]) * 40_000 for number in range(12)]
    for piece in pieces:
        client.says.put(piece)
    client.leave()
    server.slow = True
    carrying = asyncio.create_task(splice(client, server, LINGER))
    for _ in pieces:  # slower in all than one wait, but never at rest for so long
        await asyncio.wait({carrying}, timeout=LINGER / 8)
        server.room.set()
    async with asyncio.timeout(30):
        assert await carrying == (480_000, 0)
    assert server.written == b"".join(pieces)


async def test_a_server_that_takes_nothing_holds_no_client_that_left() -> None:
    client, server = End(), End()
    client.says.put(b"question")
    client.leave()
    async with asyncio.timeout(10):
        await splice(client, server, 0.1)
    assert not server.written
    assert server.closed
