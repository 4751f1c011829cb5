"""How many connections there may be at one door, and which of them go to make room. Synchronous bookkeeping.

Who has not logged in holds a place only as long as nobody else needs it: where places are short the one that has
come least far goes, among those the one whose source holds most, among those the oldest. So silence shuts nobody out,
neither from everywhere nor from one address. Who has logged in is counted apart, by user.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol, TypeVar

from sshgate.access.penalties import Ledger, Offence
from sshgate.config.model import Limits
from sshgate.errors import LimitReached

# A burst of logins from one address is none of a source that lingers: so long each may take.
BURST_SECONDS = 10.0
# Who has lost its place may still log in for so long; as many as there are places.
LEAVING_SECONDS = 2.0
K = TypeVar("K")

MADE_ROOM = "others needed the place of a connection that had not logged in"


class Entrant(Protocol):
    """A connection that has not logged in, as far as it matters for its place."""

    @property
    def progress(self) -> int:
        """How far it has come; 0: it has said nothing."""

    def make_room(self, seconds: float) -> None:
        """Somebody else has its place: end it after so many seconds, if it has not logged in by then."""


class Place:
    """One connection's place. Its holder releases it, once or more often."""

    def __init__(self, connections: Connections, entrant: Entrant, source: str, since: float) -> None:
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
        return f"<Place of {self.origin}, {state}>"

    def authenticated(self, user: str) -> None:
        """The connection has logged in. Raises ``LimitReached`` where this user has too many there already."""
        if self._held and self.user is None:
            self._connections.authenticated(self, user)
            self.user = user

    def failed(self, offence: Offence) -> None:
        """The connection has ended without a login."""
        self._connections.failed(self, offence)

    def release(self) -> None:
        """Give it back. May be called again."""
        if self._held:
            self._held = False
            self._connections.left(self)


class Connections:
    """Counts the connections of one door."""

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.total = 0
        self._now = now
        self._waiting: dict[Place, None] = {}
        self._leaving: dict[Place, None] = {}
        self._origins: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()
        self._users: Counter[tuple[str, str]] = Counter()
        self._known: Counter[str] = Counter()
        self._ledger = Ledger(now)

    def __repr__(self) -> str:
        return (
            f"<Connections {self.total}, {self.unauthenticated}/{self.limits.unauthenticated} not logged in "
            f"from {len(self._origins)} sources, {self._ledger!r}>"
        )

    @property
    def unauthenticated(self) -> int:
        """Those that have not logged in."""
        return len(self._waiting)

    def connect(self, source: str, entrant: Entrant) -> Place:
        """A place for a connection from this address, if need be another's. Raises ``LimitReached``.

        IPv6 addresses of one /64 are one source: a single host usually has all of them.
        """
        place = Place(self, entrant, source, self._now())
        self._check_penalty(place.origin, source)
        self._make_room(place)
        self.total += 1
        self._waiting[place] = None
        self._origins[place.origin] += 1
        self._networks[place.network] += 1
        return place

    def _check_penalty(self, origin: str, source: str) -> None:
        # Where somebody is logged in, strangers behind the same address translation must not shut the others out.
        wait = self._ledger.wait(origin)
        if wait and self.limits.penalties is not None and not self._known[origin] and not self._is_exempt(source):
            raise LimitReached(f"too many connections from {origin} ended without a login; try again in {wait} s.")

    def _make_room(self, place: Place) -> None:
        limits = self.limits
        if self._origins[place.origin] >= limits.unauthenticated_per_source:
            long_ago = place.since - BURST_SECONDS
            self._shed([one for one in self._waiting if one.origin == place.origin and one.since <= long_ago])
        if place.network != place.origin and self._networks[place.network] >= limits.unauthenticated_per_network:
            self._shed([one for one in self._waiting if one.network == place.network])
        if len(self._waiting) >= limits.unauthenticated:
            self._shed(list(self._waiting))

    def _shed(self, candidates: list[Place]) -> None:
        if candidates:
            # Of equals ``min`` takes the first, and they stand in the order of their coming.
            chosen = min(candidates, key=lambda one: (one.entrant.progress, -self._origins[one.origin]))
            self._no_longer_waits(chosen)
            # Cut at once it would only come again at once; and who is about to log in may get there.
            self._leaving[chosen] = None
            chosen.entrant.make_room(LEAVING_SECONDS)
            if len(self._leaving) > self.limits.unauthenticated:
                longest = next(iter(self._leaving))
                del self._leaving[longest]
                longest.entrant.make_room(0.0)

    # --- what places tell ---

    def authenticated(self, place: Place, user: str) -> None:
        """One has logged in. Raises ``LimitReached``."""
        most = self.limits.connections_per_source
        if self._users[user, place.origin] >= most:
            raise LimitReached(
                f"you have already {most} connections from {place.origin}: end one, or ask your operator for more "
                "(limits.connections_per_source)."
            )
        self._no_longer_waits(place)
        self._ledger.forgive(place.origin)
        self._users[user, place.origin] += 1
        self._known[place.origin] += 1

    def failed(self, place: Place, offence: Offence) -> None:
        """One has ended without a login."""
        if self.limits.penalties is not None and not self._is_exempt(place.source):
            self._ledger.charge(place.origin, offence, self.limits.penalties)

    def left(self, place: Place) -> None:
        """One has ended."""
        self.total -= 1
        if place.user is None:
            self._no_longer_waits(place)
        else:
            _take_one(self._users, (place.user, place.origin))
            _take_one(self._known, place.origin)

    def _no_longer_waits(self, place: Place) -> None:
        self._leaving.pop(place, None)
        if self._waiting.pop(place, place) is None:
            _take_one(self._origins, place.origin)
            _take_one(self._networks, place.network)

    def _is_exempt(self, source: str) -> bool:
        address = _address(source)
        return address is not None and any(address in ip_network(text) for text in self.limits.penalty_exempt)


def origin_of(source: str) -> str:
    """What connections are counted by: an IPv4 address, the /64 of an IPv6 address, else the text itself."""
    return _prefix(source, 64)


def network_of(source: str) -> str:
    """The same by what a provider gives one customer: the /48 of an IPv6 address; IPv4 addresses have none."""
    return _prefix(source, 48)


def _prefix(source: str, bits: int) -> str:
    address = _address(source)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, bits), strict=False))
    return source if address is None else str(address)


def _address(source: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _take_one(counter: Counter[K], key: K) -> None:
    """Keys with nothing left are dropped, so that the counter is as large as what is open."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
