"""A rate limit for log lines and events, by key and in all. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

MINUTE = 60.0
# Keys that are remembered. Strangers can make up keys; beyond this number the oldest are forgotten.
MOST = 10_000


class RateLimit:
    """Lets each key pass some times per ``seconds``, and all keys together ``total`` times (``None``: no limit).

    ``now`` is a monotonic clock in seconds.
    """

    def __init__(
        self, seconds: float = MINUTE, total: int | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._total = total
        self._now = now
        self._keys: dict[str, tuple[float, int]] = {}  # when its span began, and how often it has passed since
        self._began = 0.0
        self._passed = 0

    def __repr__(self) -> str:
        return f"<RateLimit {len(self._keys)} keys>"

    def due(self, key: str, times: int = 1) -> bool:
        """Return whether this key may pass now, at most ``times`` in its time span. The first to pass starts the span.

        A key that may not pass leaves nothing behind.
        """
        now = self._now()
        # The dict is in the order in which the spans began, so the oldest come first.
        while self._keys and (next(iter(self._keys.values()))[0] <= now - self._seconds or len(self._keys) > MOST):
            del self._keys[next(iter(self._keys))]
        if self._began <= now - self._seconds:
            self._began, self._passed = now, 0
        began, passed = self._keys.get(key, (now, 0))
        if passed >= times or (self._total is not None and self._passed >= self._total):
            return False
        self._keys[key] = began, passed + 1
        self._passed += 1
        return True
