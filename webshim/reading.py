"""The reading side of a TCP connection of the web server: what its client may have done per turn (``stream.turns``).

aiohttp parses all that has come in one go; here it is given pieces, in the connection's turns of the event loop.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from aiohttp import web

from sshgate.stream import turns

# What is parsed at once: with the smallest frames, a millisecond's work.
PIECE = 16 * 1024


class Reading(web.RequestHandler):
    """aiohttp's protocol object with a budget."""

    def __init__(self, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.budget = turns.budget(self._work_off, self._hold, self._go_on)
        """For what the client sends, and for what is done with it."""
        self._came: deque[bytes] = deque()
        self._waits = False
        self._owed = False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.budget.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not data:
            # aiohttp itself, which goes on with what it has kept.
            super().data_received(data)
            return
        self._came.extend(data[at : at + PIECE] for at in range(0, len(data), PIECE))
        self.budget.ready()

    def _work_off(self) -> bool:
        while self._came and not self._full:
            super().data_received(self._came.popleft())
            if self.budget.over():
                break
        self._read_on()
        return bool(self._came) and not self._full

    @property
    def _full(self) -> bool:
        """aiohttp wants no more for now; what it is given all the same it may lose."""
        return bool(self._reading_paused or self._buffer_paused)

    def _hold(self) -> None:
        self._waits = True
        self._pause_transport_reading()

    def _go_on(self) -> None:
        self._waits = False
        self._owed = True
        self._read_on()

    def _resume_transport_reading(self) -> None:
        # aiohttp has room again: first for what has come.
        self._owed = True
        if self._came:
            self.budget.ready()
        self._read_on()

    def _read_on(self) -> None:
        if self._owed and not (self._waits or self._came or self._full):
            self._owed = False
            super()._resume_transport_reading()
