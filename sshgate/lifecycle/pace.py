"""Rate limits: a token bucket, and a growing pause after failures. Pure, by the monotonic clock."""

from __future__ import annotations

FIRST_PENALTY = 2.0
LONGEST_PENALTY = 300.0


class TokenBucket:
    """Allows ``rate`` things a second, ``burst`` of them at once. Starts full."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a bucket that never holds a token lets nothing happen")
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._filled = now

    def __repr__(self) -> str:
        return f"<TokenBucket {self._tokens:.1f}/{self.burst:g}, {self.rate:g}/s>"

    def take(self, wanted: int, now: float) -> int:
        """Take up to ``wanted`` tokens; returns how many there were."""
        self._fill(now)
        given = max(0, min(wanted, int(self._tokens)))
        self._tokens -= given
        return given

    def give_back(self, count: int) -> None:
        """Return tokens that were taken and not used."""
        self._tokens = min(self.burst, self._tokens + count)

    def full(self, now: float) -> bool:
        """Whether it holds all its tokens, like a new one."""
        self._fill(now)
        return self._tokens >= self.burst

    def when(self, now: float) -> float:
        """The time of the next token; ``now`` if there is one."""
        self._fill(now)
        # The margin covers rounding: a loop that sleeps until then must find the token.
        return now if self._tokens >= 1 else now + (1 - self._tokens) / self.rate + 1e-6

    def _fill(self, now: float) -> None:
        # If the clock goes back, nothing is added or removed.
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._filled) * self.rate)
        self._filled = max(self._filled, now)


class Pace:
    """How fast one pool may be refilled: a token bucket, and a growing pause after failures.

    Without the pause, a pool whose pods fail at once would make and delete pods as fast as the bucket allows, for ever.
    Each failure doubles the pause, up to five minutes; a pod that becomes ready ends it.
    """

    def __init__(self, per_minute: int, size: int, now: float) -> None:
        # A quarter of the pool at once: refilling an empty pool leaves room for logins that start cold.
        self.bucket = TokenBucket(max(1, per_minute) / 60, max(1, -(-size // 4)), now)
        self.failures = 0
        self._until = now

    def __repr__(self) -> str:
        return f"<Pace {self.bucket!r}, {self.failures} failures>"

    def take(self, wanted: int, now: float) -> int:
        """Take up to ``wanted`` creations; returns how many pods may be made now."""
        return 0 if now < self._until else self.bucket.take(wanted, now)

    def when(self, now: float) -> float:
        """The time from which the next pod may be made."""
        return max(self._until, self.bucket.when(now))

    def failed(self, now: float) -> None:
        """A pod of the pool failed or was refused: begin a pause. Failures during a pause do not lengthen it."""
        if now >= self._until:
            self.failures += 1
            self._until = now + min(LONGEST_PENALTY, FIRST_PENALTY * 2 ** min(self.failures - 1, 10))

    def succeeded(self) -> None:
        """A pod became ready: end the pause."""
        self.failures = 0
        self._until = float("-inf")
