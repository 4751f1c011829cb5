"""Rights that are used up by using them: the links that log in, the tickets of sockets."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# More than people can use; the oldest give way, so that nobody can fill the memory.
MOST = 10_000


class OneTimeTokens(Generic[T]):
    """Tokens of 192 random bits, each good once and for ``seconds``."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._now = now
        self._issued: dict[bytes, tuple[float, T]] = {}

    def __repr__(self) -> str:
        return f"<OneTime {len(self._issued)} open>"

    def issue(self, meaning: T, seconds: float | None = None) -> str:
        """A new token that stands for ``meaning``, for ``seconds`` where those are not the usual ones."""
        now = self._now()
        # In the order of their issue, which is that of their end for nearly all.
        while self._issued and (next(iter(self._issued.values()))[0] <= now or len(self._issued) >= MOST):
            del self._issued[next(iter(self._issued))]
        token = secrets.token_urlsafe(24)
        self._issued[_digest(token)] = (now + (self.seconds if seconds is None else seconds), meaning)
        return token

    def look(self, token: str) -> T | None:
        """The same as ``take``, and it stays good."""
        ends, meaning = self._issued.get(_digest(token), (0.0, None))
        return meaning if ends > self._now() else None

    def take(self, token: str) -> T | None:
        """What it stands for, once; ``None`` where it is wrong, used or old."""
        # Looked up by its digest: the time that takes tells nothing about the token.
        ends, meaning = self._issued.pop(_digest(token), (0.0, None))
        return meaning if ends > self._now() else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
