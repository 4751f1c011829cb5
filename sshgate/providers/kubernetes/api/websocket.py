"""A websocket client for execs, on top of aiohttp's connections.

aiohttp opens the connection, so that execs share its idle ones. After the upgrade the transport is ours: aiohttp's
websocket needs a queue, a task and an object per frame. Here a frame goes from the transport's callback directly to its
reader, and back-pressure directly to the transport. Only this file uses the private parts of aiohttp that this needs;
``private`` lists them. docs/decisions/06-exec-websocket.md compares it with `websockets`.

Reading is paused on the TCP transport below TLS: uvloop's TLS transport drops undelivered data if the server closes
while it is paused, and the TLS transports of both loops buffer up to 256 KiB more.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from sshgate.providers.kubernetes.api import frames
from sshgate.providers.kubernetes.api.frames import FrameParser, ProtocolError
from sshgate.stream import turns
from sshgate.stream.tasks import Event

# Subprotocols of remotecommand. Only v5 can end the program's input.
V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
SUBPROTOCOLS = (V5, V4)

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# The longest body that is read from a response that refuses the upgrade.
REFUSAL_BYTES = 1 << 20
_MASKED = 0x80


class Refused(Exception):
    """The server did not upgrade the connection. Holds its HTTP status and response body."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


class RemoteSocket(asyncio.Protocol):
    """An open remotecommand websocket. The caller of ``connect`` closes it.

    ``close`` drops all references: ended sessions are reference cycles, which the garbage collector may find only
    after hundreds of them, and a TLS connection kept alive that long costs up to 300 KiB.
    """

    __slots__ = (
        "_at_end", "_below", "_budget", "_came", "_connection", "_ended", "_parser", "_ping", "_protocol",
        "_reader_holds", "_transport", "_turn_holds", "_writable", "subprotocol",
    )  # fmt: skip

    def __init__(self, connection: Connection, subprotocol: str) -> None:
        self.subprotocol = subprotocol
        assert connection.protocol is not None
        self._connection: Connection | None = connection
        self._protocol: ResponseHandler | None = None
        self._transport: asyncio.Transport | None = connection.transport
        self._below = _below.get(connection.protocol, connection.transport)
        self._budget = turns.budget(self._work_off, self._pause_for_turn, self._resume_for_turn, lambda _: self._end())
        self._parser: FrameParser | None = None
        self._ended: Callable[[], None] | None = None
        self._came: list[bytes] = []
        self._at_end = False
        self._ping: bytes | None = None
        self._writable = Event()
        self._writable.set()
        self._reader_holds = False
        self._turn_holds = False

    def __repr__(self) -> str:
        return f"<RemoteSocket {self.subprotocol}{' closed' if self._connection is None else ''}>"

    def attach(self, message: Callable[[bytes, int, int], None], ended: Callable[[], None]) -> None:
        """Start delivering: ``message`` for each binary message (see ``FrameParser``), ``ended`` when it has ended."""
        connection = self._connection
        if connection is None or (protocol := connection.protocol) is None:
            ended()
            self.close()
            return
        self._parser = FrameParser(message, self._control, self._over)
        self._ended = ended
        # First what the server has sent together with the response; then the connection is no longer aiohttp's.
        protocol.set_parser(self, None)
        protocol.set_parser(None, None)
        protocol._parser = None  # with the headers
        transport = connection.transport
        # TLS that is closing may have scheduled `connection_lost` of aiohttp's object: ours would never be called.
        if self._transport is not None and transport is not None and not transport.is_closing():
            self._protocol = protocol
            transport.set_protocol(self)
        else:
            # The server has closed it already: what it has sent is read all the same.
            self._at_end = True
            self._budget.schedule()

    async def send(self, *parts: bytes) -> None:
        """Send the parts as one binary message; returns when the transport has room for more.

        Only one task at a time may send. Data for a socket that has ended is dropped. Cancelling loses nothing: the
        message is already buffered.
        """
        self.send_now(*parts)
        await self._writable.wait()

    def send_now(self, *parts: bytes) -> None:
        """Send a small binary message without waiting for room."""
        self._write(frames.BINARY, *parts)

    def pause_reading(self) -> None:
        """Stop reading from the network until ``resume_reading``."""
        if not self._reader_holds and not self._turn_holds:
            self._pause_transport(True)
        self._reader_holds = True

    def resume_reading(self) -> None:
        """Continue reading."""
        if self._reader_holds:
            self._reader_holds = False
            if not self._turn_holds:
                self._pause_transport(False)
            if self._parser is not None and self._parser.stopped:
                self._budget.schedule()

    def _pause_for_turn(self) -> None:
        if not self._reader_holds:
            self._pause_transport(True)
        self._turn_holds = True

    def _resume_for_turn(self) -> None:
        self._turn_holds = False
        if not self._reader_holds:
            self._pause_transport(False)

    def _pause_transport(self, pause: bool) -> None:
        if (below := self._below) is not None:
            below.pause_reading() if pause else below.resume_reading()

    def _over(self) -> bool:
        # A reader that takes no more is handed no more: of the smallest frames one read of the network has 60,000.
        return self._reader_holds or self._budget.exhausted()

    def close(self) -> None:
        """Send a CLOSE frame and drop the connection without waiting for a reply. Idempotent."""
        if (connection := self._connection) is not None:
            self._write(frames.CLOSE, b"\x03\xe8")
            self._connection = self._transport = self._below = self._parser = self._ended = None
            self._came = []
            self._budget.close()
            self._writable.set()
            connection.close()

    def _write(self, opcode: int, *parts: bytes) -> None:
        # A closing transport takes no more; `ended` will be called.
        if (transport := self._transport) is not None and not transport.is_closing():
            transport.write(masked(opcode, parts))

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.PING:
            self._ping = payload
        elif opcode == frames.CLOSE:
            self._end()

    def _work_off(self) -> bool:
        """Parse frames until the budget is used up; returns whether some are left."""
        if (parser := self._parser) is None:
            return False
        data, self._came = self._came, []
        try:
            parser.feed(data[0] if len(data) == 1 else b"".join(data))
        except ProtocolError:
            self._end()
        if self._ping is not None:
            # RFC 6455 section 5.5.3: answer only the latest ping; and none while the peer does not read.
            if self._writable.is_set():
                self._write(frames.PONG, self._ping)
            self._ping = None
        if not parser.stopped and self._at_end:
            self._end()
        return parser.stopped and self._parser is not None and not self._reader_holds

    def _end(self) -> None:
        if self._ended is not None:
            self._ended()
        self.close()

    # --- called by the transport, and by aiohttp with what came together with its response ---

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            self._came.append(data)
            self._budget.schedule()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data_received(data)
        return False, b""

    def connection_lost(self, error: Exception | None) -> None:
        protocol, self._protocol, self._transport, self._below = self._protocol, None, None, None
        if protocol is not None:
            protocol.connection_lost(error)  # for this aiohttp waits before a client session is closed
        self._writable.set()
        # Data received before is parsed first.
        self._at_end = True
        self._budget.schedule()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


