"""How many sandboxes there may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sshgate.access.limits import Admission, Slot, Starts, share
from sshgate.config.model import Group, Limits
from sshgate.errors import LimitReached
from sshgate.lifecycle.admission import admit
from sshgate.lifecycle.cache import PodCache
from tests.unit.lifecycle_values import at


class Claimed:
    """The other way to count: by the pods of the cluster, as the Kubernetes provider does."""

    def __init__(self, limits: Limits, now: Callable[[], float] = lambda: 0.0) -> None:
        self.limits = limits
        self._now = now
        self._starts = Starts(limits.starts_per_minute)
        self._cache = PodCache("me")
        self._number = 0

    def sandbox(self, user: str) -> Slot:
        self._number += 1
        session = f"s{self._number}"
        admit(self._cache, self.limits, self._starts, user, session, at(self._now()))
        return Slot(lambda: self._cache.end(session))


both_providers = pytest.mark.parametrize("made", [Admission, Claimed], ids=["local", "kubernetes"])
Made = type[Admission] | type[Claimed]


@both_providers
def test_sandboxes_of_a_user_and_in_all(made: Made) -> None:
    admission = made(Limits(sandboxes_per_user=2, sandboxes=3))
    first = admission.sandbox("alice")
    admission.sandbox("alice")
    with pytest.raises(LimitReached, match=r"you have 2 of 2 sandboxes; end a session, .* \(limits.sandboxes_per_user"):
        admission.sandbox("alice")
    admission.sandbox("bob")
    with pytest.raises(LimitReached, match=r"all 3 sandboxes are in use; .* \(limits.sandboxes\)"):
        admission.sandbox("bob")
    first.release()
    first.release()
    admission.sandbox("bob")


def test_its_repr_is_a_status_line() -> None:
    admission = Admission(Limits(unauthenticated=9, sandboxes=8))
    slot = admission.sandbox("a")
    assert repr(admission).endswith(" 1/8 sandboxes>")
    assert repr(slot) == "<Slot held>"
    slot.release()
    assert repr(slot) == "<Slot released>"


def test_other_limits_hold_at_every_door() -> None:
    admission = Admission(Limits())
    admission.limits = other = Limits(sandboxes=1)
    assert admission.ssh.limits is admission.web.limits is admission.limits is other


class Counting(RuleBasedStateMachine):
    """Whatever happens in whatever order, the counts are those of the slots that are held."""

    sandboxes: Bundle[Slot] = Bundle("sandboxes")

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(Limits(3, 5))
        self.made: dict[Slot, str] = {}

    @rule(target=sandboxes, user=st.sampled_from(["a", "b"]))
    def sandbox(self, user: str) -> Slot:
        full = list(self.made.values()).count(user) >= 3 or len(self.made) >= 5
        try:
            slot = self.admission.sandbox(user)
        except LimitReached:
            assert full
            return Slot(lambda: None)
        assert not full
        self.made[slot] = user
        return slot

    @rule(slot=consumes(sandboxes))
    def end(self, slot: Slot) -> None:
        slot.release()
        self.made.pop(slot, None)

    @invariant()
    def counts(self) -> None:
        assert self.admission.sandboxes == len(self.made)


TestCounting = Counting.TestCase


@both_providers
def test_a_group_shares_a_limit(made: Made) -> None:
    admission = made(Limits(groups={"students": Group(users=("s-*",), sandboxes=2)}))
    first = admission.sandbox("s-anna")
    admission.sandbox("s-ben")
    with pytest.raises(LimitReached, match=r"your group 'students' has 2 of 2 sandboxes; .* \(limits.groups.students"):
        admission.sandbox("s-cleo")
    admission.sandbox("teacher")
    first.release()
    admission.sandbox("s-cleo")


@both_providers
def test_starts_are_counted_over_a_minute_and_come_back_one_by_one(made: Made) -> None:
    time = [0.0]
    admission = made(Limits(starts_per_minute=3), lambda: time[0])
    for _ in range(3):
        admission.sandbox("dev").release()
    with pytest.raises(
        LimitReached,
        match=r"you have started 3 sandboxes within a minute; try again in 20 s \(limits.starts_per_minute\)",
    ):
        admission.sandbox("dev")
    admission.sandbox("other").release()
    time[0] = 20.1
    admission.sandbox("dev").release()
    with pytest.raises(LimitReached, match="try again in 20 s"):
        admission.sandbox("dev")


def test_what_two_workers_allow_at_once_is_paid_for_later() -> None:
    starts = Starts(6)
    assert [starts.take("eve", 0.0) for _ in range(6)] == [0.0] * 6
    starts.taken_elsewhere("eve", 0.0)
    assert starts.take("eve", 0.0) == pytest.approx(20, abs=0.1)
    assert starts.take("ada", 0.0) == 0.0
    starts.per_minute = 3
    assert starts.take("eve", 0.0) == 0.0


def test_members_that_a_group_gets_later_count_at_once() -> None:
    admission = Admission(Limits())
    admission.sandbox("s-anna")
    admission.limits = Limits(groups={"students": Group(users=("s-*",), sandboxes=1)})
    with pytest.raises(LimitReached, match="your group 'students'"):
        admission.sandbox("s-ben")


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_share_the_places_of_strangers_and_nothing_else(workers: int) -> None:
    limits = Limits(unauthenticated=100, unauthenticated_per_source=10, unauthenticated_per_network=40)
    parts = [share(limits, worker, workers) for worker in range(workers)]
    for name in ("unauthenticated", "unauthenticated_per_source", "unauthenticated_per_network"):
        assert sum(getattr(one, name) for one in parts) == getattr(limits, name)
    same = [
        replace(one, unauthenticated=100, unauthenticated_per_source=10, unauthenticated_per_network=40)
        for one in parts
    ]
    assert same == [limits] * workers


def test_each_worker_has_one_place_at_least() -> None:
    assert share(Limits(unauthenticated_per_source=1), 3, 4).unauthenticated_per_source == 1
