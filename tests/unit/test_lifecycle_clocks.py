"""Every rule about time, with a clock that the test turns."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sshgate.access.limits import TokenBucket
from sshgate.config.model import ProfileLimits
from sshgate.lifecycle.clocks import ClusterTime, End, Now, SessionClock, Warn
from sshgate.lifecycle.membership import LEASE_DURATION, LONGEST_GAP, UNANSWERED, Membership
from sshgate.lifecycle.pool_plan import LONGEST_PENALTY, Pace

LIMITS = ProfileLimits(max_lifetime=8 * 3600.0, idle=1800.0, detached=600.0)


def clock(limits: ProfileLimits = LIMITS, terminal: bool = True, lifetime: float | None = None) -> SessionClock:
    return SessionClock(limits, 0.0, terminal, lifetime)


# --- sessions ---


def test_an_idle_terminal_is_warned_five_and_one_minutes_before_it_ends() -> None:
    session = clock()
    assert session.next_event(0.0) == (1500.0, Warn(5, "it was idle", unless_busy=True))
    session.warning_sent(Warn(5, "it was idle", True), 1500.0)
    assert session.next_event(1500.0) == (1740.0, Warn(1, "it was idle", unless_busy=True))
    session.warning_sent(Warn(1, "it was idle", True), 1740.0)
    assert session.next_event(1740.0) == (1800.0, End("it was idle", unless_busy=True))


def test_a_byte_starts_the_idle_time_again_and_its_warnings() -> None:
    session = clock()
    session.warning_sent(Warn(5, "it was idle", True), 1500.0)
    session.active(1600.0)
    assert session.next_event(1600.0) == (3100.0, Warn(5, "it was idle", unless_busy=True))


def test_a_running_program_is_activity() -> None:
    session = clock()
    session.busy(1800.0)
    assert session.next_event(1800.0) == (3300.0, Warn(5, "it was idle", unless_busy=True))


def test_pipes_are_never_idle_and_never_warned() -> None:
    session = clock(terminal=False)
    assert session.next_event(7 * 3600.0) == (8 * 3600.0, End("its time is over", unless_busy=False))


def test_idle_zero_means_never() -> None:
    session = clock(ProfileLimits(idle=0.0))
    when, event = session.next_event(0.0) or (0.0, None)
    assert (when, event) == (8 * 3600.0 - 300, Warn(5, "its time is over", unless_busy=False))


def test_the_lifetime_ends_whatever_runs() -> None:
    session = clock(ProfileLimits(max_lifetime=3600.0, idle=0.0))
    session.warning_sent(Warn(1, "its time is over", False), 3540.0)
    session.busy(3599.0)
    assert session.next_event(3599.0) == (3600.0, End("its time is over", unless_busy=False))


def test_who_joins_late_has_what_is_left() -> None:
    assert clock(lifetime=200.0).next_event(0.0) == (-100.0, Warn(4, "its time is over", unless_busy=False))


def test_a_limit_shorter_than_a_warning_is_not_announced_by_it() -> None:
    session = clock(ProfileLimits(max_lifetime=9000.0, idle=120.0))
    assert session.next_event(0.0) == (60.0, Warn(1, "it was idle", unless_busy=True))
    assert clock(ProfileLimits(idle=30.0)).next_event(0.0) == (30.0, End("it was idle", unless_busy=True))


def test_who_slept_through_a_warning_learns_what_is_really_left() -> None:
    assert clock().next_event(1770.0) == (1740.0, Warn(1, "it was idle", unless_busy=True))
    assert clock().next_event(5000.0) == (1800.0, End("it was idle", unless_busy=True))


def test_a_detached_session_ends_unless_somebody_comes_back() -> None:
    session = clock()
    session.detached(100.0)
    session.detached(400.0)
    assert session.next_event(400.0) == (700.0, End("nobody came back", unless_busy=False))
    session.attached(500.0)
    assert session.next_event(500.0) == (2000.0, Warn(5, "it was idle", unless_busy=True))


def test_each_clock_that_runs_says_when_it_ends_the_session() -> None:
    session = clock()
    session.active(100.0)
    assert session.ends() == {"lifetime": 8 * 3600.0, "idle": 1900.0}
    session.detached(200.0)
    assert session.ends() == {"lifetime": 8 * 3600.0, "detached": 800.0}
    assert clock(terminal=False).ends() == {"lifetime": 8 * 3600.0}


def test_a_clock_that_goes_back_stands_still() -> None:
    session = clock()
    session.active(1000.0)
    session.active(10.0)
    assert session.next_event(20.0) == (2500.0, Warn(5, "it was idle", unless_busy=True))
    assert repr(session) == "<SessionClock idle 0s, 7h43m left>"


def test_who_joins_a_sandbox_late_in_its_life_is_warned_of_what_is_really_left() -> None:
    joined = SessionClock(LIMITS, 1000.0, terminal=True, lifetime=200.0)
    when, warning = joined.next_event(1000.0) or (0.0, None)
    assert isinstance(warning, Warn)
    assert (when <= 1000.0, warning.minutes, warning.reason) == (True, 4, "its time is over")
    joined.warning_sent(warning, 1000.0)
    when, last = joined.next_event(1000.0) or (0.0, None)
    assert (when, last) == (1140.0, Warn(1, "its time is over", unless_busy=False))
    joined.warning_sent(Warn(1, "its time is over", unless_busy=False), 1140.0)
    assert joined.next_event(1140.0) == (1200.0, End("its time is over", unless_busy=False))


def test_a_program_left_running_keeps_what_nobody_is_attached_to_until_its_time_is_over() -> None:
    kept = SessionClock(LIMITS, 0.0, terminal=False, lifetime=2000.0, running_keeps=True)
    kept.detached(100.0)
    assert kept.next_event(100.0) == (700.0, End("nobody came back", unless_busy=True))
    kept.busy(700.0)
    assert kept.next_event(700.0) == (1300.0, End("nobody came back", unless_busy=True))
    kept.attached(1299.0)
    assert kept.next_event(1299.0) == (2000.0, End("its time is over", unless_busy=False))
    kept.detached(1500.0)
    kept.busy(1900.0)
    assert kept.next_event(1900.0) == (2000.0, End("its time is over", unless_busy=False))


@given(st.lists(st.tuples(st.sampled_from(("active", "busy", "detached", "attached")), st.floats(0, 40_000))))
def test_the_lifetime_is_never_exceeded(steps: list[tuple[str, float]]) -> None:
    session = clock()
    for what, when in steps:
        getattr(session, what)(when)
    event = session.next_event(8 * 3600.0)
    assert event is not None
    assert event[0] <= 8 * 3600.0


@given(st.floats(0, 3600), st.integers(1, 400))
def test_a_reader_of_the_events_gets_few_warnings_and_one_end(length: float, lateness: int) -> None:
    session = clock(ProfileLimits(max_lifetime=max(1.0, length), idle=0.0))
    now, warned = 0.0, []
    for _ in range(5):
        when, event = session.next_event(now) or (0.0, End("", False))
        now = max(now, when) + lateness / 100
        if isinstance(event, End):
            break
        warned.append(event.minutes)
        session.warning_sent(event, now)
    assert isinstance(event, End)
    assert warned in ([5, 1], [1], [])


# --- the API server's time ---


def test_the_servers_time_is_learnt_and_this_machines_clock_forgotten() -> None:
    time = ClusterTime(Now(wall=5.0, mono=100.0))
    assert time.at(101.0).wall == 6.0
    time.observe(date=1000.0, sent=200.0, received=200.1)
    assert 1000.0 - 0.1 <= time.at(200.1).wall <= 1001.1
    time.observe(date=1001.0, sent=200.3, received=200.3)
    # It turned from 1000 to 1001 between the two.
    assert 1001.0 <= time.at(200.3).wall <= 1001.2


@given(st.lists(st.tuples(st.floats(0.01, 30), st.floats(0, 2)), min_size=1, max_size=30), st.floats(-1e6, 1e6))
def test_the_servers_time_is_never_off_by_more_than_a_second_and_the_way(
    answers: list[tuple[float, float]], offset: float
) -> None:
    time, mono = ClusterTime(Now(0.0, 0.0)), 0.0
    for wait, trip in answers:
        mono += wait
        time.observe(float(math.floor(mono + trip / 2 + offset)), mono, mono + trip)
        mono += trip
        assert abs(time.at(mono).wall - (mono + offset)) <= 1.0 + 2.0
    assert time.jumps == 0


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_server_whose_clock_was_set_is_believed_at_once(jump: float) -> None:
    time = ClusterTime(Now(0.0, 0.0))
    time.observe(1000.0, 0.0, 0.0)
    time.observe(1010.0 + jump, 10.0, 10.0)
    assert abs(time.at(10.0).wall - (1010.0 + jump)) <= 1.0
    assert time.jumps == 1


# --- pace ---


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20)), max_size=50))
def test_a_bucket_never_gives_more_than_its_rate(steps: list[tuple[float, int]]) -> None:
    bucket, now, given_out = TokenBucket(2.0, 5.0, 0.0), 0.0, 0
    for wait, wanted in steps:
        now += wait
        given_out += bucket.take(wanted, now)
        assert given_out <= 5 + 2.0 * now + 1e-6


@given(st.floats(0.01, 50), st.integers(1, 30), st.floats(0, 1e6))
def test_a_bucket_keeps_its_promise_of_when(rate: float, burst: int, start: float) -> None:
    bucket = TokenBucket(rate, burst, start)
    assert bucket.take(burst, start) == burst
    assert bucket.take(1, start) == 0
    assert bucket.take(1, bucket.when(start)) == 1


def test_a_bucket_is_not_filled_by_a_clock_that_goes_back() -> None:
    bucket = TokenBucket(1.0, 1.0, 100.0)
    assert bucket.take(1, 100.0) == 1
    assert bucket.take(1, 0.0) == 0
    assert bucket.take(1, 100.5) == 0
    assert bucket.take(1, 101.0) == 1


def test_a_pool_that_keeps_failing_pauses_longer_and_longer_and_success_ends_it() -> None:
    pace, now, pauses = Pace(600, 4, 0.0, lambda: 0.5), 0.0, []
    for _ in range(10):
        pace.failed(now)
        pace.failed(now)  # during the pause: another pod of the same lot
        pauses.append(pace.when(now) - now)
        assert pace.take(1, now) == 0
        now = pace.when(now)
    assert pauses[0] == pytest.approx(2.0)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PENALTY
    pace.failed(now)
    pace.pods.succeeded()
    assert pace.take(1, now) == 1


# --- presence ---


def hear(presence: Membership, start: float, end: float, signs: dict[str, str] | None = None) -> float:
    """Listen every four seconds; ``signs`` are Leases that never change."""
    while start < end:
        start += 4.0
        for instance, sign in (signs or {}).items():
            presence.observe(instance, sign)
        presence.count_time(start, ("b",))
    return start


def test_a_gateway_is_dead_when_its_renewal_has_not_changed_for_long_and_nobody_answers_for_it() -> None:
    presence = Membership("a")
    presence.count_time(0.0)
    now = hear(presence, 0.0, LEASE_DURATION, {"b": "1"})
    presence.vanished("b")  # its door alone says nothing: it may only be opening it
    assert not presence.dead("b")
    assert presence.alive() == ["a", "b"]
    hear(presence, now, now + 4.0, {"b": "1"})
    assert presence.dead("b")
    assert presence.alive() == ["a"]
    presence.observe("b", "2")
    assert not presence.dead("b")


def test_a_silent_gateway_that_may_only_be_out_of_reach_is_replaced_but_not_dead_for_long() -> None:
    presence = Membership("a")
    presence.count_time(0.0)
    assert presence.suspects() == []
    now = hear(presence, 0.0, LEASE_DURATION + 4.0, {"b": "1"})
    assert (presence.alive(), presence.suspects()) == (["a"], ["b"])
    now = hear(presence, now, UNANSWERED - 4.0, {"b": "1"})
    assert not presence.dead("b")
    hear(presence, now, now + 8.0, {"b": "1"})
    assert presence.dead("b")
    assert presence.suspects() == []


def test_a_gateway_that_answers_lives_though_it_cannot_renew() -> None:
    presence = Membership("a")
    presence.count_time(0.0)
    now = 0.0
    for _ in range(10):
        now = hear(presence, now, now + LEASE_DURATION + 4.0, {"b": "1"})
        assert presence.suspects() == ["b"]
        presence.answered("b")
        assert not presence.dead("b")
        assert presence.alive() == ["a", "b"]


def test_nobody_dies_of_our_own_deafness() -> None:
    presence = Membership("a")
    presence.count_time(0.0)
    now = hear(presence, 0.0, 12.0, {"b": "1"})
    presence.mark_disconnected()
    presence.count_time(now + 1000.0)
    assert not presence.dead("b")
    # This process was stopped for ten minutes: the gap is longer than any between two looks.
    presence.count_time(now + 1600.0)
    assert LONGEST_GAP < 600.0
    assert not presence.dead("b")
    hear(presence, now + 1600.0, now + 1616.0)
    presence.vanished("b")
    assert presence.dead("b")


def test_an_instance_that_only_stands_on_a_pod_gets_its_time_to_show_itself() -> None:
    presence = Membership("a")
    presence.count_time(0.0)
    assert not presence.dead("b")
    hear(presence, 0.0, LEASE_DURATION + 8)
    assert presence.dead("b")


def test_a_lease_that_is_not_there_kills_nobody_who_makes_it_anew() -> None:
    presence = Membership("a")
    presence.count_time(0.0)
    now = hear(presence, 0.0, 8.0, {"b": "1"})
    now = hear(presence, now, now + 8.0)  # none of its own was read
    assert not presence.dead("b")
    assert presence.alive() == ["a", "b"]
    presence.observe("b", "2")
    now = hear(presence, now, now + LEASE_DURATION - 4.0)
    presence.vanished("b")
    assert not presence.dead("b")
    hear(presence, now, now + 8.0)
    assert presence.dead("b")


def test_a_released_lease_counts_at_once_and_is_deleted_once_everybody_has_had_time_to_read_it() -> None:
    presence = Membership("a")
    presence.count_time(0.0)
    presence.left("c")
    assert presence.dead("c")
    assert not presence.silent("c")
    hear(presence, 0.0, LEASE_DURATION + 4.0)
    assert presence.silent("c")


def test_who_says_goodbye_is_dead_at_once_and_we_ourselves_never_are() -> None:
    presence = Membership("a")
    presence.observe("b", "1")
    presence.left("b")
    presence.left("a")
    assert presence.dead("b")
    assert not presence.dead("a")
    assert repr(presence) == "<Membership 1 alive, 1 silent or gone>"


def test_an_instance_is_forgotten_when_nothing_speaks_of_it_and_its_silence_is_over() -> None:
    presence = Membership("a")
    presence.count_time(0.0)
    presence.observe("b", "1")
    presence.left("c")
    presence.forget(but=set())
    assert repr(presence) == "<Membership 2 alive, 1 silent or gone>"
    now = hear(presence, 0.0, LEASE_DURATION + 4.0)
    presence.forget(but={"b"})
    assert repr(presence) == "<Membership 1 alive, 1 silent or gone>"
    presence.forget(but=set())
    assert repr(presence) == "<Membership 1 alive, 0 silent or gone>"
    # A pod that was seen late: its gateway is not dead for that, and is after the same time as any.
    now = hear(presence, now, now + LEASE_DURATION)
    assert not presence.dead("b")
    hear(presence, now, now + 8.0)
    assert presence.dead("b")
