"""Picking, claiming, joining, admitting and reaping, one situation each. The pods are values, time is the test's."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sshgate.access.limits import Starts
from sshgate.config.model import Group, Limits
from sshgate.errors import BadRequest, LimitReached, StartFailed
from sshgate.lifecycle.admission import admit
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.claim import ClaimAttempt, GetPod, GiveUp, StartCold, TryPatch, Won, pick
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.join import Join, Make, Wait, join
from sshgate.lifecycle.membership import LEASE_DURATION, Membership, is_mine
from sshgate.lifecycle.reap_plan import FINISHED_SECONDS, LEAST_DETACHED, ORPHAN_SECONDS, Rules, orphans, reap
from sshgate.lifecycle.records import Stage, State
from sshgate.lifecycle.requests import Answer, Claim, Delete, Detach
from sshgate.lifecycle.schema import user_hash
from tests.unit.lifecycle_values import START, at, book, claimed, warm

# --- pick ---


def test_only_ready_settled_fresh_pods_with_an_address_are_picked() -> None:
    for record in (
        warm("a", "t0"), warm("a", stage=Stage.STARTING), warm("a", ip=None), warm("a", deleting=True), claimed("a"),
    ):  # fmt: skip
        assert pick(book(record), "t1", 0.0, ["me"], at(99)) is None
    known = book()
    known.observe(warm("a"), at(10))
    assert pick(known, "t1", 3.0, ["me"], at(12.9)) is None
    assert pick(known, "t1", 3.0, ["me"], at(13)) is not None


def test_a_pod_ready_for_long_is_taken_at_once_by_a_gateway_that_starts() -> None:
    assert pick(book(warm("a", ready_since=START - 14)), "t1", 3.0, ["me"], at(0)) is not None
    assert pick(book(warm("a", ready_since=START - 12)), "t1", 3.0, ["me"], at(0)) is None
    assert pick(book(warm("a", ready_since=START + 50)), "t1", 3.0, ["me"], at(0)) is None


def test_the_fullest_node_is_picked_from_then_the_oldest_pod() -> None:
    known = book(warm("a", node="x", created=1.0), warm("b", created=3.0), warm("c", created=2.0))
    picked = pick(known, "t1", 0.0, ["me"], at(0))
    assert picked is not None
    assert picked.uid == "c"


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_slices_of_all_gateways_are_about_the_same_size(count: int) -> None:
    instances = [f"{number * 7919:012x}" for number in range(count)]
    sizes = Counter(
        instance
        for number in range(1000)
        for instance in instances
        if is_mine(f"{number:08x}-1a2b", instance, instances)
    )
    assert sizes.total() == 1000
    assert min(sizes[instance] for instance in instances) > 0.7 * 1000 / count


def test_each_pod_is_in_one_gateways_slice_and_others_steal_only_from_empty() -> None:
    instances = ["me", "you", "they"]
    uids = [f"uid-{i}" for i in range(300)]
    owners = [[instance for instance in instances if is_mine(uid, instance, instances)] for uid in uids]
    assert all(len(one) == 1 for one in owners)
    assert min(Counter(one[0] for one in owners).values()) > 50
    mine_, theirs = (next(uid for uid, one in zip(uids, owners, strict=True) if one == [who]) for who in ("me", "you"))
    known = book(warm(theirs, created=1.0), warm(mine_, created=2.0))
    first = pick(known, "t1", 0.0, instances, at(0))
    assert first is not None
    assert first.uid == mine_
    known.reserve(mine_, "s", at(0))
    second = pick(known, "t1", 0.0, instances, at(0))
    assert second is not None
    assert second.uid == theirs


# --- claiming ---


def claiming(known: PodCache) -> ClaimAttempt:
    known.begin("s1", "ada")
    return ClaimAttempt(known, Claim("ada", "s1", "gw", "me", 60.0), "t1", 0.0, ["me"])


def test_five_lost_races_end_cold() -> None:
    one = claiming(book(*(warm(str(i)) for i in range(9))))
    tried = []
    while isinstance(step := one.step(at(0)), TryPatch):
        tried.append(step.record.uid)
        one.answered(Answer.REFUSED, at(0))
    assert step == StartCold()
    assert len(set(tried)) == 5


def test_two_logins_never_try_the_same_pod() -> None:
    known = book(warm("a"))
    assert isinstance(claiming(known).step(at(0)), TryPatch)
    assert claiming(known).step(at(0)) == StartCold()


def test_after_a_time_out_it_looks_and_keeps_what_it_has_won() -> None:
    one = claiming(book(warm("a"), warm("b")))
    step = one.step(at(0))
    assert isinstance(step, TryPatch)
    one.answered(Answer.UNKNOWN, at(0))
    assert one.step(at(0)) == GetPod(step.record)
    won = claimed(step.record.uid, session="s1", version="5")
    one.answered(won, at(0))
    assert one.step(at(0)) == Won(won)


def test_after_a_time_out_the_same_pod_is_tried_again_and_no_other() -> None:
    one = claiming(book(warm("a"), warm("b")))
    first = one.step(at(0))
    assert isinstance(first, TryPatch)
    one.answered(Answer.UNKNOWN, at(0))
    one.step(at(0))
    one.answered(warm(first.record.uid), at(0))
    again = one.step(at(0))
    assert isinstance(again, TryPatch)
    assert again.record.uid == first.record.uid
    # The first one arrived after all: the refusal of the second says nothing, so it looks.
    one.answered(Answer.REFUSED, at(0))
    assert isinstance(one.step(at(0)), GetPod)
    one.answered(claimed(first.record.uid, session="s1", version="5"), at(0))
    assert isinstance(one.step(at(0)), Won)


def test_after_a_time_out_a_pod_that_another_has_is_left_to_them() -> None:
    one = claiming(book(warm("a")))
    one.step(at(0))
    one.answered(Answer.UNKNOWN, at(0))
    one.step(at(0))
    one.answered(claimed("a", "bob", "s2", version="5"), at(0))
    assert one.step(at(0)) == StartCold()


def test_an_api_server_that_never_answers_ends_the_login() -> None:
    one = claiming(book(warm("a"), warm("b")))
    asked = 0
    while not isinstance(one.step(at(0)), GiveUp):
        one.answered(Answer.UNKNOWN, at(0))
        asked += 1
    assert asked == 4
    assert repr(one) == "<ClaimAttempt s1: giveup, 1 tried, 4 unknown>"


def test_a_pod_that_ended_while_it_was_claimed_is_discarded() -> None:
    one = claiming(book(warm("a")))
    one.step(at(0))
    one.answered(claimed("a", session="s1", version="5", stage=Stage.FINISHED), at(0))
    assert one.step(at(0)) == StartCold()
    assert [delete.record.uid for delete in one.discard] == ["a"]


# --- join ---


def test_a_named_sandbox_is_made_joined_or_waited_for() -> None:
    there = claimed("a", sandbox="work")
    assert join(None, "ada", "work", None) == Make()
    assert join(there, "ada", "work", None) == Join(there)
    assert join(there, "ada", "work", "default") == Join(there)
    going = claimed("a", sandbox="work", deleting=True)
    assert join(going, "ada", "work", None) == Wait(going, delete=False)
    ended = claimed("a", sandbox="work", stage=Stage.FINISHED)
    assert join(ended, "ada", "work", None) == Wait(ended, delete=True)
    with pytest.raises(BadRequest, match="has the profile 'default'"):
        join(there, "ada", "work", "gpu")


def test_nobody_joins_or_sees_anothers_sandbox() -> None:
    forged = claimed("a", user="bob", sandbox="work", user_hash=user_hash("ada"))
    hers, his = claimed("b", sandbox="work"), claimed("c", user="bob", sandbox="work")
    assert book(hers, his, warm("d")).of_user("bob", at(0)) == [his]
    with pytest.raises(StartFailed, match="in the way"):
        join(his, "ada", "work", None)
    assert join(forged, "ada", "work", None) == Join(forged)  # the hash is what gateways write; the name is for people
    with pytest.raises(StartFailed, match="in the way"):
        join(warm("a"), "ada", "work", None)


# --- admit ---


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


# --- reap ---


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
