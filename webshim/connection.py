"""One TCP connection of the web server: aiohttp's protocol object, with connection limits like those of SSH."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sshgate.access.connections import ConnectionSlot
from sshgate.access.listening import Abort
from sshgate.access.proxy_header import Peer, is_header
from sshgate.stream import turns
from sshgate.stream.tasks import Event
from webshim.responses import HEADERS, Refusal, refused

# A connection without a login ends after this time; a request in progress is still answered first.
ANONYMOUS_SECONDS = 60.0
# For what was written already, once a connection is to end. A client may take it slowly, or not at all.
UNREAD_SECONDS = 60.0
# Bytes of a request's head by which its worker is chosen, where there are several. Longer ones are parsed here.
LONGEST_HEAD = 32 * 1024
# In the head of a request that has a body.
_BODY = re.compile(rb"\r\n(content-length|transfer-encoding):", re.IGNORECASE)
# Bytes parsed at once. With the smallest frames that takes about a millisecond.
PIECE = 16 * 1024


class BudgetedReader(web.RequestHandler):
    """aiohttp's protocol object. It parses received data in pieces, as the ``budget`` (``stream.turns``) allows."""

    def __init__(self, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.budget = turns.budget(self._work_off, self._hold, self._go_on, lambda _: self.force_close())
        """Covers parsing what the client sends, and the work that it causes."""
        self._came: deque[bytes] = deque()
        self._waits = False
        self._owed = False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.budget.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not data:
            # Called by aiohttp itself, to continue with data that it has buffered.
            super().data_received(data)
            return
        self._came.extend(data[at : at + PIECE] for at in range(0, len(data), PIECE))
        self.budget.schedule()

    def _work_off(self) -> bool:
        while self._came and not self._full:
            super().data_received(self._came.popleft())
            if self.budget.exhausted():
                break
        self._read_on()
        return bool(self._came) and not self._full

    @property
    def _full(self) -> bool:
        """aiohttp has paused reading. It may lose data that it is given now."""
        return bool(self._reading_paused or self._buffer_paused)

    def _hold(self) -> None:
        self._waits = True
        self._pause_transport_reading()

    def _go_on(self) -> None:
        self._waits = False
        self._owed = True
        self._read_on()

    def _resume_transport_reading(self) -> None:
        # aiohttp can take data again. What has been received already comes first.
        self._owed = True
        if self._came:
            self.budget.schedule()
        self._read_on()

    def _read_on(self) -> None:
        if self._owed and not (self._waits or self._came or self._full):
            self._owed = False
            super()._resume_transport_reading()


class ConnectionAdmission(Protocol):
    """The server, as a connection sees it."""

    def admit(self, peer: str, connection: Connection) -> ConnectionSlot | None:
        """Admit a connection from this address; ``None`` if connections from there are not counted.

        Raises:
            LimitReached: the connection must be closed.
        """

    def malformed(self, peer: str, reason: str) -> None:
        """Report that this address has sent something that is not HTTP. ``reason`` is a phrase for the operator."""


class Connection(BudgetedReader):
    """One TCP connection, which holds a place until it ends. It is an ``access.connections.PendingLogin``.

    aiohttp's own time limits apply in addition: it closes a connection that sends no request, or is idle, after
    ``keepalive_timeout``.
    """

    def __init__(
        self,
        server: web.Server,
        desk: ConnectionAdmission,
        peer: Peer,
        cut: Abort,
        move: Move | None = None,
        **options: Any,
    ) -> None:
        """Raises ``LimitReached`` if it is not admitted. ``options`` are those of aiohttp's ``RequestHandler``.

        ``move``: ``None`` if all requests belong to this process.
        """
        super().__init__(server, **options)
        self.whole_peer = peer
        self.first = b""
        """What another worker has read of this connection already. Set it before ``connection_made``."""
        self._move = move
        self._head = b""
        self._answered = 0
        self.peer = peer.source
        """The address of the client, or of the HTTP proxy in front of it."""
        self.lost = Event()
        """Set when the connection has ended, whichever side ended it."""
        self._desk = desk
        self._cut = cut
        # aiohttp forgets its own when it closes it, which takes as long as the client takes to read.
        self._line: asyncio.Transport | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._logged_in = False
        self._slot = desk.admit(self.peer, self)
        self._overdue = asyncio.get_running_loop().call_later(ANONYMOUS_SECONDS, self._grown_old)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = cast(asyncio.Transport, transport)
        super().connection_made(transport)
        if self.first:
            first, self.first = self.first, b""
            self.data_received(first)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.unmade()
        super().connection_lost(exc)

    def detach(self) -> None:
        """End this object as if its connection was lost; the transport stays open, for another protocol."""
        self.transport = None
        self.connection_lost(None)

    def unmade(self) -> None:
        """Clean up after the connection's end; also called if it failed before ``connection_made``. Idempotent."""
        self._line = None
        self._overdue.cancel()
        if self._ending is not None:
            self._ending.cancel()
        if self._slot is not None:
            self._slot.release()
        self.lost.set()

    def authenticated(self, user: str) -> None:
        """Report that a request was authenticated. Only the first call counts.

        Raises:
            LimitReached: the user has too many connections from this source.
        """
        if not self._logged_in:
            if self._slot is not None:
                self._slot.authenticated(user)
            self._logged_in = True
            self._overdue.cancel()

    def upgraded(self) -> None:
        """The connection has become a WebSocket: sockets are counted by user, not by source. Releases the place."""
        self._overdue.cancel()
        if self._slot is not None:
            self._slot.release()

    # --- access.connections.PendingLogin ---

    @property
    def progress(self) -> int:
        """1 while a request is being answered, else 0."""
        return int(self._request_in_progress)

    def make_room(self, seconds: float) -> None:
        self._overdue.cancel()
        self._overdue = asyncio.get_running_loop().call_later(seconds, self._abort)

    def _abort(self) -> None:
        if self._line is not None:
            self._line.abort()
        else:
            self._cut()

    def _grown_old(self) -> None:
        # A page without a login opens a new connection for its next request.
        if self.progress:
            self._overdue = asyncio.get_running_loop().call_later(UNREAD_SECONDS, self._abort)
            self.close()
        elif self.transport is not None:
            self.force_close()

    # --- the end ---

    async def start(self) -> None:
        try:
            await super().start()
        finally:
            self._end_soon()

    def force_close(self) -> None:
        self._end_soon()
        super().force_close()

    def _end_soon(self) -> None:
        """Abort the connection unless it has ended by then: closing it waits until all that was written is read."""
        if self._line is not None and self._ending is None:
            self._ending = asyncio.get_running_loop().call_later(UNREAD_SECONDS, self._abort)

    # --- malformed requests ---

    def data_received(self, data: bytes) -> None:
        if not self._request_count and is_header(data):
            self._desk.malformed(self.peer, "a PROXY header from an address that web.proxy_protocol does not list")
            self.force_close()
        elif self._move is None or not (self._head or self._between_requests):
            # Without data aiohttp calls it, to go on with what it has kept of this request.
            if data and (current := self._current_request) is not None and current.content.is_eof():
                self._move = None  # pipelined
            super().data_received(data)
        else:
            self._route(self._move, data)

    @property
    def _between_requests(self) -> bool:
        """Whether all requests so far were answered, so that what comes next is the head of another."""
        if self._came or self._messages or self._upgraded or self._request_in_progress or self._close:
            return False
        # aiohttp waits for the next request some turns of the loop after a client has the answer.
        return self._answered == self._request_count or (self._waiter is not None and not self._waiter.done())

    async def finish_response(self, *args: Any) -> tuple[web.StreamResponse, bool]:
        response, reset = await super().finish_response(*args)
        # While its body is still being received, it is not known where the next request begins.
        self._answered += bool(response.keep_alive and args[0].content.is_eof())
        return response, reset

    def _route(self, move: Move, data: bytes) -> None:
        """Keep the head of a request until it is complete; then move the connection, or parse it here."""
        began = time.monotonic()
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) < LONGEST_HEAD:
            return
        data, self._head = self._head, b""
        short = 0 <= end < LONGEST_HEAD
        moved = short and move(self, data)
        self.budget.charge(time.monotonic() - began)
        if not moved:
            if not short or (len(data) > end + 4 and not _BODY.search(data, 0, end)):
                # Too long, or pipelined: aiohttp may keep half of the next head, so the rest must be parsed here too.
                self._move = None
            super().data_received(data)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        # Malformed requests are the client's fault: aiohttp would log a traceback with the client's bytes for each.
        error = kw.get("exc_info")
        if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
            self._desk.malformed(self.peer, type(error).__name__)
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        self.log_exception(exc_info=exc)
        response = refused(Refusal(400, "request", "this request cannot be understood."))
        # The request did not reach the application, which would have added these headers.
        response.headers.update({"Server": "sshgate", **HEADERS})
        response.force_close()
        return response


MakeConnection = Callable[[Peer, Abort], Connection]
"""Makes the protocol object of a new connection. Raises ``LimitReached``."""

Move = Callable[[Connection, bytes], bool]
"""Moves a connection to the worker that its next request, whose head is given, belongs to, if that is another one.

Returns whether it has moved; the connection must not be used then.
"""


def connection_of(request: web.Request) -> Connection:
    """Return the connection on which a request was received."""
    return cast(Connection, request.protocol)
