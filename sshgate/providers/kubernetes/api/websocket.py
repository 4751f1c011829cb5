"""A websocket client on aiohttp's connections, made for one exec each.

aiohttp's own takes a queue, a task and an object per frame; here a frame goes from the transport's callback
straight to its reader, and back-pressure straight to the transport. The private parts of aiohttp used for
that are used in this file only.

Back-pressure goes to the TCP transport below TLS: a TLS transport of uvloop that is paused when the server
closes drops what it has not delivered, and of either loop keeps up to 256 KiB more.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.client_proto import ResponseHandler

from sshgate.providers.kubernetes.api import frames
from sshgate.providers.kubernetes.api.frames import FrameParser, ProtocolError
from sshgate.providers.kubernetes.exec.remotecommand import SUBPROTOCOLS
from sshgate.stream import turns

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Answers of one exec wait in aiohttp until `attach`; more than a first frame does not come before that.
REFUSAL_BYTES = 1 << 20
_MASKED = 0x80


class Refused(Exception):
    """The server did not upgrade: its HTTP status and the body it gave instead."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True, eq=False)
class _Wire:
    """aiohttp's parts of an open connection."""

    response: aiohttp.ClientResponse
    protocol: ResponseHandler
    below: asyncio.Transport

    @classmethod
    def of(cls, response: aiohttp.ClientResponse) -> _Wire:
        connection = response.connection
        assert connection is not None
        assert connection.protocol is not None
        assert connection.transport is not None
        return cls(response, connection.protocol, _below.get(connection.protocol, connection.transport))


class RemoteSocket:
    """An open remotecommand websocket. Whoever opened it closes it.

    A closed one lets go of all that it held. Sessions die as cycles, and the interpreter may look for those only after
    hundreds of them: a TLS connection kept so long costs up to 300 KiB.
    """

    def __init__(self, response: aiohttp.ClientResponse, subprotocol: str) -> None:
        self.subprotocol = subprotocol
        self._wire: _Wire | None = _Wire.of(response)
        hold, release = partial(self._hold, "turn"), partial(self._release, "turn")
        self._budget = turns.budget(self._work_off, hold, release)
        self._parser: FrameParser | None = FrameParser(_no_message, self._control, self._budget.over)
        self._ended: Callable[[], None] | None = None
        self._came: list[bytes] = []
        self._at_end = False
        self._ping: bytes | None = None
        self._held: set[str] = set()

    def __repr__(self) -> str:
        return f"<RemoteSocket {self.subprotocol}{' closed' if self._wire is None else ''}>"

    def attach(self, message: Callable[[bytes, int, int], None], ended: Callable[[], None]) -> None:
        """From now on call ``message`` with each binary message (see ``FrameParser``), ``ended`` at the end."""
        if (wire := self._wire) is None:
            ended()
            return
        self._parser = FrameParser(message, self._control, self._budget.over)
        self._ended = ended
        wire.protocol.read_timeout = None
        wire.protocol.set_parser(self, self)
        if not wire.protocol.connected:
            self.feed_eof()

    async def send(self, *parts: bytes) -> None:
        """Send a binary message, all parts as one; returns when the transport has room for more. One task at a time.

        What is sent after the end is dropped.
        """
        self.send_now(*parts)
        if (wire := self._wire) is not None and wire.protocol.writing_paused:
            try:
                await wire.protocol._drain_helper()
            except (aiohttp.ClientError, OSError):
                pass  # `ended` tells

    def send_now(self, *parts: bytes) -> None:
        """Send a small binary message without waiting for room."""
        self._write(frames.BINARY, *parts)

    def pause_reading(self) -> None:
        """Take no more from the network for now."""
        self._hold("reader")

    def resume_reading(self) -> None:
        """Go on reading."""
        self._release("reader")

    def _hold(self, reason: str) -> None:
        if not self._held and (wire := self._wire) is not None and wire.protocol.connected:
            wire.below.pause_reading()
        self._held.add(reason)

    def _release(self, reason: str) -> None:
        if reason not in self._held:
            return
        self._held.remove(reason)
        if not self._held and (wire := self._wire) is not None and wire.protocol.connected:
            wire.below.resume_reading()

    def close(self) -> None:
        """Say goodbye and drop the connection, without waiting for an answer. May be called again."""
        if (wire := self._wire) is not None:
            self._write(frames.CLOSE, b"\x03\xe8")
            self._wire = self._parser = self._ended = None
            self._came = []
            self._budget.close()
            wire.response.close()

    def _write(self, opcode: int, *parts: bytes) -> None:
        transport = self._wire.protocol.transport if self._wire is not None else None
        # Nothing to one that is closing: `ended` comes.
        if transport is not None and not transport.is_closing():
            transport.write(masked(opcode, parts))

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.PING:
            self._ping = payload
        elif opcode == frames.CLOSE:
            self._end()

    def _work_off(self) -> bool:
        """Frames until the share is used up; whether some are left."""
        if (parser := self._parser) is None:
            return False
        data, self._came = self._came, []
        try:
            parser.feed(data[0] if len(data) == 1 else b"".join(data))
        except ProtocolError:
            self._end()
        if self._ping is not None:
            # RFC 6455 section 5.5.3: of several pings the last is answered; and none to who takes nothing.
            if (wire := self._wire) is not None and not wire.protocol.writing_paused:
                self._write(frames.PONG, self._ping)
            self._ping = None
        if not parser.stopped and self._at_end:
            self._end()
        return parser.stopped and self._parser is not None

    def _end(self) -> None:
        if self._ended is not None:
            self._ended()
        self.close()

    # --- what aiohttp calls: this object is the connection's parser and the parser's queue ---

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if self._parser is not None:
            self._came.append(data)
            self._budget.ready()
        return False, b""

    def feed_eof(self) -> None:
        # What has come before is still in its turn.
        self._at_end = True
        self._budget.ready()

    def set_exception(self, *_: Any) -> None:
        self._end()

    def is_eof(self) -> bool:
        return self._wire is None


