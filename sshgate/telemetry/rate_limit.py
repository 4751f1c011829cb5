"""Rate limits by key: of log lines and events that strangers cause, and of failed logins. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

MINUTE = 60.0
# Keys that are remembered. Strangers can make up keys; beyond this number those that passed longest ago are dropped.
MOST = 10_000
_ALL = ""


class RateLimit:
    """Lets each key pass some times within any ``seconds``, and all keys together ``total`` times (``None``: no limit).

    ``now`` is a monotonic clock in seconds.
    """

    def __init__(
        self, seconds: float = MINUTE, total: int | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._total = total
        self._now = now
        self._passed: dict[str, list[float]] = {}  # in the order in which the keys have last passed

    def __repr__(self) -> str:
        return f"<RateLimit {len(self._passed)} keys>"

    def wait(self, key: str, times: int = 1) -> int:
        """Return the whole seconds until this key may pass again, at most ``times`` within the time span; 0: now."""
        passed, now = self._passed.get(key, []), self._now()
        if len(passed) < times or passed[-times] <= now - self._seconds:
            return 0
        return int(passed[-times] + self._seconds - now) + 1

    def due(self, key: str, times: int = 1) -> bool:
        """Return whether this key may pass now, and count it if so. ``times`` is as for ``wait``."""
        if self.wait(key, times) or (self._total is not None and self.wait(_ALL, self._total)):
            return False
        self.count(key)
        return True

    def count(self, key: str) -> None:
        """Count this key as one that has passed, whether or not it may: somebody else has decided."""
        since = self._now() - self._seconds
        for one in (key,) if self._total is None else (key, _ALL):
            self._passed[one] = [*(at for at in self._passed.pop(one, ()) if at > since), since + self._seconds]
        while len(self._passed) > MOST or next(iter(self._passed.values()))[-1] <= since:
            del self._passed[next(iter(self._passed))]
