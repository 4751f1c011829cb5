"""Ways of bytes: a socket as a ``Stream``, a stream that was read already, clients of servers, an answer on its way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection
from typing import Any

import aiohttp
from aiohttp import web

from sshgate.broker.caller import Caller
from sshgate.broker.keys import Keys
from sshgate.config.model import Config
from sshgate.stream.interfaces import CHUNK, PromptStream, Stream
from sshgate.telemetry.events import EventContext, Events

# Seconds after which a peer that is gone without a word is taken for gone: its machine is off, or the network is cut.
GONE_SECONDS = 20
# Errors before the first byte of a request has left.
UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError)
# Bytes of a server's error that are read, about, and seconds for them.
LONGEST_ERROR = 64 * 1024
ERROR_SECONDS = 10.0
# What a client that was refused may still send.
LINGER_SECONDS = 2.0
LINGER_BYTES = 1 << 20
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


class Proxy:
    """What the requests of all sandboxes pass through. ``open`` it first, ``close`` it last.

    Args:
        keepalive: Seconds for which a connection to a server is kept unused.
        options: Of the client session.
    """

    def __init__(self, config: Config, events: Events, keepalive: float, **options: Any) -> None:
        self._config = config
        self._events = events
        self._keys = Keys()
        self._keepalive = keepalive
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self.closing = False
        """Whether connections are to end after the next answer."""

    async def open(self) -> None:
        """Prepare connections to servers. No cookie is kept, and no proxy of the environment is used."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self._keepalive),
            cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False, **self._options,
        )  # fmt: skip

    async def close(self) -> None:
        """Close all connections to servers."""
        if self._session is not None:
            await self._session.close()

    def reconfigure(self, config: Config) -> None:
        """Use other settings for later requests."""
        self._config = config

    def _context(self, caller: Caller) -> EventContext:
        return self._events.context(user=caller.user, profile=caller.profile, sandbox=caller.sandbox, name=caller.name)


async def expect_body(request: web.BaseRequest) -> None:
    """Ask for the body of a request whose client waits for that."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


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


async def error_of(response: aiohttp.ClientResponse, secrets: Collection[str]) -> tuple[bytes, bool]:
    """Return the body of an error without the secrets, and whether it is whole.

    Some servers repeat a request's headers. What cannot be read in plain is left out, as is what is beyond some length.
    """
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return b"", False
    text = bytearray()
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(ERROR_SECONDS):
            while len(text) < LONGEST_ERROR and (piece := await response.content.readany()):
                text += piece
    for secret in secrets:
        text = text.replace(secret.encode(), b"***")
    whole = response.content.at_eof()
    if not whole:
        del text[-max(map(len, secrets)) :]  # it may end within one
    return bytes(text), whole


async def answer_last(stream: Stream, response: bytes) -> None:
    """Answer, and read on for a moment: a socket that is closed with bytes unread takes the answer with it."""
    await stream.write(response)
    await stream.write_eof()
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0 and (data := await stream.read()) is not None:
                left -= len(data)
    except TimeoutError:
        pass


class DirectReader(asyncio.StreamReader):
    """A reader that hands what comes straight to ``sink`` while somebody waits for it in ``read``, and else keeps it.

    Events of many streams go on at once: what the sink takes without a wait wakes no task.
    """

    sink: PromptStream | None = None
    """Where the one who reads writes all of it to."""
    _waited_for = False

    async def read(self, n: int = -1) -> bytes:
        self._waited_for = True
        try:
            return await super().read(n)
        finally:
            self._waited_for = False

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # its stub takes more than transports give
        if self._waited_for and self.sink is not None and self.sink.write_now(data):
            return
        self._waited_for = False  # what comes next is not to overtake it
        super().feed_data(data)


def reading() -> tuple[DirectReader, asyncio.StreamReaderProtocol]:
    """Return a reader, and the protocol of the connection that it is to read."""
    loop = asyncio.get_running_loop()
    reader = DirectReader(LIMIT, loop)
    return reader, asyncio.StreamReaderProtocol(reader, loop=loop)


class SocketStream:
    """A ``stream.interfaces.PromptStream`` over asyncio's pair of a reader, made with ``LIMIT``, and a writer."""

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

    def write_now(self, data: bytes) -> bool:
        if self._writer.transport.get_write_buffer_size():
            return False
        if not self._writer.is_closing():
            self._writer.write(data)
        return True

    async def write_eof(self) -> None:
        with contextlib.suppress(OSError):
            if not self._writer.can_write_eof():
                self._writer.close()  # asyncio's TLS knows no half-close, and who has gone must not be taken for open
            elif not self._writer.is_closing():
                self._writer.write_eof()

    async def wait_closed(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def close(self) -> None:
        self._writer.close()


class Begun:
    """A stream with what has been read of it before."""

    def __init__(self, first: bytes, stream: PromptStream) -> None:
        self._first = first
        self._stream = stream
        self.write = stream.write
        self.write_now = stream.write_now
        self.write_eof = stream.write_eof
        self.wait_closed = stream.wait_closed
        self.close = stream.close

    async def read(self) -> bytes | None:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._stream.read()


async def begin(stream: PromptStream, least: int) -> tuple[bytes, Begun]:
    """Read until there are ``least`` bytes or the input has ended. Returns them, and the stream as if unread."""
    first = b""
    while len(first) < least and (data := await stream.read()) is not None:
        first += data
    return first, Begun(first, stream)
