"""The connection limits of one front end, and which connection is evicted to make room. Synchronous bookkeeping.

A connection that has not logged in keeps its place only until another needs it. When places run out, the one with the
least progress is evicted; among equals the one whose source holds most places, then the oldest. So idle connections
lock nobody out, whether they come from one address or from many. Logged-in connections are counted separately, by
user and source.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv6Address, ip_network
from typing import Protocol, TypeVar

from sshgate.access.identity import comes_from
from sshgate.config.model import Limits, Penalties
from sshgate.config.values import ip_of
from sshgate.errors import LimitReached

# The limit per source evicts only connections older than this, so that a burst of quick logins is not cut.
BURST_SECONDS = 10.0
# An evicted connection may still log in for this long. At most `limits.unauthenticated` connections have this grace.
LEAVING_SECONDS = 2.0
K = TypeVar("K")

MADE_ROOM = "others needed the place of a connection that had not logged in (limits.unauthenticated*)"


class Offence(StrEnum):
    """How a connection ended without a login. The values name the fields of ``config.model.Penalties``."""

    AUTHFAIL = "authfail"
    NOAUTH = "noauth"
    GRACE_EXCEEDED = "grace_exceeded"
    CRASH = "crash"


class PenaltyTable:
    """The debt of each source in seconds, which decreases with time, as OpenSSH's PerSourcePenalties.

    A source whose debt reaches ``Penalties.min`` is refused until nothing is left of it. ``now`` is a monotonic
    clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, float] = {}
        self._refused: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<PenaltyTable {len(self._until)} sources>"

    def charge(self, origin: str, offence: Offence, prices: Penalties) -> None:
        """Add the price of one more failed connection to the debt of this source, up to ``prices.max``."""
        now = self._now()
        self._forget(now)
        price: float = getattr(prices, offence.value)
        until = min(max(self._until.get(origin, now), now) + price, now + prices.max)
        if origin not in self._until and len(self._until) >= prices.sources:
            # As OpenSSH's "permissive" overflow mode: forget a source instead of refusing all new ones, so that an
            # attacker with many addresses locks nobody out.
            self.forgive(min(self._until, key=self._until.__getitem__))
        self._until[origin] = until
        if until - now >= prices.min:
            self._refused[origin] = None

    def wait(self, origin: str) -> int:
        """Return for how many whole seconds this source is still refused; 0: it is not."""
        left = self._until.get(origin, 0.0) - self._now()
        if left <= 0:
            self.forgive(origin)
            return 0
        return int(left) + 1 if origin in self._refused else 0

    def forgive(self, origin: str) -> None:
        """Cancel the debt of this source."""
        self._until.pop(origin, None)
        self._refused.pop(origin, None)

    def _forget(self, now: float) -> None:
        # Check only a few entries per call: the table may hold many thousands.
        for origin in [one for one, _ in zip(self._until, range(8), strict=False) if self._until[one] <= now]:
            self.forgive(origin)


class PendingLogin(Protocol):
    """A connection that has not logged in, as ``Connections`` sees it."""

    @property
    def progress(self) -> int:
        """How far it has come towards a login: 0 for a silent connection, then larger values. Cheap to read."""

    def make_room(self, seconds: float) -> None:
        """The connection was evicted: close it after this time unless it has logged in by then.

        May be called again, with a shorter time. Must not block.
        """