def masked(opcode: int, parts: Sequence[bytes]) -> bytearray:
    """A whole frame of a client (RFC 6455 section 5.2). Each byte is copied once: input comes in hundreds of MiB."""
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
    # The header as well, as nothing masks a part of a buffer; so the mask is turned to begin behind it.
    turn = -len(header) % len(mask)
    websocket_mask(mask[turn:] + mask[:turn], frame)
    frame[: len(header)] = header
    return frame


def _no_message(data: bytes, start: int, end: int) -> None:
    raise ProtocolError("a message before anybody listens")


# The TCP transport below each TLS connection.
_below: WeakKeyDictionary[Any, asyncio.Transport] = WeakKeyDictionary()


class Connector(aiohttp.TCPConnector):
    """Makes TLS connections whose TCP transport can be reached."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made: WeakSet[Any] = WeakSet()

    @property
    def in_use(self) -> bool:
        """Whether a request, a watch or a websocket goes on over it."""
        return bool(self._acquired)

    def cut(self) -> None:
        """Drop what still says goodbye: TLS waits for the server's, longer than the event loop may live."""
        for protocol in self._made:
            if not (below := _below[protocol]).is_closing():
                below.abort()

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("ssl") is None:
            return await super()._wrap_create_connection(*args, **kwargs)
        plain = {**kwargs, "ssl": None, "server_hostname": None}
        transport, _ = await super()._wrap_create_connection(*args, **plain)
        return await self._start_tls_connection(transport, kwargs["req"], kwargs["timeout"], kwargs["client_error"])

    async def _start_tls_connection(self, underlying_transport: asyncio.Transport, *args: Any, **kwargs: Any) -> Any:
        if underlying_transport.is_closing():
            # Reset before the handshake: uvloop would neither notice nor let go of it within a minute.
            raise aiohttp.ClientConnectionError("reset before the TLS handshake")
        try:
            transport, protocol = await super()._start_tls_connection(underlying_transport, *args, **kwargs)
        except (ValueError, RuntimeError) as error:
            # uvloop and aiohttp at a connection that was reset during the handshake: "negative file descriptor".
            raise aiohttp.ClientConnectionError("reset during the TLS handshake") from error
        _below[protocol] = underlying_transport
        self._made.add(protocol)
        return transport, protocol


async def connect(
    session: aiohttp.ClientSession,
    url: str,
    headers: Mapping[str, str],
    proxy: str | None,
    server_hostname: str | None,
) -> RemoteSocket:
    """Open a websocket (RFC 6455 section 4.1). Raises ``Refused``, or what aiohttp raises."""
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
        return RemoteSocket(response, subprotocol)
    except BaseException:
        response.close()
        raise
