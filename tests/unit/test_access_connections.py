"""How many connections there may be at one door, who makes room for whom, and what failures cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from sshgate.access.connections import (
    BURST_SECONDS,
    LEAVING_SECONDS,
    Connections,
    ConnectionSlot,
    Offence,
    PenaltyTable,
    network_of,
    origin_of,
)
from sshgate.config.model import Limits, Penalties
from sshgate.errors import LimitReached

HERE, THERE = "192.0.2.1", "192.0.2.2"


@dataclass(eq=False)
class Comer:
    """A connection that has come so far, until it must make room."""

    progress: int = 0
    cut: bool = False
    seconds: float = 0.0

    def make_room(self, seconds: float) -> None:
        self.cut, self.seconds = True, seconds


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Gate:
    """The connections of one door under limits, and time that passes when a test says so."""

    limits: Limits
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.connections = Connections(self.limits, self.clock)

    def come(self, source: str = HERE, progress: int = 0) -> Comer:
        comer = Comer(progress)
        self.connections.connect(source, comer)
        return comer

    def fail(self, source: str = HERE, offence: Offence = Offence.AUTHFAIL) -> None:
        place = self.connections.connect(source, Comer())
        place.failed(offence)
        place.release()


def test_when_full_the_oldest_makes_room_and_nobody_is_refused() -> None:
    gate = Gate(Limits(unauthenticated=3))
    comers = [gate.come(f"192.0.2.{number}") for number in range(5)]
    assert [comer.cut for comer in comers] == [True, True, False, False, False]
    assert (gate.connections.unauthenticated, gate.connections.total) == (3, 5)


def test_who_has_lost_its_place_may_log_in_for_a_moment_and_no_more_may_than_there_are_places() -> None:
    gate = Gate(Limits(unauthenticated=2))
    places = [gate.connections.connect(HERE, Comer()) for _ in range(6)]
    given = [place.entrant.seconds for place in places if isinstance(place.entrant, Comer)]
    assert given == [0.0, 0.0, LEAVING_SECONDS, LEAVING_SECONDS, 0.0, 0.0]
    assert [place.entrant.cut for place in places if isinstance(place.entrant, Comer)] == [True] * 4 + [False] * 2
    places[2].authenticated("alice")
    assert (gate.connections.unauthenticated, gate.connections.total) == (2, 6)
    for place in places:
        place.release()
    assert repr(gate.connections).startswith("<Connections 0, 0/2 not logged in from 0 sources")


def test_who_has_come_far_stays_before_who_is_silent() -> None:
    gate = Gate(Limits(unauthenticated=2))
    far, silent = gate.come(progress=2), gate.come(THERE)
    gate.come("192.0.2.3")
    assert (far.cut, silent.cut) == (False, True)


def test_a_source_that_holds_many_places_makes_room_for_one_that_holds_few() -> None:
    gate = Gate(Limits(unauthenticated=4))
    lonely = gate.come(THERE)
    crowd = [gate.come() for _ in range(3)]
    gate.come("192.0.2.3")
    assert not lonely.cut
    assert [comer.cut for comer in crowd] == [True, False, False]


def test_silent_ones_of_one_address_go_when_they_linger_and_a_burst_is_none() -> None:
    gate = Gate(Limits(unauthenticated_per_source=10))
    burst = [gate.come() for _ in range(30)]
    assert not any(comer.cut for comer in burst)
    gate.clock.now += BURST_SECONDS
    later = [gate.come(progress=1) for _ in range(3)]
    assert [comer.cut for comer in burst] == [True] * 3 + [False] * 27
    assert not any(comer.cut for comer in later)


def test_an_ipv6_network_has_a_bound_of_its_own() -> None:
    gate = Gate(Limits(unauthenticated_per_network=3))
    comers = [gate.come(f"2001:db8:1:{number}::1") for number in range(5)]
    assert [comer.cut for comer in comers] == [True, True, False, False, False]
    assert not gate.come("2001:db8:2::1").cut
    # An IPv4 address has no network that one customer has: thirty logins at once are no more than that.
    assert not any(gate.come().cut for _ in range(30))


def test_who_has_logged_in_is_counted_by_user_and_not_among_strangers() -> None:
    gate = Gate(Limits(connections_per_source=2, unauthenticated=1))
    places = []
    for user in ("alice", "alice", "bob"):
        places.append(gate.connections.connect(HERE, Comer()))
        places[-1].authenticated(user)
    assert gate.connections.unauthenticated == 0
    third = gate.connections.connect(HERE, Comer())
    with pytest.raises(
        LimitReached, match=r"already 2 connections from 192\.0\.2\.1: end one, .*connections_per_source"
    ):
        third.authenticated("alice")
    elsewhere = gate.connections.connect(THERE, Comer())
    elsewhere.authenticated("alice")
    third.release()
    places[0].release()
    gate.connections.connect(HERE, Comer()).authenticated("alice")
    assert gate.connections.total == 4


def test_failures_add_up_to_a_refusal_that_ends() -> None:
    gate = Gate(Limits(penalty_exempt=()))
    for _ in range(3):
        gate.fail()
    with pytest.raises(LimitReached, match=r"from 192\.0\.2\.1 ended without a login; try again in 16 s"):
        gate.come()
    assert not gate.come(THERE).cut
    gate.clock.now += 15.0
    gate.come()
    gate.fail()
    gate.come()


def test_a_debt_has_an_end_and_goes_with_a_login() -> None:
    gate = Gate(Limits(penalty_exempt=()))
    for _ in range(2):
        gate.fail()
    gate.connections.connect(HERE, Comer()).authenticated("alice")
    gate.fail()
    # Somebody is logged in from there: a neighbour's wrong keys do not shut that address.
    for _ in range(1000):
        gate.fail()
    ledger = PenaltyTable(gate.clock)
    for _ in range(1000):
        ledger.charge(HERE, Offence.CRASH, Penalties())
    assert ledger.wait(HERE) == 601


@pytest.mark.parametrize("source", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "198.51.100.7"])
def test_exempt_networks_pay_nothing(source: str) -> None:
    gate = Gate(Limits(penalty_exempt=("127.0.0.0/8", "::1", "198.51.100.0/24")))
    for _ in range(100):
        gate.fail(source)


def test_without_penalties_nobody_pays() -> None:
    gate = Gate(Limits(penalties=None, penalty_exempt=()))
    for _ in range(100):
        gate.fail()


def test_the_table_of_debts_is_bounded() -> None:
    clock = Clock()
    ledger = PenaltyTable(clock)
    for number in range(300):
        ledger.charge(f"10.0.{number // 256}.{number % 256}", Offence.CRASH, Penalties(sources=100))
    assert repr(ledger) == "<PenaltyTable 100 sources>"
    clock.now += 1000
    for number in range(100):
        ledger.charge(f"10.1.0.{number}", Offence.NOAUTH, Penalties(sources=100))
    assert ledger.wait("10.0.1.43") == 0


@pytest.mark.parametrize(
    ("source", "origin", "network"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
        ("::1", "::/64", "::/48"),
        ("unix", "unix", "unix"),
        ("", "", ""),
    ],
)
def test_sources_are_counted_by_what_one_host_has(source: str, origin: str, network: str) -> None:
    assert (origin_of(source), network_of(source)) == (origin, network)


def test_nothing_is_kept_of_those_who_left() -> None:
    gate = Gate(Limits())
    for number in range(256):
        place = gate.connections.connect(f"192.0.2.{number}", Comer())
        if number % 2:
            place.authenticated("alice")
        place.release()
        place.release()
    assert repr(gate.connections) == "<Connections 0, 0/100 not logged in from 0 sources, <PenaltyTable 0 sources>>"


class Counting(RuleBasedStateMachine):
    """Whatever happens in whatever order, the counts are those of the places that are held, and no bound is passed."""

    places: Bundle[ConnectionSlot] = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(Limits(connections_per_source=3, unauthenticated=4, unauthenticated_per_source=2))
        self.waiting: dict[ConnectionSlot, Comer] = {}
        self.known: set[ConnectionSlot] = set()

    @rule(
        target=places,
        source=st.sampled_from([HERE, THERE, "2001:db8::1", "2001:db8::2"]),
        progress=st.integers(0, 3),
        seconds=st.sampled_from([0.0, 4.0, 20.0]),
    )
    def connect(self, source: str, progress: int, seconds: float) -> ConnectionSlot:
        self.gate.clock.now += seconds
        comer = Comer(progress)
        place = self.gate.connections.connect(source, comer)
        self.waiting[place] = comer
        assert not comer.cut
        return place

    @rule(place=places, user=st.sampled_from(["a", "b"]))
    def authenticate(self, place: ConnectionSlot, user: str) -> None:
        try:
            place.authenticated(user)
        except LimitReached:
            return
        if self.waiting.pop(place, None) is not None:
            self.known.add(place)

    @rule(place=places)
    def leave(self, place: ConnectionSlot) -> None:
        place.release()
        self.waiting.pop(place, None)
        self.known.discard(place)

    @invariant()
    def counts(self) -> None:
        waiting = [place for place, comer in self.waiting.items() if not comer.cut]
        counted = (self.gate.connections.total, self.gate.connections.unauthenticated)
        assert counted == (len(self.waiting) + len(self.known), len(waiting))
        assert len(waiting) <= 4


TestCounting = Counting.TestCase


class Worker:
    """One of two workers whose connections are counted together."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.connections = Connections(limits, clock)
        self.other: Worker | None = None
        self.connections.others = self

    def counted(self, user: str, origin: str, number: int) -> None:
        assert self.other is not None
        self.other.connections.counted_elsewhere(0, user, origin, number)

    def charged(self, origin: str, offence: Offence) -> None:
        assert self.other is not None
        self.other.connections.charged_elsewhere(origin, offence)


