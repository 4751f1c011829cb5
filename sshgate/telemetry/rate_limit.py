"""A rate limit for log lines and events that strangers cause: one per key and time span. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

MINUTE = 60.0
# Keys that are remembered. Strangers can make up keys, so new ones are suppressed beyond this number.
MOST = 1000


class Rarely:
    """Lets each key pass once per ``seconds``. ``now`` is a monotonic clock."""

    def __init__(self, seconds: float = MINUTE, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._passed: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Rarely {len(self._passed)} keys>"

    def due(self, key: str) -> bool:
        """Return whether this key may pass now. If so, the time span for it starts."""
        now = self._now()
        # The dict is in the order of passing, so the oldest keys come first.
        while self._passed and next(iter(self._passed.values())) <= now - self._seconds:
            del self._passed[next(iter(self._passed))]
        if key in self._passed or len(self._passed) >= MOST:
            return False
        self._passed[key] = now
        return True
