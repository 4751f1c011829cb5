"""How many sandboxes there may be."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sshgate.access.limits import Admission, Slot
from sshgate.config.model import Group, Limits
from sshgate.errors import LimitReached


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
