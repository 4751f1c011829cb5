"""The listener of both doors, on either event loop: whom it hands a connection to, and when it cannot accept."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import uvloop

from sshgate.access.listening import Abort, Listener
from sshgate.access.proxy_header import Peer
from sshgate.config.model import Address
from sshgate.errors import LimitReached
from sshgate.telemetry.events import Events, Record

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Echo(asyncio.Protocol):
    """Says where its client is, and then what it hears."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        self._transport.write(f"{self._peer.source} {self._peer.server} ".encode())

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)
        self._transport.close()


def run(loop: str, work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


async def reply(port: int, words: bytes, source: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write(words)
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_protocol_gets_its_client_and_every_byte_behind_the_header(loop: str) -> None:
    async def work() -> None:
        refused: list[Record] = []
        listener = Listener(lambda peer, cut: Echo(peer), Events(refused.append), ["127.0.0.9"])
        (bound,) = await listener.open(Address("127.0.0.1", 0))
        listener.start()
        header = b"PROXY TCP4 192.0.2.7 198.51.100.1 1000 22\r\n"
        assert await reply(bound.port, b"hello") == b"127.0.0.1 127.0.0.1 hello"
        assert await reply(bound.port, header + b"hello", "127.0.0.9") == b"192.0.2.7 198.51.100.1 hello"
        assert await reply(bound.port, b"PROXY UNKNOWN\r\nhello", "127.0.0.9") == b"127.0.0.9 127.0.0.1 hello"
        assert not refused
        assert await reply(bound.port, b"hello, no header", "127.0.0.9") == b""
        assert [record.fields for record in refused] == [
            {"source": "127.0.0.9", "reason": "PROXY header: it is missing"}
        ]
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            await reply(bound.port, b"")

    run(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_that_is_refused_or_cut_leaves_nothing(loop: str) -> None:
    async def work() -> None:
        cuts: list[Abort] = []

        def made(peer: Peer, cut: Abort) -> asyncio.Protocol:
            cuts.append(cut)
            if len(cuts) == 1:
                raise LimitReached("full")
            return Echo(peer)

        listener = Listener(made, Events())
        (bound,) = await listener.open(Address("127.0.0.1", 0))
        listener.start()
        assert await reply(bound.port, b"") == b""
        assert await reply(bound.port, b"x") == b"127.0.0.1 127.0.0.1 x"
        assert repr(listener) == f"<Listener {bound}, 0 being accepted>"
        listener.close()

    run(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
def test_without_descriptors_it_waits_and_accepts_again(loop: str) -> None:
    async def work() -> None:
        listener = Listener(lambda peer, cut: Echo(peer), Events())
        (bound,) = await listener.open(Address("127.0.0.1", 0))
        listener.start()
        client = socket.create_connection(("127.0.0.1", bound.port))
        client.setblocking(False)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The next descriptor would be this one or a higher one.
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno(), limits[1]))
        try:
            await asyncio.sleep(0.2)
            with pytest.raises(BlockingIOError):
                client.recv(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"127.0.0.1 127.0.0.1 "
        client.close()
        listener.close()

    run(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_address_that_is_taken_is_an_error_and_leaves_nothing_open(loop: str) -> None:
    async def work() -> None:
        first, second = (Listener(lambda peer, cut: Echo(peer), Events()) for _ in range(2))
        (bound,) = await first.open(Address("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            await second.open(bound)
        assert repr(second) == "<Listener nowhere, 0 being accepted>"
        first.close()

    run(loop, work)
