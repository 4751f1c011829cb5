"""What each decision does in one situation. The pods are values, time is the test's."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest

from sshgate.config import Group, Limits
from sshgate.errors import BadRequest, LimitReached, StartFailed
from sshgate.lifecycle.actions import Action, Create, Delete, Detach, Hold
from sshgate.lifecycle.admit import Starts, admit
from sshgate.lifecycle.book import Book
from sshgate.lifecycle.claiming import Answer, Claiming, Cold, GiveUp, Look, Try, Won
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.expectations import EXPIRY
from sshgate.lifecycle.join import Join, Make, Wait, join, mine
from sshgate.lifecycle.patches import Claim
from sshgate.lifecycle.pick import is_mine, pick
from sshgate.lifecycle.plan import STUCK, Refiller, Target, give_way
from sshgate.lifecycle.presence import SILENCE, Presence
from sshgate.lifecycle.reap import LAST_WORDS, STRAY, Rules, reap, strays
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.sandbox.labels import user_hash

START = 1_000_000.0


def at(seconds: float) -> Now:
    return Now(START + seconds, seconds)


def warm(uid: str, template: str = "t1", stage: Stage = Stage.READY, node: str | None = "n1", **more: Any) -> Record:
    values: dict[str, Any] = {
        "name": f"p-{uid}", "uid": uid, "version": "1", "profile": "default", "template": template,
        "stage": stage, "node": node, "ip": "10.0.0.1", "created": START - 100,
    }  # fmt: skip
    return Record(**{**values, **more})


def claimed(uid: str, user: str = "ada", session: str = "s", **more: Any) -> Record:
    whose: dict[str, Any] = {
        "user": user,
        "user_hash": user_hash(user),
        "session": session,
        "life": "me",
        "claimed_at": START,
    }
    return warm(uid, state=State.CLAIMED, **{**whose, **more})


def book(*records: Record) -> Book:
    made = Book("me")
    made.sync(records, at(0))
    return made


def refiller() -> Refiller:
    numbers = count()
    return Refiller(lambda: str(next(numbers)), lambda: 0.5)


def kinds(actions: list[Action]) -> Counter[str]:
    return Counter(type(action).__name__ for action in actions)


def follow(known: Book, actions: list[Action], now: Now) -> None:
    """Carry out: what is created is ready at once, what is deleted is gone."""
    for action in actions:
        if isinstance(action, Create):
            known.observe(warm(action.name, action.template, name=action.name), now)
        elif isinstance(action, Delete):
            known.gone(action.record.uid, now)


# --- refill ---


def test_nothing_is_made_before_the_first_list() -> None:
    assert refiller().decide(Book("me"), [Target("default", "t1", 3)], 10, at(0)) == []


def test_an_empty_pool_is_filled_a_quarter_at_a_time_as_the_bucket_allows() -> None:
    known, plan, target = book(), refiller(), Target("default", "t1", 8, per_minute=60)
    first = plan.decide(known, [target], 100, at(0))
    assert kinds(first) == {"Create": 2, "Hold": 1}
    assert kinds(plan.decide(known, [target], 100, at(0))) == {"Hold": 1}
    assert kinds(plan.decide(known, [target], 100, at(1.1))) == {"Create": 1, "Hold": 1}


def test_a_creation_is_expected_until_it_is_seen_or_expires() -> None:
    known, plan, target = book(), refiller(), Target("default", "t1", 1)
    (create,) = plan.decide(known, [target], 100, at(0))
    assert isinstance(create, Create)
    assert plan.decide(known, [target], 100, at(EXPIRY - 1)) == []
    assert kinds(plan.decide(known, [target], 100, at(EXPIRY + 1))) == {"Create": 1}


def test_a_refused_creation_pauses_the_pool() -> None:
    known, plan, target = book(), refiller(), Target("default", "t1", 1)
    (create,) = plan.decide(known, [target], 100, at(0))
    assert isinstance(create, Create)
    plan.refused(create, known, at(0))
    assert plan.decide(known, [target], 100, at(1)) == [Hold("default", "not so fast", 2.0)]
    assert kinds(plan.decide(known, [target], 100, at(3))) == {"Create": 1}


def test_a_pool_of_size_0_and_the_pool_of_a_removed_profile_are_emptied() -> None:
    for targets in ([Target("default", "t1", 0)], []):
        assert kinds(refiller().decide(book(warm("a"), warm("b", "old")), targets, 10, at(0))) == {"Delete": 2}


def test_pools_stay_within_the_limit_and_say_so() -> None:
    known = book(claimed("a"), claimed("b", session="s2"))
    actions = refiller().decide(known, [Target("default", "t1", 4)], 3, at(0))
    assert kinds(actions) == {"Create": 1, "Hold": 1}
    assert actions[-1] == Hold("default", "all 3 sandboxes are taken", 60.0)


def test_warm_pods_beyond_a_lowered_limit_go() -> None:
    known = book(claimed("a"), warm("b"), warm("c"), warm("d", stage=Stage.STARTING))
    actions = refiller().decide(known, [Target("default", "t1", 3)], 2, at(0))
    deleted = [action.record.uid for action in actions if isinstance(action, Delete)]
    assert len(deleted) == 2
    assert "d" in deleted
    assert "a" not in deleted


def test_unschedulable_and_blocked_pods_are_held_and_not_churned() -> None:
    for stage in (Stage.UNSCHEDULABLE, Stage.BLOCKED):
        known, plan = book(warm("a", stage=stage)), refiller()
        for seconds in range(0, 4000, 50):
            actions = plan.decide(known, [Target("default", "t1", 3)], 10, at(seconds))
            assert kinds(actions) == {"Hold": 1}
        assert isinstance(actions[0], Hold)
        assert actions[0].until == pytest.approx(seconds + 60)


def test_a_pod_that_never_starts_is_replaced_and_the_pool_pauses() -> None:
    known, plan = book(), refiller()
    known.observe(warm("a", stage=Stage.STARTING), at(0))
    target = Target("default", "t1", 1)
    assert plan.decide(known, [target], 10, at(STUCK - 1)) == []
    actions = plan.decide(known, [target], 10, at(STUCK))
    assert [type(action) for action in actions] == [Delete, Hold]


def test_a_pod_that_fails_over_and_over_is_made_less_and_less_often() -> None:
    known, plan, target, made = book(), refiller(), Target("default", "t1", 1), 0
    for second in range(1200):
        for action in plan.decide(known, [target], 10, at(second)):
            if isinstance(action, Create):
                made += 1
                known.observe(warm(f"u{made}", stage=Stage.FINISHED, name=action.name), at(second))
            elif isinstance(action, Delete):
                known.gone(action.record.uid, at(second))
    assert 5 <= made <= 14


def test_no_warm_pod_is_made_while_a_user_waits_for_a_node() -> None:
    known = book(claimed("a", stage=Stage.UNSCHEDULABLE))
    actions = refiller().decide(known, [Target("default", "t1", 2)], 10, at(0))
    assert actions == [Hold("default", "a login waits for room on a node", 60.0)]


def test_stale_pods_are_replaced_in_steps_once_fresh_ones_are_ready() -> None:
    known, plan, target = book(*(warm(f"old{i}", "t0") for i in range(8))), refiller(), Target("default", "t1", 8)
    seconds, most = 0, 0
    while seconds < 100:
        actions = plan.decide(known, [target], 100, at(seconds))
        assert kinds(actions)["Create"] <= 2
        assert kinds(actions)["Delete"] <= 2
        follow(known, actions, at(seconds))
        templates = Counter(one.record.template for one in known.warm(at(seconds)))
        most = max(most, templates.total())
        assert templates.total() >= 8
        if templates == {"t1": 8}:
            break
        seconds += 1
    assert templates == {"t1": 8}
    assert most <= 10


def test_stale_pods_stay_as_long_as_their_replacement_has_no_image() -> None:
    known = book(*(warm(f"old{i}", "t0") for i in range(4)), warm("new", stage=Stage.BLOCKED))
    plan = refiller()
    for seconds in range(0, 1000, 50):
        assert kinds(plan.decide(known, [Target("default", "t1", 4)], 100, at(seconds))) == {"Hold": 1}


def test_stale_pods_make_room_where_fresh_ones_find_none() -> None:
    full = book(*(warm(f"old{i}", "t0") for i in range(4)))
    assert kinds(refiller().decide(full, [Target("default", "t1", 4)], 4, at(0))) == {
        "Delete": 1, "Create": 1, "Hold": 1
    }  # fmt: skip
    crowded = book(*(warm(f"old{i}", "t0") for i in range(4)), warm("new", stage=Stage.UNSCHEDULABLE))
    plan = refiller()
    assert kinds(plan.decide(crowded, [Target("default", "t1", 4)], 9, at(0))) == {"Delete": 1, "Hold": 1}
    follow(crowded, [Delete(warm("old0", "t0"), "", True), Delete(warm("old3", "t0"), "", True)], at(0))
    assert kinds(plan.decide(crowded, [Target("default", "t1", 4)], 9, at(30))) == {"Hold": 1}


def test_every_deletion_of_a_warm_pod_spares_one_that_was_just_claimed() -> None:
    known = book(*(warm(str(i)) for i in range(3)), warm("f", stage=Stage.FINISHED))
    actions = refiller().decide(known, [], 10, at(0))
    assert len(actions) == 4
    assert all(isinstance(action, Delete) and action.untouched for action in actions)


def test_warm_pods_give_way_stale_ones_first_and_where_asked_only_placed_ones() -> None:
    known = book(warm("fresh"), warm("stale", "t0"), warm("nowhere", node="", stage=Stage.UNSCHEDULABLE))
    assert [one.record.uid for one in give_way(known, 1, at(0), {"t1"})] == ["stale"]
    known.observe(warm("nowhere", node=None, stage=Stage.UNSCHEDULABLE), at(0))
    assert [one.record.uid for one in give_way(known, 5, at(0), {"t1"}, placed=True)] == ["fresh"]


# --- the book ---


def test_a_watch_older_than_our_patch_does_not_make_a_pod_warm_again() -> None:
    for version in ("1", "opaque"):
        known = book(warm("a", version=version))
        known.observe(claimed("a", version="2"), at(0))
        assert not known.observe(warm("a", version=version), at(1))
        assert repr(known) == "<Book 0 warm, 1 claimed, 0 going, 0 sessions, <Expectations 0 creates, 0 deletes>>"


def test_a_pod_that_is_gone_is_not_brought_back_by_a_late_answer() -> None:
    known = book(warm("a"))
    known.gone("a", at(0))
    assert not known.observe(warm("a", version="9"), at(1))
    assert known.get("a") is None


def test_a_list_forgets_what_it_does_not_show() -> None:
    known = book(warm("a"), warm("b"))
    known.sync([warm("b")], at(1))
    assert [one.record.uid for one in known.sightings(at(1))] == ["b"]


def test_a_claim_that_never_arrived_frees_its_pod_after_a_minute() -> None:
    known = book(warm("a"))
    known.speak_for("a", "s1", at(0))
    assert known.warm(at(EXPIRY - 1)) == []
    assert len(known.warm(at(EXPIRY))) == 1


def test_a_session_and_its_pod_count_once() -> None:
    known = book(warm("a"))
    known.begin("s1", "ada")
    assert known.total(at(0)) == 2
    known.speak_for("a", "s1", at(0))
    assert known.total(at(0)) == 1
    known.observe(claimed("a", session="s1", version="2"), at(0))
    assert known.total(at(0)) == 1
    assert known.users(at(0)) == {"s1": "ada"}


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


def test_each_pod_is_in_one_gateways_slice_and_others_steal_only_from_empty() -> None:
    lives = ["me", "you", "they"]
    uids = [f"uid-{i}" for i in range(300)]
    owners = [[life for life in lives if is_mine(uid, life, lives)] for uid in uids]
    assert all(len(one) == 1 for one in owners)
    assert min(Counter(one[0] for one in owners).values()) > 50
    mine_, theirs = (next(uid for uid, one in zip(uids, owners, strict=True) if one == [who]) for who in ("me", "you"))
    known = book(warm(theirs, created=1.0), warm(mine_, created=2.0))
    first = pick(known, "t1", 0.0, lives, at(0))
    assert first is not None
    assert first.uid == mine_
    known.speak_for(mine_, "s", at(0))
    second = pick(known, "t1", 0.0, lives, at(0))
    assert second is not None
    assert second.uid == theirs


# --- claiming ---


def claiming(known: Book) -> Claiming:
    known.begin("s1", "ada")
    return Claiming(known, Claim("ada", "s1", "gw", "me", 60.0), "t1", 0.0, ["me"])


def test_five_lost_races_end_cold() -> None:
    one = claiming(book(*(warm(str(i)) for i in range(9))))
    tried = []
    while isinstance(step := one.step(at(0)), Try):
        tried.append(step.record.uid)
        one.answered(Answer.REFUSED, at(0))
    assert step == Cold()
    assert len(set(tried)) == 5


def test_two_logins_never_try_the_same_pod() -> None:
    known = book(warm("a"))
    assert isinstance(claiming(known).step(at(0)), Try)
    assert claiming(known).step(at(0)) == Cold()


def test_after_a_time_out_it_looks_and_keeps_what_it_has_won() -> None:
    one = claiming(book(warm("a"), warm("b")))
    step = one.step(at(0))
    assert isinstance(step, Try)
    one.answered(Answer.UNKNOWN, at(0))
    assert one.step(at(0)) == Look(step.record)
    won = claimed(step.record.uid, session="s1", version="5")
    one.answered(won, at(0))
    assert one.step(at(0)) == Won(won)


def test_after_a_time_out_the_same_pod_is_tried_again_and_no_other() -> None:
    one = claiming(book(warm("a"), warm("b")))
    first = one.step(at(0))
    assert isinstance(first, Try)
    one.answered(Answer.UNKNOWN, at(0))
    one.step(at(0))
    one.answered(warm(first.record.uid), at(0))
    again = one.step(at(0))
    assert isinstance(again, Try)
    assert again.record.uid == first.record.uid
    # The first one arrived after all: the refusal of the second says nothing, so it looks.
    one.answered(Answer.REFUSED, at(0))
    assert isinstance(one.step(at(0)), Look)
    one.answered(claimed(first.record.uid, session="s1", version="5"), at(0))
    assert isinstance(one.step(at(0)), Won)


def test_after_a_time_out_a_pod_that_another_has_is_left_to_them() -> None:
    one = claiming(book(warm("a")))
    one.step(at(0))
    one.answered(Answer.UNKNOWN, at(0))
    one.step(at(0))
    one.answered(claimed("a", "bob", "s2", version="5"), at(0))
    assert one.step(at(0)) == Cold()


def test_an_api_server_that_never_answers_ends_the_login() -> None:
    one = claiming(book(warm("a"), warm("b")))
    asked = 0
    while not isinstance(one.step(at(0)), GiveUp):
        one.answered(Answer.UNKNOWN, at(0))
        asked += 1
    assert asked == 4
    assert repr(one) == "<Claiming s1: giveup, 1 tried, 4 unknown>"


def test_a_pod_that_ended_while_it_was_claimed_is_discarded() -> None:
    one = claiming(book(warm("a")))
    one.step(at(0))
    one.answered(claimed("a", session="s1", version="5", stage=Stage.FINISHED), at(0))
    assert one.step(at(0)) == Cold()
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
    assert mine([hers, his, warm("d")], "bob") == [his]
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
    assert known.users(at(0))["s9"] == "eve"


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


def silent(*lives: str) -> Presence:
    presence = Presence("me")
    presence.listen(0.0, lives)
    for second in range(4, int(SILENCE) + 12, 4):
        presence.listen(float(second), lives)
    return presence


def test_orphans_of_dead_gateways_go_and_nobody_elses() -> None:
    known = book(claimed("a", life="dead"), claimed("b"), claimed("c", life="unheard"), warm("d", life="dead"))
    found = reap(known, silent("dead"), Rules(), at(1000))
    assert [action.record.uid for action in found] == ["a"]
    assert reap(known, silent("dead"), Rules(), at(1000)) == []


def test_what_we_do_not_understand_is_left_alone() -> None:
    assert reap(book(warm("a", state=State.UNKNOWN, life="dead")), silent("dead"), Rules(), at(1000)) == []


def test_an_ended_pod_is_left_to_its_gateway_for_a_while() -> None:
    known = book()
    known.observe(claimed("a", stage=Stage.FINISHED), at(0))
    assert reap(known, silent(), Rules(), at(LAST_WORDS - 1)) == []
    assert len(reap(known, silent(), Rules(), at(LAST_WORDS))) == 1


def test_a_named_sandbox_outlives_its_gateways_and_is_detached_from_dead_ones() -> None:
    known = book(claimed("a", sandbox="work", life="dead", attached=frozenset({"dead", "me"})))
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
    known.observe(claimed("e", session="s5", life="another"), at(0))
    assert strays(known, at(STRAY - 1)) == []
    assert [delete.record.uid for delete in strays(known, at(STRAY))] == ["b", "c"]