def masked(opcode: int, parts: Sequence[bytes]) -> bytearray:
    """A complete, masked client frame (RFC 6455 section 5.2). Copies each byte once: input may be hundreds of MiB."""
    size = sum(map(len, parts))
    if size < 126:
        header = struct.pack("!BB", frames.FIN | opcode, _MASKED | size)
    elif size < 1 << 16:
        header = struct.pack("!BBH", frames.FIN | opcode, _MASKED | 126, size)
    else:
        header = struct.pack("!BBQ", frames.FIN | opcode, _MASKED | 127, size)
    mask = secrets.token_bytes(4)
    header += mask
    frame = bytearray().join((header, *parts))
    # websocket_mask masks whole buffers only. So mask the header too, with the mask rotated to start after it, and
    # restore the header.
    turn = -len(header) % len(mask)
    websocket_mask(mask[turn:] + mask[:turn], frame)
    frame[: len(header)] = header
    return frame


# The TCP transport below each TLS connection.
_below: WeakKeyDictionary[Any, asyncio.Transport] = WeakKeyDictionary()


class Connector(aiohttp.TCPConnector):
    """A connector that remembers the TCP transport below each TLS connection."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made: WeakSet[Any] = WeakSet()

    @property
    def in_use(self) -> bool:
        """Whether a request, a watch or a websocket uses one of its connections."""
        return bool(self._acquired)

    def cut(self) -> None:
        """Abort connections that wait for the server's TLS close_notify: the event loop may end before it arrives."""
        for protocol in self._made:
            if not (below := _below[protocol]).is_closing():
                below.abort()

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("ssl") is None:
            return await super()._wrap_create_connection(*args, **kwargs)
        plain = {**kwargs, "ssl": None, "server_hostname": None}
        # Not aiohttp's protocol for the connection below: uvloop keeps it for as long as the connection, 1.5 KiB.
        transport, _ = await super()._wrap_create_connection(asyncio.Protocol, *args[1:], **plain)
        return await self._start_tls_connection(transport, kwargs["req"], kwargs["timeout"], kwargs["client_error"])

    async def _start_tls_connection(self, underlying_transport: asyncio.Transport, *args: Any, **kwargs: Any) -> Any:
        if underlying_transport.is_closing():
            # Reset before the handshake: uvloop would neither detect that nor release it within a minute.
            raise aiohttp.ClientConnectionError("reset before the TLS handshake")
        try:
            transport, protocol = await super()._start_tls_connection(underlying_transport, *args, **kwargs)
        except (ValueError, RuntimeError) as error:
            # What uvloop and aiohttp raise ("negative file descriptor") if it is reset during the handshake.
            raise aiohttp.ClientConnectionError("reset during the TLS handshake") from error
        # uvloop keeps what the certificate says, decoded, for as long as the connection: 2.5 KiB. It was checked.
        (transport.get_extra_info("peercert") or {}).clear()
        _below[protocol] = underlying_transport
        self._made.add(protocol)
        return transport, protocol


async def connect(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], proxy: str | None, server_hostname: str | None
) -> RemoteSocket:
    """Open a websocket (RFC 6455 section 4.1) with one of ``SUBPROTOCOLS``. The caller closes it.

    Raises ``Refused`` if the server does not upgrade or negotiates something else, or what aiohttp raises.
    """
    key = base64.b64encode(secrets.token_bytes(16))
    response = await session.request(
        "GET",
        url,
        headers={
            **headers,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key.decode(),
            "Sec-WebSocket-Protocol": ", ".join(SUBPROTOCOLS),
        },
        read_until_eof=False,
        proxy=proxy,
        server_hostname=server_hostname,
        timeout=aiohttp.ClientTimeout(total=None),
        allow_redirects=False,
    )
    try:
        if response.status != 101:
            raise Refused(response.status, await response.content.read(REFUSAL_BYTES))
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT).digest()).decode()
        subprotocol = response.headers.get("Sec-WebSocket-Protocol", "")
        if response.headers.get("Sec-WebSocket-Accept") != accept or subprotocol not in SUBPROTOCOLS:
            raise Refused(502, b"")
        connection, response._connection = response.connection, None
        assert connection is not None
        return RemoteSocket(connection, subprotocol)
    except BaseException:
        response.close()
        raise
