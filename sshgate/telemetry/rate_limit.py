"""A bound on log lines that strangers cause: one for each key within a time. Pure bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable

MINUTE = 60.0
# Keys are a stranger's to make up: past this many within the time there are no lines for new ones.
MOST = 1000


class Rarely:
    """Says for each key whether it is due: not again within ``seconds``."""

    def __init__(self, seconds: float = MINUTE, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._passed: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Rarely {len(self._passed)} keys>"

    def due(self, key: str) -> bool:
        """Whether this one may pass now; then it counts as passed."""
        now = self._now()
        # In the order in which they have passed, so the oldest come first.
        while self._passed and next(iter(self._passed.values())) <= now - self._seconds:
            del self._passed[next(iter(self._passed))]
        if key in self._passed or len(self._passed) >= MOST:
            return False
        self._passed[key] = now
        return True