class ConnectionSlot:
    """The place of one connection. Its owner calls ``release`` when the connection has ended."""

    def __init__(self, connections: Connections, entrant: PendingLogin, source: str, since: float) -> None:
        self._connections = connections
        self.entrant = entrant
        self.source = source
        self.origin = origin_of(source)
        self.network = network_of(source)
        self.since = since
        self.user: str | None = None
        self._held = True

    def __repr__(self) -> str:
        state = "released" if not self._held else "waiting" if self.user is None else f"held by {self.user}"
        return f"<ConnectionSlot of {self.origin}, {state}>"

    def authenticated(self, user: str) -> None:
        """Report that the connection has logged in. Only the first call counts, and none after ``release``.

        Raises:
            LimitReached: the user has ``limits.connections_per_source`` connections from this source already. The
                connection still counts as not logged in.
        """
        if self._held and self.user is None:
            self._connections.authenticated(self, user)
            self.user = user

    def failed(self, offence: Offence) -> None:
        """Report that the connection ended without a login, and charge its source where penalties apply.

        Does not release the place.
        """
        self._connections.failed(self, offence)

    def release(self) -> None:
        """Stop counting the connection. Idempotent."""
        if self._held:
            self._held = False
            self._connections.left(self)


class Others(Protocol):
    """The other workers of the same gateway. Methods return at once."""

    def counted(self, user: str, origin: str, number: int) -> None:
        """Report that this worker now has ``number`` connections of ``user`` from the source ``origin``."""

    def charged(self, origin: str, offence: Offence) -> None:
        """Report that a connection from the source ``origin`` ended without a login, to be penalized as ``offence``."""


