"""Admission: limits on connections and sandboxes. Synchronous bookkeeping, no I/O."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from sshgate.access.connections import Connections, take_one
from sshgate.config.model import Limits
from sshgate.config.values import matches
from sshgate.errors import LimitReached


class Slot:
    """One admitted sandbox. Its owner must call ``release`` when the sandbox is gone."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def __repr__(self) -> str:
        return f"<Slot {'released' if self._release is None else 'held'}>"

    def release(self) -> None:
        """Stop counting the sandbox. Idempotent."""
        if self._release is not None:
            give, self._release = self._release, None
            give()


class Admission:
    """Counts open connections and sandboxes and refuses new ones when a limit is reached.

    ``ssh`` and ``web`` count the connections of the two front ends; ``sandbox`` admits sandboxes of both.
    ``now`` is a monotonic clock in seconds.
    """

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        # Counted separately, so that a flood at one front end does not close the other.
        self.ssh = Connections(limits, now)
        self.web = Connections(limits, now)
        self.sandboxes = 0
        self._users: Counter[str] = Counter()
        self._starts = Starts(limits.starts_per_minute)
        self._now = now

    def __repr__(self) -> str:
        return f"<Admission ssh: {self.ssh!r}, web: {self.web!r}, {self.sandboxes}/{self.limits.sandboxes} sandboxes>"

    @property
    def limits(self) -> Limits:
        """The limits in force. A new value applies to later connections and sandboxes; nothing open is closed.

        A changed ``starts_per_minute`` resets the count of recent starts.
        """
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._starts.per_minute = limits.starts_per_minute
        self._limits = self.ssh.limits = self.web.limits = limits

    @property
    def connections(self) -> int:
        """Open connections of both front ends."""
        return self.ssh.total + self.web.total

    @property
    def unauthenticated(self) -> int:
        """Open connections of both front ends that have not logged in."""
        return self.ssh.unauthenticated + self.web.unauthenticated

    def sandbox(self, user: str) -> Slot:
        """Admit one more sandbox of this user.

        Raises:
            LimitReached: the limit of the user, of the gateway or of one of the user's groups is reached, or the
                user has started too many sandboxes within the last minute. Nothing is counted then.
        """
        own, now = self._users[user], self._now()
        admit_sandbox(self.limits, self._starts, user, own, self.sandboxes, self._owned_by_group, now)
        self.sandboxes += 1
        self._users[user] += 1

        def release() -> None:
            self.sandboxes -= 1
            take_one(self._users, user)

        return Slot(release)

    def _owned_by_group(self, users: Sequence[str]) -> int:
        return sum(count for one, count in self._users.items() if matches(one, users))


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

    def charge(self, now: float) -> None:
        """Take one token, even if there is none: the next ones are owed then."""
        self._fill(now)
        self._tokens -= 1

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


class Starts:
    """Limits the starts per minute of each user in this gateway. Workers report theirs to each other."""

    def __init__(self, per_minute: int | None) -> None:
        """``per_minute``: ``None`` means no limit."""
        self.others: Callable[[str], None] | None = None
        """Called with the user of each start, for the other workers of the same gateway."""
        self._per_minute = per_minute
        self._buckets: dict[str, TokenBucket] = {}
        # From this number on the full buckets are dropped: so each start pays for one other at most.
        self._most = 100

    @property
    def per_minute(self) -> int | None:
        """The limit in force. Another one resets the count of recent starts."""
        return self._per_minute

    @per_minute.setter
    def per_minute(self, per_minute: int | None) -> None:
        if per_minute != self._per_minute:
            self._per_minute, self._buckets = per_minute, {}

    def take(self, user: str, now: float) -> float:
        """Take one start. Returns 0.0, or the seconds until the next one if none is left. ``now`` is monotonic."""
        if self._per_minute is None:
            return 0.0
        bucket = self._bucket(user, self._per_minute, now)
        if not bucket.take(1, now):
            return max(0.0, bucket.when(now) - now)
        if self.others is not None:
            self.others(user)
        return 0.0

    def taken_elsewhere(self, user: str, now: float) -> None:
        """Another worker has let this user start. If both did at once, the user waits longer for the next one."""
        if self._per_minute is not None:
            self._bucket(user, self._per_minute, now).charge(now)

    def _bucket(self, user: str, per_minute: int, now: float) -> TokenBucket:
        if len(self._buckets) >= self._most:
            self._buckets = {name: one for name, one in self._buckets.items() if name == user or not one.full(now)}
            self._most = max(100, 2 * len(self._buckets))
        bucket = self._buckets.get(user)
        if bucket is None:
            bucket = self._buckets[user] = TokenBucket(per_minute / 60, per_minute, now)
        return bucket


def share(limits: Limits, worker: int, workers: int) -> Limits:
    """Return the limits of one of several workers of a gateway.

    The places of connections without a login are divided, at least one for each, so that all workers together give
    strangers no more than one process would. All other limits are counted over all workers, or by the provider.
    """

    def part(whole: int) -> int:
        return max(1, whole // workers + (worker < whole % workers))

    return replace(
        limits,
        unauthenticated=part(limits.unauthenticated),
        unauthenticated_per_source=part(limits.unauthenticated_per_source),
        unauthenticated_per_network=part(limits.unauthenticated_per_network),
    )


def admit_sandbox(
    limits: Limits,
    starts: Starts | None,
    user: str,
    own: int,
    in_use: int,
    owned_by_group: Callable[[tuple[str, ...]], int],
    now: float,
) -> None:
    """Admit one more sandbox of this user, whichever provider makes it. Takes one of the user's starts.

    Args:
        starts: ``None``: the login has taken one already.
        own: The user's sandboxes in use.
        in_use: The sandboxes in use of all users.
        owned_by_group: Those of the users whose name matches one of these patterns.
        now: Monotonic seconds.

    Raises:
        LimitReached: a limit of the user, of one of the user's groups or of all sandboxes is reached. Nothing is
            taken then.
    """
    if own >= limits.sandboxes_per_user:
        raise LimitReached(
            f"you have {own} of {limits.sandboxes_per_user} sandboxes; end a session, or a named sandbox with "
            "`ssh -s USER=NAME@HOST end`, and try again, or ask your operator for more (limits.sandboxes_per_user)."
        )
    for name, group in limits.groups.items():
        if matches(user, group.users):
            members = owned_by_group(group.users)
            if members >= group.sandboxes:
                raise LimitReached(
                    f"your group {name!r} has {members} of {group.sandboxes} sandboxes; try again when one has ended, "
                    f"or ask your operator for more (limits.groups.{name})."
                )
    if in_use >= limits.sandboxes:
        raise LimitReached(
            f"all {limits.sandboxes} sandboxes are in use; try again later, or ask your operator for more "
            "(limits.sandboxes)."
        )
    wait = 0.0 if starts is None else starts.take(user, now)
    if wait:
        raise LimitReached(
            f"you have started {limits.starts_per_minute} sandboxes within a minute; try again in "
            f"{f'{wait:.0f} s' if wait >= 1 else 'a moment'} (limits.starts_per_minute)."
        )
