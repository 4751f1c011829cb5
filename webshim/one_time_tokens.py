"""Tokens that can be used once: the tickets of login links and of sockets."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# Tokens kept at once, more than users need. Beyond it the oldest are dropped, so that nobody can fill the memory.
MOST = 10_000


class OneTimeTokens(Generic[T]):
    """Random tokens of 192 bits, each valid once and for ``seconds``. Only their digests are kept.

    ``now`` is a monotonic clock.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._now = now
        self._issued: dict[bytes, tuple[float, T]] = {}

    def __repr__(self) -> str:
        return f"<OneTimeTokens {len(self._issued)} open>"

    def issue(self, meaning: T, seconds: float | None = None) -> str:
        """Return a new token that stands for ``meaning``. ``seconds`` overrides the usual lifetime."""
        now = self._now()
        # The dict is in order of issue, which for nearly all tokens is the order of expiry.
        while self._issued and (next(iter(self._issued.values()))[0] <= now or len(self._issued) >= MOST):
            del self._issued[next(iter(self._issued))]
        token = secrets.token_urlsafe(24)
        self._issued[_digest(token)] = (now + (self.seconds if seconds is None else seconds), meaning)
        return token

    def look(self, token: str) -> T | None:
        """Return what a token stands for without using it up; ``None`` if it is wrong, used or expired."""
        ends, meaning = self._issued.get(_digest(token), (0.0, None))
        return meaning if ends > self._now() else None

    def take(self, token: str) -> T | None:
        """Use up a token and return what it stands for; ``None`` if it is wrong, used or expired."""
        # Looked up by digest, so that the time of the lookup reveals nothing about valid tokens.
        ends, meaning = self._issued.pop(_digest(token), (0.0, None))
        return meaning if ends > self._now() else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
