"""How many connections and sandboxes there may be: admission. Pure bookkeeping, synchronous."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from fnmatch import fnmatchcase
from ipaddress import IPv6Address, ip_address, ip_network

from sshgate.config import Limits
from sshgate.errors import LimitReached


class Slot:
    """One admitted connection or sandbox. Whoever was given it releases it, once or more often."""

    def __init__(self, authenticated: Callable[[], None], release: Callable[[], None]) -> None:
        self._authenticated: Callable[[], None] | None = authenticated
        self._release: Callable[[], None] | None = release

    def __repr__(self) -> str:
        return f"<Slot {'released' if self._release is None else 'held'}>"

    def authenticated(self) -> None:
        """The connection has logged in: it no longer counts as unauthenticated."""
        if self._release is not None and self._authenticated is not None:
            tell, self._authenticated = self._authenticated, None
            tell()

    def release(self) -> None:
        """Give it back. May be called again."""
        if self._release is not None:
            self.authenticated()
            give, self._release = self._release, None
            give()


class Admission:
    """Counts what is open and says no where a limit is full."""

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.connections = 0
        self.unauthenticated = 0
        self.sandboxes = 0
        self._sources: Counter[str] = Counter()
        self._users: Counter[str] = Counter()
        self._groups: Counter[str] = Counter()
        self._starts: dict[str, deque[float]] = {}
        self._now = now

    def __repr__(self) -> str:
        return (
            f"<Admission {self.connections} connections from {len(self._sources)} sources, "
            f"{self.unauthenticated}/{self.limits.unauthenticated} unauthenticated, "
            f"{self.sandboxes}/{self.limits.sandboxes} sandboxes>"
        )

    def connect(self, source: str) -> Slot:
        """Admit a connection from this address. Raises ``LimitReached``.

        IPv6 addresses of one /64 count as one: a single host usually has all of them.
        """
        origin = origin_of(source)
        if self._sources[origin] >= self.limits.connections_per_source:
            raise LimitReached(
                f"there are already {self.limits.connections_per_source} connections from {origin}; "
                "close one of them and try again."
            )
        if self.unauthenticated >= self.limits.unauthenticated:
            raise LimitReached("too many logins are under way; try again in a moment.")
        self.connections += 1
        self.unauthenticated += 1
        self._sources[origin] += 1

        def authenticated() -> None:
            self.unauthenticated -= 1

        def release() -> None:
            self.connections -= 1
            _take_one(self._sources, origin)

        return Slot(authenticated, release)

    def sandbox(self, user: str) -> Slot:
        """Admit one more sandbox of this user. Raises ``LimitReached``."""
        limits = self.limits
        if self._users[user] >= limits.sandboxes_per_user:
            raise LimitReached(
                f"you have {self._users[user]} of {limits.sandboxes_per_user} sandboxes in use; "
                "end a session and try again."
            )
        if self.sandboxes >= limits.sandboxes:
            raise LimitReached(
                f"all {limits.sandboxes} sandboxes of this gateway are in use; "
                "try again later or ask your operator for more."
            )
        groups = [name for name, group in limits.groups.items() if any(fnmatchcase(user, p) for p in group.users)]
        for name in groups:
            if self._groups[name] >= limits.groups[name].sandboxes:
                raise LimitReached(
                    f"your group {name!r} has all of its {limits.groups[name].sandboxes} sandboxes in use; "
                    "try again when somebody has left."
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

        return Slot(lambda: None, release)

    def _pace(self, user: str) -> None:
        """Count one start of this user's. Raises ``LimitReached`` when there were too many within a minute."""
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
            raise LimitReached(f"you have started {most} sandboxes within a minute; try again in {wait} s.")
        starts.append(now)


def origin_of(source: str) -> str:
    """What connections are counted by: an IPv4 address, the /64 of an IPv6 address, else the text itself."""
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


def _take_one(counter: Counter[str], key: str) -> None:
    """Keys with nothing left are dropped, so that the counter is as large as what is open."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
