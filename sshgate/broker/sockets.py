"""A connected socket as a ``Stream``, a stream whose first bytes were read already, and an answer on its way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import aiohttp
from aiohttp import web

from sshgate.stream.interfaces import CHUNK, Stream

# Seconds after which a peer that is gone without a word is taken for gone: its machine is off, or the network is cut.
GONE_SECONDS = 20
# Bytes that a socket's reader buffers. Kept small: each open connection may hold twice as many.
LIMIT = 16 * 1024


def watch(writer: asyncio.StreamWriter) -> None:
    """Have the system close a connection within ``GONE_SECONDS`` after its peer's machine is gone."""
    connected: socket.socket = writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, GONE_SECONDS // 2),
        (socket.TCP_KEEPINTVL, GONE_SECONDS // 4),
        (socket.TCP_KEEPCNT, 2),
        (socket.TCP_USER_TIMEOUT, GONE_SECONDS * 1000),
    ):
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


async def carry(
    request: web.BaseRequest,
    response: aiohttp.ClientResponse,
    answer: web.StreamResponse,
    feed: Callable[[bytes], None],
) -> bool:
    """Pass a server's answer on, each piece as it comes, and to ``feed`` as well.

    Returns:
        Whether it came whole. If not, the connection closes: the sandbox must not take the part for the whole.
    """
    try:
        await answer.prepare(request)
        async for piece in response.content.iter_any():
            feed(piece)
            await answer.write(piece)
        return True
    except (aiohttp.ClientError, TimeoutError):
        request.protocol.force_close()
        return False


class SocketStream:
    """A ``stream.interfaces.Stream`` over asyncio's pair of a reader, made with ``LIMIT``, and a writer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=CHUNK)

    def __repr__(self) -> str:
        return f"<SocketStream{' closing' * self._writer.is_closing()}>"

    async def read(self) -> bytes | None:
        data = b""
        with contextlib.suppress(OSError):
            data = await self._reader.read(CHUNK)
        return data or None

    async def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)
            with contextlib.suppress(OSError):
                await self._writer.drain()

    async def write_eof(self) -> None:
        with contextlib.suppress(OSError):
            if not self._writer.is_closing():
                self._writer.write_eof()

    async def wait_closed(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def close(self) -> None:
        self._writer.close()


class Begun:
    """A stream with what has been read of it before."""

    def __init__(self, first: bytes, stream: Stream) -> None:
        self._first = first
        self._stream = stream
        self.write = stream.write
        self.write_eof = stream.write_eof
        self.wait_closed = stream.wait_closed
        self.close = stream.close

    def __repr__(self) -> str:
        return f"<Begun {self._stream!r}>"

    async def read(self) -> bytes | None:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._stream.read()


async def begin(stream: Stream, least: int) -> tuple[bytes, Begun]:
    """Read until there are ``least`` bytes or the input has ended. Returns them, and the stream as if unread."""
    first = b""
    while len(first) < least and (data := await stream.read()) is not None:
        first += data
    return first, Begun(first, stream)
