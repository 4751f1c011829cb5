"""Limits the rate of failed attempts. No I/O."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

MINUTE = 60.0
# Keys kept at once. Strangers can make up user names, which must not fill the memory.
MOST = 10_000


class Throttle:
    """Allows ``most`` failures per key within a minute. ``now`` is a monotonic clock."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._failures: dict[str, deque[float]] = {}

    def __repr__(self) -> str:
        return f"<Throttle {len(self._failures)} keys>"

    def wait(self, *keys: str) -> int:
        """Return the whole seconds until another attempt is allowed under all these keys; 0: now."""
        now = self._now()
        return max(self._wait(key, now) for key in keys)

    def failed(self, *keys: str) -> None:
        """Count a failed attempt under each of these keys."""
        now = self._now()
        for key in keys:
            failures = self._failures.pop(key, deque(maxlen=self._most))
            failures.append(now)
            self._failures[key] = failures  # reinserted, so the dict stays ordered by the latest failure
        while self._failures and (
            len(self._failures) > MOST or next(iter(self._failures.values()))[-1] <= now - MINUTE
        ):
            del self._failures[next(iter(self._failures))]

    def _wait(self, key: str, now: float) -> int:
        failures = self._failures.get(key)
        if failures is None or len(failures) < self._most or failures[0] <= now - MINUTE:
            return 0
        return int(failures[0] + MINUTE - now) + 1
