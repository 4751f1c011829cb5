"""One TCP connection of the web server: counted like those of SSH. aiohttp's protocol object, and what we add."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

import structlog
from aiohttp import web

from sshgate.access.identity import endpoint
from sshgate.errors import LimitReached

log = structlog.get_logger("sshgate.web")


class Slot(Protocol):
    """One admitted connection."""

    def authenticated(self) -> None:
        """It no longer counts as one that has not logged in."""

    def release(self) -> None:
        """It has ended. May be called again."""


Admit = Callable[[str], Slot | None]
"""A place for a connection from this address; ``None`` where those are not counted. Raises ``LimitReached``."""


class Connection(web.RequestHandler):
    """Takes a slot when it is made and gives it back when it is lost."""

    def __init__(self, server: web.Server, admit: Admit, **options: Any) -> None:
        super().__init__(server, **options)
        self._admit = admit
        self._slot: Slot | None = None
        self.peer = ""
        """The address on the other side, a proxy's where there is one."""
        self.lost = asyncio.Event()
        """It has ended, from whichever side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = endpoint(transport.get_extra_info("peername"))[0]
        try:
            self._slot = self._admit(self.peer)
        except LimitReached as error:
            log.warning("web.limit", source=self.peer, reason=str(error))
            cast(asyncio.Transport, transport).abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._slot is not None:
            self._slot.release()
        self.lost.set()
        super().connection_lost(exc)

    def authenticated(self) -> None:
        """A request on it was somebody's."""
        if self._slot is not None:
            self._slot.authenticated()

    def upgraded(self) -> None:
        """It is somebody's socket now: counted by its user, no longer by where it comes from."""
        if self._slot is not None:
            self._slot.release()


def connection_of(request: web.Request) -> Connection:
    """The connection that a request came on."""
    return cast(Connection, request.protocol)
