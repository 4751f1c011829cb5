"""How many connections and sandboxes there may be."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sshgate.access.limits import Admission, Slot, origin_of
from sshgate.config import Group, Limits
from sshgate.errors import LimitReached


def test_connections_from_one_address_are_limited() -> None:
    admission = Admission(Limits(connections_per_source=2))
    first = admission.connect("192.0.2.1")
    admission.connect("192.0.2.1")
    with pytest.raises(LimitReached, match=r"already 2 connections from 192\.0\.2\.1; close one"):
        admission.connect("192.0.2.1")
    admission.connect("192.0.2.2")
    first.release()
    admission.connect("192.0.2.1")


def test_unauthenticated_connections_are_limited_over_all() -> None:
    admission = Admission(Limits(unauthenticated=2))
    first = admission.connect("192.0.2.1")
    second = admission.connect("192.0.2.2")
    with pytest.raises(LimitReached, match="too many logins are under way"):
        admission.connect("192.0.2.3")
    first.authenticated()
    admission.connect("192.0.2.3")
    with pytest.raises(LimitReached):
        admission.connect("192.0.2.4")
    second.release()
    admission.connect("192.0.2.4")


@pytest.mark.parametrize("order", [("authenticated", "release"), ("release", "authenticated"), ("release", "release")])
def test_a_slot_counts_once_however_it_is_given_back(order: tuple[str, ...]) -> None:
    admission = Admission(Limits())
    kept = admission.connect("192.0.2.1")
    slot = admission.connect("192.0.2.1")
    for step in (*order, *order):
        getattr(slot, step)()
    assert (admission.connections, admission.unauthenticated) == (1, 1)
    assert repr(slot) == "<Slot released>"
    assert repr(kept) == "<Slot held>"


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_sources_are_counted_by_what_one_host_has(source: str, origin: str) -> None:
    assert origin_of(source) == origin


def test_sandboxes_of_a_user_and_in_all() -> None:
    admission = Admission(Limits(sandboxes_per_user=2, sandboxes=3))
    first = admission.sandbox("alice")
    admission.sandbox("alice")
    with pytest.raises(LimitReached, match="you have 2 of 2 sandboxes in use; end a session"):
        admission.sandbox("alice")
    admission.sandbox("bob")
    with pytest.raises(LimitReached, match="all 3 sandboxes of this gateway are in use"):
        admission.sandbox("bob")
    first.release()
    first.release()
    admission.sandbox("bob")
    assert admission.sandboxes == 3


def test_its_repr_is_a_status_line() -> None:
    admission = Admission(Limits(unauthenticated=9, sandboxes=8))
    admission.connect("192.0.2.1").authenticated()
    admission.connect("192.0.2.2")
    admission.sandbox("a")
    assert repr(admission) == "<Admission 2 connections from 2 sources, 1/9 unauthenticated, 1/8 sandboxes>"


def test_nothing_is_kept_of_those_who_left() -> None:
    admission = Admission(Limits(connections_per_source=1))
    for number in range(256):
        admission.connect(f"192.0.2.{number}").release()
    assert repr(admission).startswith("<Admission 0 connections from 0 sources")


class Counting(RuleBasedStateMachine):
    """Whatever happens in whatever order, the counts are those of the slots that are held."""

    connected: Bundle[Slot] = Bundle("connected")
    sandboxes: Bundle[Slot] = Bundle("sandboxes")

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(Limits(3, 5, connections_per_source=3, unauthenticated=4))
        self.held: dict[Slot, str] = {}
        self.waiting: set[Slot] = set()
        self.made: dict[Slot, str] = {}

    @rule(target=connected, source=st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]))
    def connect(self, source: str) -> Slot:
        origin = origin_of(source)
        full = list(self.held.values()).count(origin) >= 3 or len(self.waiting) >= 4
        try:
            slot = self.admission.connect(source)
        except LimitReached:
            assert full
            return Slot(lambda: None, lambda: None)
        assert not full
        self.held[slot] = origin
        self.waiting.add(slot)
        return slot

    @rule(slot=connected)
    def authenticate(self, slot: Slot) -> None:
        slot.authenticated()
        self.waiting.discard(slot)

    @rule(slot=connected)
    def leave(self, slot: Slot) -> None:
        slot.release()
        self.held.pop(slot, None)
        self.waiting.discard(slot)

    @rule(target=sandboxes, user=st.sampled_from(["a", "b"]))
    def sandbox(self, user: str) -> Slot:
        full = list(self.made.values()).count(user) >= 3 or len(self.made) >= 5
        try:
            slot = self.admission.sandbox(user)
        except LimitReached:
            assert full
            return Slot(lambda: None, lambda: None)
        assert not full
        self.made[slot] = user
        return slot

    @rule(slot=consumes(sandboxes))
    def end(self, slot: Slot) -> None:
        slot.release()
        self.made.pop(slot, None)

    @invariant()
    def counts(self) -> None:
        counted = (self.admission.connections, self.admission.unauthenticated, self.admission.sandboxes)
        assert counted == (len(self.held), len(self.waiting), len(self.made))


TestCounting = Counting.TestCase


def test_a_group_shares_a_limit() -> None:
    admission = Admission(Limits(groups={"students": Group(users=("s-*",), sandboxes=2)}))
    first = admission.sandbox("s-anna")
    admission.sandbox("s-ben")
    with pytest.raises(LimitReached, match="your group 'students'"):
        admission.sandbox("s-cleo")
    admission.sandbox("teacher")
    first.release()
    admission.sandbox("s-cleo")


def test_starts_are_counted_over_a_minute() -> None:
    time = [0.0]
    admission = Admission(Limits(starts_per_minute=2), lambda: time[0])
    for _ in range(2):
        admission.sandbox("dev").release()
    with pytest.raises(LimitReached, match="try again in 6"):
        admission.sandbox("dev")
    admission.sandbox("other").release()
    time[0] = 60.0
    admission.sandbox("dev").release()