def pair(limits: Limits) -> tuple[Connections, Connections, Clock]:
    clock = Clock()
    first, second = Worker(limits, clock), Worker(limits, clock)
    first.other, second.other = second, first
    return first.connections, second.connections, clock


def test_what_a_source_owes_is_the_sum_over_all_workers() -> None:
    first, second, clock = pair(Limits(penalties=Penalties(authfail=5, min=15), penalty_exempt=()))
    for at in (first, second, first):
        place = at.connect(HERE, Comer())
        place.failed(Offence.AUTHFAIL)
        place.release()
    for at in (first, second):
        with pytest.raises(LimitReached, match="try again in"):
            at.connect(HERE, Comer())
        at.connect(THERE, Comer())
    clock.now += 16
    second.connect(HERE, Comer())


def test_somebody_who_is_logged_in_at_another_worker_pardons_the_source() -> None:
    first, second, _ = pair(Limits(penalties=Penalties(authfail=20, min=15), penalty_exempt=()))
    inside = first.connect(HERE, Comer())
    inside.authenticated("ann")
    second.connect(HERE, Comer()).failed(Offence.AUTHFAIL)
    second.connect(HERE, Comer())
    inside.release()
    with pytest.raises(LimitReached):
        second.connect(HERE, Comer())


def test_a_users_connections_are_counted_over_all_workers_that_live() -> None:
    first, second, _ = pair(Limits(connections_per_source=2))
    for at in (first, second):
        at.connect(HERE, Comer()).authenticated("ann")
    third = second.connect(HERE, Comer())
    with pytest.raises(LimitReached, match="2 connections"):
        third.authenticated("ann")
    third.authenticated("bob")
    second.forget_worker(0)
    second.connect(HERE, Comer()).authenticated("ann")
    assert not second._elsewhere.get(0)
    assert not second._known_elsewhere
