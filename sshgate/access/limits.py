"""Admission: limits on connections and sandboxes. Synchronous bookkeeping, no I/O."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from fnmatch import fnmatchcase

from sshgate.access.connections import Connections
from sshgate.config.model import Limits
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
        self._groups: Counter[str] = Counter()
        self._starts: dict[str, deque[float]] = {}
        self._now = now

    def __repr__(self) -> str:
        return f"<Admission ssh: {self.ssh!r}, web: {self.web!r}, {self.sandboxes}/{self.limits.sandboxes} sandboxes>"

    @property
    def limits(self) -> Limits:
        """The limits in force. A new value applies to later connections and sandboxes; nothing open is closed."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
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
        limits = self.limits
        if self._users[user] >= limits.sandboxes_per_user:
            raise LimitReached(
                f"you have {self._users[user]} of {limits.sandboxes_per_user} sandboxes in use; "
                "end a session and try again, or ask your operator for more (limits.sandboxes_per_user)."
            )
        if self.sandboxes >= limits.sandboxes:
            raise LimitReached(
                f"all {limits.sandboxes} sandboxes of this gateway are in use; "
                "try again later or ask your operator for more (limits.sandboxes)."
            )
        groups = [name for name, group in limits.groups.items() if any(fnmatchcase(user, p) for p in group.users)]
        for name in groups:
            if self._groups[name] >= limits.groups[name].sandboxes:
                raise LimitReached(
                    f"your group {name!r} has all of its {limits.groups[name].sandboxes} sandboxes in use; "
                    f"try again when somebody has left (limits.groups.{name})."
                )
        self._pace(user)
        self.sandboxes += 1
        for counter, keys in ((self._users, [user]), (self._groups, groups)):
            counter.update(keys)

        def release() -> None:
            self.sandboxes -= 1
            _take_one(self._users, user)
            for name in groups:
                _take_one(self._groups, name)

        return Slot(release)

    def _pace(self, user: str) -> None:
        """Count one start by this user. Raises ``LimitReached`` after too many within a minute."""
        most = self.limits.starts_per_minute
        if most is None:
            return
        now = self._now()
        for idle in [name for name, starts in self._starts.items() if starts[-1] <= now - 60]:
            del self._starts[idle]
        starts = self._starts.setdefault(user, deque())
        while starts and starts[0] <= now - 60:
            starts.popleft()
        if len(starts) >= most:
            wait = int(starts[0] + 60 - now) + 1
            raise LimitReached(
                f"you have started {most} sandboxes within a minute; try again in {wait} s (limits.starts_per_minute)."
            )
        starts.append(now)


def _take_one(counter: Counter[str], key: str) -> None:
    """Subtract one and drop keys that reach zero, so the counter does not grow beyond what is open."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
