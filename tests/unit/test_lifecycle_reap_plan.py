"""What is deleted or detached, one situation each. The pods are values, time is the test's."""

from __future__ import annotations

from typing import Any

import pytest

from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.membership import LEASE_DURATION, Membership
from sshgate.lifecycle.reap_plan import FINISHED_SECONDS, LEAST_DETACHED, ORPHAN_SECONDS, Rules, orphans, reap
from sshgate.lifecycle.records import Stage, State
from sshgate.lifecycle.requests import Delete, Detach
from sshgate.lifecycle.schema import named_pod
from tests.unit.lifecycle_values import START, at, book, claimed, warm


def silent(*instances: str) -> Membership:
    presence = Membership("me")
    presence.count_time(0.0, instances)
    for second in range(4, int(LEASE_DURATION) + 12, 4):
        presence.count_time(float(second), instances)
    return presence


def test_orphans_of_dead_gateways_go_and_nobody_elses() -> None:
    known = book(
        claimed("a", instance="dead"), claimed("b"), claimed("c", instance="unheard"), warm("d", instance="dead")
    )
    found = reap(known, silent("dead"), Rules(), at(1000))
    assert [action.record.uid for action in found] == ["a"]
    assert reap(known, silent("dead"), Rules(), at(1000)) == []


def test_what_we_do_not_understand_is_left_alone() -> None:
    assert reap(book(warm("a", state=State.UNKNOWN, instance="dead")), silent("dead"), Rules(), at(1000)) == []


def test_an_ended_pod_is_left_to_its_gateway_for_a_while() -> None:
    known = book()
    known.observe(claimed("a", stage=Stage.FINISHED), at(0))
    assert reap(known, silent(), Rules(), at(FINISHED_SECONDS - 1)) == []
    assert len(reap(known, silent(), Rules(), at(FINISHED_SECONDS))) == 1


def test_a_named_sandbox_outlives_its_gateways_and_is_detached_from_dead_ones() -> None:
    known = book(claimed("a", sandbox="work", instance="dead", attached=frozenset({"dead", "me"})))
    (detach,) = reap(known, silent("dead"), Rules(otherwise=10.0), at(10_000))
    assert detach == Detach(detach.record, "dead")


def test_a_cold_pod_whose_name_a_warm_one_took_goes_with_its_gateway() -> None:
    cold: dict[str, Any] = {"name": named_pod("ada", "work"), "sandbox": "work", "attached": frozenset({"dead"})}
    known = book(claimed("cold", **cold), claimed("warm", sandbox="work", attached=frozenset({"me"})))
    (delete,) = reap(known, silent("dead"), Rules(), at(1000))
    assert delete == Delete(delete.record, "another one has its name", untouched=True)
    assert delete.record.uid == "cold"
    for other in (claimed("warm", sandbox="rest"), claimed("warm", sandbox="work", stage=Stage.FINISHED)):
        found = reap(book(claimed("cold", **cold), other), silent("dead"), Rules(otherwise=1e9), at(1000))
        assert Detach(claimed("cold", **cold), "dead") in found


def test_a_pod_that_was_claimed_for_a_name_is_deleted_only_if_nobody_has_found_it_meanwhile() -> None:
    known = book(
        claimed("a", instance="dead", kept_for=600.0), claimed("b", kept_for=600.0), claimed("c", instance="dead")
    )
    assert {one.record.uid: one.untouched for one in reap(known, silent("dead"), Rules(), at(1000))
            if isinstance(one, Delete)} == {"a": True, "c": False}  # fmt: skip
    (orphan,) = orphans(known, at(ORPHAN_SECONDS))
    assert (orphan.record.uid, orphan.untouched) == ("b", True)


def test_a_named_sandbox_ends_when_nobody_came_back_unless_something_runs() -> None:
    rules = Rules({"default": 60.0})
    known = book(claimed("a", sandbox="work", detached_at=START + 100))
    assert reap(known, silent(), rules, at(159)) == []
    (delete,) = reap(known, silent(), rules, at(160))
    assert isinstance(delete, Delete)
    assert delete.untouched
    assert delete.unless_busy
    seen = book(claimed("a", sandbox="work", detached_at=START + 100, last_seen=START + 160))
    assert reap(seen, silent(), rules, at(219)) == []


@pytest.mark.parametrize("stage", [Stage.BLOCKED, Stage.UNSCHEDULABLE])
def test_a_named_sandbox_that_could_not_start_is_kept_for_those_who_wait_for_it_alone(stage: Stage) -> None:
    rules = Rules({"default": 600.0})
    held: dict[str, Any] = {"sandbox": "work", "instance": "dead", "stage": stage, "reason": "ErrImagePull"}
    waited_for = book(claimed("a", attached=frozenset({"me"}), **held))
    assert reap(waited_for, silent("dead"), rules, at(599)) == []
    # Its maker died, who joined has given up.
    left = book(claimed("a", detached_at=START + 50, **held))
    assert reap(left, silent("dead"), rules, at(50 + LEAST_DETACHED - 1)) == []
    (delete,) = reap(left, silent("dead"), rules, at(50 + LEAST_DETACHED))
    assert delete == Delete(delete.record, "could not start (ErrImagePull)", untouched=True)
    # Its maker lives and has not attached to it yet.
    made = book(claimed("a", **{**held, "instance": "me"}))
    assert reap(made, silent("dead"), rules, at(599)) == []


def test_a_named_sandbox_of_a_profile_the_leader_does_not_know_is_kept_as_its_pod_says() -> None:
    rules = Rules({"other": 60.0}, otherwise=600.0)
    known = book(claimed("a", sandbox="work", detached_at=START, kept_for=9000.0))
    assert reap(known, silent(), rules, at(8999)) == []
    assert len(reap(known, silent(), rules, at(9000))) == 1
    brief = book(claimed("a", sandbox="work", detached_at=START, kept_for=1.0))
    assert len(reap(brief, silent(), rules, at(LEAST_DETACHED))) == 1
    # Who knows the profile goes by it: it may have been changed since.
    longer = book(claimed("a", sandbox="work", detached_at=START, kept_for=9000.0))
    assert len(reap(longer, silent(), Rules({"default": 60.0}), at(60))) == 1


def test_a_clock_that_jumps_ends_nothing_that_is_in_use() -> None:
    in_use = book(claimed("a"), claimed("b", sandbox="work", attached=frozenset({"me"}), expires_at=START))
    for jump in (1e9, -1e6):
        assert reap(in_use, silent(), Rules(otherwise=1.0), Now(START + jump, 1000.0)) == []
    left = book(claimed("a", sandbox="work", detached_at=START))
    assert reap(left, silent(), Rules(), Now(START - 1e6, 1000.0)) == []


def test_a_pod_claimed_for_a_session_that_is_gone_or_has_another_is_a_stray() -> None:
    known = book()
    known.begin("s1", "ada")
    known.begin("s2", "ada")
    known.hold("s2", "other")
    for record in (claimed("a", session="s1"), claimed("b", session="s2"), claimed("c", session="s3")):
        known.observe(record, at(0))
    known.observe(claimed("d", session="s4", sandbox="work"), at(0))
    known.observe(claimed("e", session="s5", instance="another"), at(0))
    assert orphans(known, at(ORPHAN_SECONDS - 1)) == []
    assert [delete.record.uid for delete in orphans(known, at(ORPHAN_SECONDS))] == ["b", "c"]
