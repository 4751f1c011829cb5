"""The reading side of a TCP connection of the web server: what its client may have done per turn (``sshgate.turns``).

aiohttp parses all that has come in one go; here it is given pieces, in the connection's turns of the event loop.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from aiohttp import web

from sshgate import turns

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
        while self._came:
            super().data_received(self._came.popleft())
            if self.budget.over():
                break
        return bool(self._came)

    def _hold(self) -> None:
        self._waits = True
        self._pause_transport_reading()

    def _go_on(self) -> None:
        self._waits = False
        if not self._reading_paused and not self._buffer_paused:
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        # aiohttp does so when it has room again.
        if not self._waits:
            super()._resume_transport_reading()
