"""The copy loop of forwarded connections: what was said before an end is delivered, as slowly as it is taken."""

from __future__ import annotations

import asyncio

from sshgate.stream.splice import splice
from tests.unit.far_end import FarEnd

LINGER = 3.0


async def test_a_slow_client_gets_all_that_a_server_sent_before_it_closed() -> None:
    client, server = FarEnd(), FarEnd()
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
    client, server = FarEnd(), FarEnd()
    server.says.put(b"answer")
    server.leave()
    carrying = asyncio.create_task(splice(client, server, LINGER))
    await asyncio.sleep(0)
    client.leave()
    async with asyncio.timeout(10):
        await carrying
    assert not client.written


async def test_what_a_client_sent_before_it_closed_is_delivered_while_it_is_taken() -> None:
    client, server = FarEnd(), FarEnd()
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
    client, server = FarEnd(), FarEnd()
    client.says.put(b"question")
    client.leave()
    async with asyncio.timeout(10):
        await splice(client, server, 0.1)
    assert not server.written
    assert server.closed


async def test_a_half_closed_connection_at_rest_ends_after_its_time() -> None:
    client, server = FarEnd(), FarEnd()
    client.room.set()
    client.says.put_eof()
    carrying = asyncio.create_task(splice(client, server, half_closed=0.4))
    for _ in range(4):  # longer than the time in all, but never at rest for so long
        server.says.put(b"answer")
        await asyncio.sleep(0.2)
    assert server.eof
    assert not carrying.done()
    async with asyncio.timeout(10):
        assert await carrying == (0, 24)
    assert client.closed
    assert server.closed
