"""One TCP connection of the web server: counted like those of SSH. aiohttp's protocol object, and what we add."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sshgate.access.listening import Cut
from sshgate.access.proxy_header import Peer, is_header
from webshim.reading import Reading
from webshim.responses import HEADERS, Refusal, refused

# A connection that nobody logs in on ends after this time, or when its request is answered.
ANONYMOUS_SECONDS = 60.0


class Slot(Protocol):
    """The place of one admitted connection."""

    def authenticated(self, user: str) -> None:
        """It has logged in. Raises ``LimitReached`` where this user has too many."""

    def release(self) -> None:
        """It has ended. May be called again."""


class Desk(Protocol):
    """What a connection asks of the server."""

    def admit(self, peer: str, connection: Connection) -> Slot | None:
        """A place for a connection from this address; ``None`` where those are not counted. Raises ``LimitReached``."""

    def malformed(self, peer: str, reason: str) -> None:
        """Something came that is no HTTP."""


class Connection(Reading):
    """Holds a place from TCP to its end, as an ``access.connections.Entrant``. aiohttp's limits of time are its own:
    a head that does not come, and an idle connection, end after ``keepalive_timeout``."""

    def __init__(self, server: web.Server, desk: Desk, peer: Peer, cut: Cut, **options: Any) -> None:
        """Raises ``LimitReached``."""
        super().__init__(server, **options)
        self.peer = peer.source
        """The address on the other side, a proxy's where there is one."""
        self.lost = asyncio.Event()
        """It has ended, from whichever side."""
        self._desk = desk
        self._cut = cut
        self._logged_in = False
        self._slot = desk.admit(self.peer, self)
        self._overdue = asyncio.get_running_loop().call_later(ANONYMOUS_SECONDS, self._grown_old)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.unmade()
        super().connection_lost(exc)

    def unmade(self) -> None:
        """It has ended, perhaps before it was made."""
        self._overdue.cancel()
        if self._slot is not None:
            self._slot.release()
        self.lost.set()

    def authenticated(self, user: str) -> None:
        """A request on it was somebody's. Raises ``LimitReached``."""
        if not self._logged_in:
            if self._slot is not None:
                self._slot.authenticated(user)
            self._logged_in = True
            self._overdue.cancel()

    def upgraded(self) -> None:
        """It is somebody's socket now: counted by its user, no longer by where it comes from."""
        if self._slot is not None:
            self._slot.release()

    # --- its place, before a login ---

    @property
    def progress(self) -> int:
        """1 while a request is being answered."""
        return int(self._request_in_progress)

    def make_room(self, seconds: float) -> None:
        """As ``access.connections.Entrant`` has it."""
        self._overdue.cancel()
        self._overdue = asyncio.get_running_loop().call_later(seconds, self._abort)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        else:
            self._cut()

    def _grown_old(self) -> None:
        # A page that nobody has logged in at asks again on a new connection.
        if self.progress:
            self.close()
        elif self.transport is not None:
            self.force_close()

    # --- what is no HTTP ---

    def data_received(self, data: bytes) -> None:
        if not self._request_count and is_header(data):
            self._desk.malformed(self.peer, "a PROXY header from an address that web.proxy_protocol does not list")
            self.force_close()
        else:
            super().data_received(data)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        # A stranger's mistake: aiohttp would write a traceback with the stranger's bytes for each.
        error = kw.get("exc_info")
        if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
            self._desk.malformed(self.peer, type(error).__name__)
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        self.log_exception(exc_info=exc)
        response = refused(Refusal(400, "request", "this request cannot be understood."))
        # No application has seen the request, so nothing else adds them.
        response.headers.update({"Server": "sshgate", **HEADERS})
        response.force_close()
        return response


def connection_of(request: web.Request) -> Connection:
    """The connection that a request came on."""
    return cast(Connection, request.protocol)
