"""One gateway leads, and another does when it is dead. Time is the test's."""

from __future__ import annotations

from sshgate.lifecycle.membership import LEASE_DURATION, STALE, Election, Membership


def listening(presence: Membership, seconds: float, *instances: str) -> None:
    """Time passes while the Leases can be read."""
    for second in range(int(seconds) + 1):
        presence.count_time(float(second), instances)


def test_the_first_to_look_takes_a_lease_that_is_not_there() -> None:
    one = Election("a", Membership("a"))
    assert one.observe(None, 1.0)
    assert not one.leads(1.0)
    one.won(1.1)
    assert one.leads(1.1)


def test_a_living_leader_is_followed_and_a_silent_one_replaced() -> None:
    presence = Membership("b")
    one = Election("b", presence)
    presence.observe("a", "1")
    listening(presence, LEASE_DURATION, "a")
    assert not one.observe("a", LEASE_DURATION)
    listening(presence, LEASE_DURATION, "a")
    presence.count_time(LEASE_DURATION + 1, ["a"])
    # What it holds is its own for longer: it may only be stopped.
    assert not presence.dead("a")
    assert one.observe("a", LEASE_DURATION + 1)


def test_a_leader_nobody_has_heard_of_is_replaced_after_the_silence() -> None:
    presence = Membership("b")
    one = Election("b", presence)
    presence.count_time(0.0, ["ghost"])
    assert not one.observe("ghost", 0.0)
    listening(presence, LEASE_DURATION + 1, "ghost")
    assert one.observe("ghost", LEASE_DURATION + 1)


def test_a_leader_that_released_its_lease_is_replaced_at_once() -> None:
    presence = Membership("b")
    presence.observe("a", "1")
    presence.left("a")
    assert Election("b", presence).observe("a", 0.0)


def test_a_leader_that_cannot_look_leads_no_longer() -> None:
    one = Election("a", Membership("a"))
    one.won(0.0)
    assert one.leads(STALE)
    assert not one.leads(STALE + 0.1)
    # Its Lease is still its own when it can look again.
    assert not one.observe("a", 30.0)
    assert one.leads(30.0)