class Connections:
    """Counts the connections of one front end. ``now`` is a monotonic clock in seconds.

    Of a gateway with several workers each has one. They share what sources owe and how many connections users have
    (``others``, and the methods ``..._elsewhere``). The places of connections that have not logged in are divided
    between them: see ``access.limits.share``.
    """

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.total = 0
        self._now = now
        self._waiting: dict[ConnectionSlot, None] = {}
        self._leaving: dict[ConnectionSlot, None] = {}
        self._origins: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()
        self._users: Counter[tuple[str, str]] = Counter()
        self._known: Counter[str] = Counter()
        self._penalties = PenaltyTable(now)
        self.others: Others | None = None
        self._elsewhere: dict[int, Counter[tuple[str, str]]] = {}
        self._known_elsewhere: Counter[str] = Counter()

    def __repr__(self) -> str:
        return (
            f"<Connections {self.total}, {self.unauthenticated}/{self.limits.unauthenticated} not logged in "
            f"from {len(self._origins)} sources, {self._penalties!r}>"
        )

    @property
    def unauthenticated(self) -> int:
        """Connections that hold a place and have not logged in; evicted ones are not counted."""
        return len(self._waiting)

    def connect(self, source: str, entrant: PendingLogin) -> ConnectionSlot:
        """Give a new connection a place, evicting another connection if necessary.

        IPv6 addresses of one /64 count as one source, because a single host usually has all of them.

        Args:
            source: the client's address.
            entrant: the connection; it may be evicted until it has logged in.

        Raises:
            LimitReached: the source must wait for its penalty to run out.
        """
        place = ConnectionSlot(self, entrant, source, self._now())
        self._check_penalty(place.origin, source)
        self._make_room(place)
        self.total += 1
        self._waiting[place] = None
        self._origins[place.origin] += 1
        self._networks[place.network] += 1
        return place

    def _check_penalty(self, origin: str, source: str) -> None:
        # While somebody is logged in from this source, penalties are waived: others behind the same NAT must not be
        # locked out by failures that are not theirs.
        wait = self._penalties.wait(origin)
        if (
            wait and self.limits.penalties is not None and not self._is_exempt(source)
            and not self._known[origin] and not self._known_elsewhere[origin]
        ):  # fmt: skip
            raise LimitReached(
                f"too many connections from {origin} ended without a login; try again in {wait} s (limits.penalties)."
            )

    def _make_room(self, place: ConnectionSlot) -> None:
        limits = self.limits
        if self._origins[place.origin] >= limits.unauthenticated_per_source:
            long_ago = place.since - BURST_SECONDS
            self._shed([one for one in self._waiting if one.origin == place.origin and one.since <= long_ago])
        if place.network != place.origin and self._networks[place.network] >= limits.unauthenticated_per_network:
            self._shed([one for one in self._waiting if one.network == place.network])
        if len(self._waiting) >= limits.unauthenticated:
            self._shed(list(self._waiting))

    def _shed(self, candidates: list[ConnectionSlot]) -> None:
        if candidates:
            # Candidates are in order of arrival and ``min`` takes the first of equals: the oldest.
            chosen = min(candidates, key=lambda one: (one.entrant.progress, -self._origins[one.origin]))
            self._no_longer_waits(chosen)
            # A client that is cut at once would reconnect at once; and one about to log in may still finish.
            self._leaving[chosen] = None
            chosen.entrant.make_room(LEAVING_SECONDS)
            if len(self._leaving) > self.limits.unauthenticated:
                longest = next(iter(self._leaving))
                del self._leaving[longest]
                longest.entrant.make_room(0.0)

    # --- called by places ---

    def authenticated(self, place: ConnectionSlot, user: str) -> None:
        most = self.limits.connections_per_source
        if self._users[user, place.origin] + sum(at[user, place.origin] for at in self._elsewhere.values()) >= most:
            raise LimitReached(
                f"you have already {most} connections from {place.origin}: end one, or ask your operator for more "
                "(limits.connections_per_source)."
            )
        self._no_longer_waits(place)
        self._penalties.forgive(place.origin)
        self._users[user, place.origin] += 1
        self._known[place.origin] += 1
        self._publish(user, place.origin)

    def failed(self, place: ConnectionSlot, offence: Offence) -> None:
        if self.limits.penalties is not None and not self._is_exempt(place.source):
            self._penalties.charge(place.origin, offence, self.limits.penalties)
            if self.others is not None:
                self.others.charged(place.origin, offence)

    def left(self, place: ConnectionSlot) -> None:
        self.total -= 1
        if place.user is None:
            self._no_longer_waits(place)
        else:
            take_one(self._users, (place.user, place.origin))
            take_one(self._known, place.origin)
            self._publish(place.user, place.origin)

    # --- other workers ---

    def counted_elsewhere(self, worker: int, user: str, origin: str, number: int) -> None:
        """Another worker has so many connections of this user from this source."""
        counts = self._elsewhere.setdefault(worker, Counter())
        if number > counts[user, origin]:
            self._penalties.forgive(origin)
        self._known_elsewhere[origin] += number - counts[user, origin]
        counts[user, origin] = number
        if not number:
            del counts[user, origin]
        if not self._known_elsewhere[origin]:
            del self._known_elsewhere[origin]

    def charged_elsewhere(self, origin: str, offence: Offence) -> None:
        """A connection of this source has ended without a login at another worker."""
        if self.limits.penalties is not None:
            self._penalties.charge(origin, offence, self.limits.penalties)

    def forget_worker(self, worker: int) -> None:
        """Another worker has ended, and its connections with it."""
        for user, origin in list(self._elsewhere.get(worker, ())):
            self.counted_elsewhere(worker, user, origin, 0)

    def _publish(self, user: str, origin: str) -> None:
        if self.others is not None:
            self.others.counted(user, origin, self._users[user, origin])

    def _no_longer_waits(self, place: ConnectionSlot) -> None:
        self._leaving.pop(place, None)
        if self._waiting.pop(place, place) is None:
            take_one(self._origins, place.origin)
            take_one(self._networks, place.network)

    def _is_exempt(self, source: str) -> bool:
        return comes_from(source, self.limits.penalty_exempt)


def origin_of(source: str) -> str:
    """Return the key that limits per source use: an IPv4 address, the /64 of an IPv6 address, else the text itself."""
    return _prefix(source, 64)


def network_of(source: str) -> str:
    """Return the key of limits per network: the /48 of an IPv6 address, which one customer may have.

    For IPv4 it equals ``origin_of``.
    """
    return _prefix(source, 48)


def _prefix(source: str, bits: int) -> str:
    address = ip_of(source)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, bits), strict=False))
    return source if address is None else str(address)


def take_one(counter: Counter[K], key: K) -> None:
    """Subtract one and drop keys that reach zero, so the counter does not grow beyond what is open."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
