"""The reading side of a web server's connection, with a budget per turn of the event loop (``stream.turns``).

aiohttp parses all received data in one callback. Here it gets the data in pieces, as the budget allows.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from aiohttp import web

from sshgate.stream import turns

# Bytes parsed at once. With the smallest frames that takes about a millisecond.
PIECE = 16 * 1024


class BudgetedReader(web.RequestHandler):
    """aiohttp's protocol object, which parses received data within ``budget``."""

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
