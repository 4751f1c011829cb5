"""How fast a pool may be refilled. Pure, by the monotonic clock."""

from __future__ import annotations

from sshgate.access.limits import TokenBucket

FIRST_PENALTY = 2.0
LONGEST_PENALTY = 300.0


class Pace:
    """How fast one pool may be refilled: a token bucket, and a growing pause after failures.

    Without the pause, a pool whose pods fail at once would make and delete pods as fast as the bucket allows, for ever.
    Each failure doubles the pause, up to five minutes; a pod that becomes ready ends it.
    """

    def __init__(self, per_minute: int, size: int, now: float) -> None:
        # A quarter of the pool at once: refilling an empty pool leaves room for logins that start cold.
        self.bucket = TokenBucket(max(1, per_minute) / 60, max(1, -(-size // 4)), now)
        self.failures = 0
        self.failed_at = now
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
        self.failed_at = now
        if now >= self._until:
            self.failures += 1
            self._until = now + min(LONGEST_PENALTY, FIRST_PENALTY * 2 ** min(self.failures - 1, 10))

    def succeeded(self) -> None:
        """A pod became ready: end the pause."""
        self.failures = 0
        self._until = float("-inf")
