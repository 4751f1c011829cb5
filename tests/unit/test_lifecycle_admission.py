"""Who is admitted: limits per user, group and minute, one situation each. The pods are values."""

from __future__ import annotations

import pytest

from sshgate.access.limits import Starts
from sshgate.config.model import Group, Limits
from sshgate.errors import LimitReached
from sshgate.lifecycle.admission import admit
from tests.unit.lifecycle_values import at, book, claimed


def test_a_full_quota_says_whose_and_how_full() -> None:
    known = book(claimed("a", session="s1"), claimed("b", session="s2"), claimed("c", user="bob", session="s3"))
    starts = Starts(None)
    with pytest.raises(LimitReached, match="you have 2 of 2 sandboxes"):
        admit(known, Limits(sandboxes_per_user=2), starts, "ada", "s9", at(0))
    with pytest.raises(LimitReached, match="all 3 sandboxes are in use"):
        admit(known, Limits(sandboxes=3), starts, "eve", "s9", at(0))
    limits = Limits(groups={"science": Group(("a*", "bob"), 3)})
    with pytest.raises(LimitReached, match="your group 'science' has 3 of 3"):
        admit(known, limits, starts, "alan", "s9", at(0))
    admit(known, limits, starts, "eve", "s9", at(0))
    assert known.owned("eve", at(0)) == 1


def test_admitted_sessions_count_before_any_pod_is_seen() -> None:
    known, limits = book(), Limits(sandboxes_per_user=2)
    for session in ("s1", "s2"):
        admit(known, limits, Starts(None), "ada", session, at(0))
    with pytest.raises(LimitReached):
        admit(known, limits, Starts(None), "ada", "s3", at(0))
    known.end("s1")
    admit(known, limits, Starts(None), "ada", "s3", at(0))


def test_who_logs_out_may_log_in_again_at_once() -> None:
    known, limits = book(claimed("a", session="s1")), Limits(sandboxes_per_user=1)
    known.expectations.delete("a", 0.0)
    admit(known, limits, Starts(None), "ada", "s2", at(0))


def test_starts_per_minute_are_counted_by_user_and_come_back() -> None:
    known, limits = book(), Limits(sandboxes_per_user=99, starts_per_minute=3)
    starts = Starts(limits.starts_per_minute)
    for number in range(3):
        admit(known, limits, starts, "ada", f"s{number}", at(0))
    with pytest.raises(LimitReached, match="started 3 sandboxes within a minute; try again in 20 s"):
        admit(known, limits, starts, "ada", "s4", at(0))
    admit(known, limits, starts, "bob", "s5", at(0))
    admit(known, limits, starts, "ada", "s6", at(20.1))
