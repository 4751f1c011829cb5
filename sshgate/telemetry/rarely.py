"""What may be told again and again by a stranger is told once in a while for each. Pure bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable

MINUTE = 60.0
# Keys are a stranger's to make up: past this many within the time nothing is told of new ones.
MOST = 1000


class Rarely:
    """Says for each key whether it is due: not again within ``seconds``."""

    def __init__(self, seconds: float = MINUTE, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._told: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Rarely {len(self._told)} keys>"

    def due(self, key: str) -> bool:
        """Whether this one may be told now; then it counts as told."""
        now = self._now()
        # In the order in which they were told, so the oldest come first.
        while self._told and next(iter(self._told.values())) <= now - self._seconds:
            del self._told[next(iter(self._told))]
        if key in self._told or len(self._told) >= MOST:
            return False
        self._told[key] = now
        return True
