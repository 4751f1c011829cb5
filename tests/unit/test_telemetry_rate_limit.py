"""The bound on log lines and events that strangers cause."""

from __future__ import annotations

from sshgate.telemetry.rate_limit import MOST, RateLimit


def test_each_key_passes_so_many_times_within_the_span() -> None:
    now = 0.0
    limit = RateLimit(60.0, now=lambda: now)
    assert [limit.due(key) for key in ("a", "b", "a")] == [True, True, False]
    assert [limit.due("c", 2) for _ in range(3)] == [True, True, False]
    now = 59.9
    assert not limit.due("a")
    now = 60.0
    assert limit.due("a")


def test_a_key_waits_until_its_first_pass_is_a_span_ago() -> None:
    now = 0.0
    limit = RateLimit(60.0, now=lambda: now)
    assert limit.wait("a", 2) == 0
    assert limit.due("a", 2)
    now = 50.0
    assert limit.due("a", 2)
    assert (limit.wait("a", 2), limit.wait("a", 3), limit.wait("b", 2)) == (11, 0, 0)
    now = 60.0
    assert limit.due("a", 2)
    assert limit.wait("a", 2) == 51


def test_what_somebody_else_has_let_pass_counts_beyond_the_limit() -> None:
    now = 0.0
    limit = RateLimit(60.0, now=lambda: now)
    assert limit.due("a", 2)
    now = 10.0
    limit.count("a")
    now = 20.0
    limit.count("a")
    assert limit.wait("a", 2) == 51
    now = 70.0
    assert limit.due("a", 2)


def test_strangers_with_many_addresses_fill_neither_memory_nor_log() -> None:
    now = 0.0
    limit = RateLimit(60.0, 1000, lambda: now)
    assert sum(limit.due(str(number)) for number in range(3000)) == 1000
    assert repr(limit) == "<RateLimit 1001 keys>"
    now = 60.0
    assert limit.due("new")
    assert repr(limit) == "<RateLimit 2 keys>"


def test_without_a_total_no_key_is_silent_for_the_sake_of_others() -> None:
    limit = RateLimit(60.0, now=lambda: 0.0)
    assert all(limit.due(str(number)) for number in range(2 * MOST))
    assert repr(limit) == f"<RateLimit {MOST} keys>"
