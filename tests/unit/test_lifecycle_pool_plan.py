"""Refilling the pools, and what one gateway knows, one situation each. The pods are values, time is the test's."""

from __future__ import annotations

from collections import Counter

import pytest

from sshgate.lifecycle.cache import RESERVATION_SECONDS, PodCache
from sshgate.lifecycle.expectations import EXPIRY
from sshgate.lifecycle.pool_plan import STUCK, Target, Wait, evict_for_login
from sshgate.lifecycle.records import Stage
from sshgate.lifecycle.requests import Create, Delete
from tests.unit.lifecycle_values import at, book, claimed, follow, kinds, refiller, warm

# --- refill ---


def test_nothing_is_made_before_the_first_list() -> None:
    assert refiller().decide(PodCache("me"), [Target("default", "t1", 3)], 10, at(0)) == []


def test_an_empty_pool_is_filled_a_quarter_at_a_time_as_the_bucket_allows() -> None:
    known, plan, target = book(), refiller(), Target("default", "t1", 8, per_minute=60)
    first = plan.decide(known, [target], 100, at(0))
    assert kinds(first) == {"Create": 2, "Wait": 1}
    assert kinds(plan.decide(known, [target], 100, at(0))) == {"Wait": 1}
    assert kinds(plan.decide(known, [target], 100, at(1.1))) == {"Create": 1, "Wait": 1}


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
    assert plan.decide(known, [target], 100, at(1)) == [Wait("default", "not so fast", 2.0)]
    assert kinds(plan.decide(known, [target], 100, at(3))) == {"Create": 1}


def test_creations_without_an_answer_are_repeated_ever_less_often_by_one_at_a_time() -> None:
    """An admission webhook that is down answers 500 to each."""
    known, plan, target = book(), refiller(), Target("default", "t1", 8)
    names: list[str] = []
    for second in range(600):
        actions = plan.decide(known, [target], 100, at(second))
        for action in actions:
            if isinstance(action, Create):
                names.append(action.name)
                plan.unanswered(action, "HTTP 500", at(second))
        last = actions[-1]
        assert second == 0 or (isinstance(last, Wait) and last.reason == "HTTP 500"), "known in each pass"
    assert 20 <= len(names) <= 30
    assert len(set(names)) < len(names) - 10, "most are repeated with the same names"


def test_an_answer_ends_the_pause_and_what_was_not_answered_follows_with_its_names() -> None:
    known, plan, target = book(), refiller(), Target("default", "t1", 8)
    first = [one for one in plan.decide(known, [target], 100, at(0)) if isinstance(one, Create)]
    for action in first:
        plan.unanswered(action, "HTTP 500", at(0))
    assert plan.decide(known, [target], 100, at(0.5)) == [Wait("default", "HTTP 500", 1.0)]
    repeated, *rest = plan.decide(known, [target], 100, at(1))
    assert repeated == first[0]
    assert rest == [Wait("default", "HTTP 500", 3.0)]
    assert kinds(plan.decide(known, [target], 100, at(2))) == {"Wait": 1}, "the answer may take its time"
    follow(known, [repeated], at(2))
    plan.answered(first[0])
    again = plan.decide(known, [target], 100, at(2))
    assert again[: len(first) - 1] == first[1:]
    assert kinds(again)["Create"] > len(first) - 1, "and what is still missing"


def test_a_pool_of_a_changed_profile_does_not_wait_for_the_answers_of_the_old_one() -> None:
    known, plan = book(), refiller()
    for second in range(100):
        for action in plan.decide(known, [Target("default", "t1", 4)], 100, at(second)):
            if isinstance(action, Create):
                plan.unanswered(action, "HTTP 500", at(second))
    (made, *_) = plan.decide(known, [Target("default", "t2", 4)], 100, at(100))
    assert isinstance(made, Create)
    assert made.template == "t2"


def test_a_pool_that_the_watch_shows_full_waits_for_no_answer() -> None:
    """The pod was made, only the answer was lost."""
    known, plan, target = book(), refiller(), Target("default", "t1", 1)
    (create,) = plan.decide(known, [target], 100, at(0))
    assert isinstance(create, Create)
    plan.unanswered(create, "no answer", at(0))
    follow(known, [create], at(0))
    assert plan.decide(known, [target], 100, at(0)) == []


def test_a_pool_of_size_0_and_the_pool_of_a_removed_profile_are_emptied() -> None:
    for targets in ([Target("default", "t1", 0)], []):
        assert kinds(refiller().decide(book(warm("a"), warm("b", "old")), targets, 10, at(0))) == {"Delete": 2}


def test_pools_stay_within_the_limit_and_say_so() -> None:
    known = book(claimed("a"), claimed("b", session="s2"))
    actions = refiller().decide(known, [Target("default", "t1", 4)], 3, at(0))
    assert kinds(actions) == {"Create": 1, "Wait": 1}
    assert actions[-1] == Wait("default", "all 3 sandboxes are taken", 60.0)


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
            assert kinds(actions) == {"Wait": 1}
        assert isinstance(actions[0], Wait)
        assert actions[0].until == pytest.approx(seconds + 60)


def test_a_pod_that_never_starts_is_replaced_and_the_pool_pauses() -> None:
    known, plan = book(), refiller()
    known.observe(warm("a", stage=Stage.STARTING), at(0))
    target = Target("default", "t1", 1)
    assert plan.decide(known, [target], 10, at(STUCK - 1)) == []
    actions = plan.decide(known, [target], 10, at(STUCK))
    assert [type(action) for action in actions] == [Delete, Wait]


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


def test_a_mended_profile_does_not_wait_for_the_pause_of_the_broken_one() -> None:
    known, plan = book(), refiller()
    for second in range(600):
        for action in plan.decide(known, [Target("default", "t1", 1)], 10, at(second)):
            if isinstance(action, Create):
                known.observe(warm(f"u{second}", stage=Stage.FINISHED, name=action.name), at(second))
            elif isinstance(action, Delete):
                known.gone(action.record.uid, at(second))
    known.observe(warm("last", stage=Stage.FINISHED), at(600))
    assert kinds(plan.decide(known, [Target("default", "t2", 1)], 10, at(600))) == {"Delete": 1, "Create": 1}


def test_no_warm_pod_is_made_while_a_user_waits_for_a_node() -> None:
    known = book(claimed("a", stage=Stage.UNSCHEDULABLE))
    actions = refiller().decide(known, [Target("default", "t1", 2)], 10, at(0))
    assert actions == [Wait("default", "a login waits for room on a node", 60.0)]


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
        assert kinds(plan.decide(known, [Target("default", "t1", 4)], 100, at(seconds))) == {"Wait": 1}


def test_stale_pods_make_room_where_fresh_ones_find_none() -> None:
    full = book(*(warm(f"old{i}", "t0") for i in range(4)))
    assert kinds(refiller().decide(full, [Target("default", "t1", 4)], 4, at(0))) == {
        "Delete": 1, "Create": 1, "Wait": 1
    }  # fmt: skip
    crowded = book(*(warm(f"old{i}", "t0") for i in range(4)), warm("new", stage=Stage.UNSCHEDULABLE))
    plan = refiller()
    assert kinds(plan.decide(crowded, [Target("default", "t1", 4)], 9, at(0))) == {"Delete": 1, "Wait": 1}
    follow(crowded, [Delete(warm("old0", "t0"), "", True), Delete(warm("old3", "t0"), "", True)], at(0))
    assert kinds(plan.decide(crowded, [Target("default", "t1", 4)], 9, at(30))) == {"Wait": 1}


def test_every_deletion_of_a_warm_pod_spares_one_that_was_just_claimed() -> None:
    known = book(*(warm(str(i)) for i in range(3)), warm("f", stage=Stage.FINISHED))
    actions = refiller().decide(known, [], 10, at(0))
    assert len(actions) == 4
    assert all(isinstance(action, Delete) and action.untouched for action in actions)


def test_warm_pods_give_way_stale_ones_first_and_where_asked_only_placed_ones() -> None:
    known = book(warm("fresh"), warm("stale", "t0"), warm("nowhere", node="", stage=Stage.UNSCHEDULABLE))
    assert [one.record.uid for one in evict_for_login(known, 1, at(0), {"t1"})] == ["stale"]
    known.observe(warm("nowhere", node=None, stage=Stage.UNSCHEDULABLE), at(0))
    assert [one.record.uid for one in evict_for_login(known, 5, at(0), {"t1"}, placed=True)] == ["fresh"]


# --- the book ---


def test_a_watch_older_than_our_patch_does_not_make_a_pod_warm_again() -> None:
    for version in ("1", "opaque"):
        known = book(warm("a", version=version))
        known.observe(claimed("a", version="2"), at(0))
        assert not known.observe(warm("a", version=version), at(1))
        assert repr(known) == "<PodCache 0 warm, 1 claimed, 0 going, 0 sessions, <Expectations 0 creates, 0 deletes>>"


def test_a_pod_that_is_gone_is_not_brought_back_by_a_late_answer() -> None:
    known = book(warm("a"))
    known.gone("a", at(0))
    assert not known.observe(warm("a", version="9"), at(1))
    assert known.named("p-a") is None


def test_a_list_forgets_what_it_does_not_show() -> None:
    known = book(warm("a"), warm("b"))
    known.sync([warm("b")], at(1))
    assert [one.record.uid for one in known.warm(at(1))] == ["b"]


def test_a_list_does_not_forget_what_was_made_after_it() -> None:
    known = book(warm("a", version="8"))
    known.observe(warm("b", version="12"), at(1))
    known.sync([warm("c", version="9")], at(1), "10")
    assert {one.record.uid for one in known.warm(at(2))} == {"b", "c"}
    known.observe(warm("b", version="13"), at(2))
    known.sync([], at(3), "20")
    assert known.warm(at(3)) == []


def test_deletions_of_pods_that_were_gone_already_are_not_remembered_for_ever() -> None:
    known = book()
    for second in range(1000):
        known.expectations.delete(str(second), float(second))
    assert "60 deletes" in repr(known.expectations)


def test_a_claim_that_never_arrived_frees_its_pod_soon_after_its_session_gave_up() -> None:
    known = book(warm("a"))
    known.begin("s1", "ada")
    known.reserve("a", "s1", at(0))
    known.end("s1")
    assert known.warm(at(RESERVATION_SECONDS - 1)) == []
    assert len(known.warm(at(RESERVATION_SECONDS))) == 1


def test_a_session_that_still_waits_for_its_claim_keeps_the_pod() -> None:
    known = book(warm("a"))
    known.begin("s1", "ada")
    known.reserve("a", "s1", at(0))
    assert known.warm(at(10 * RESERVATION_SECONDS)) == []
    assert known.total(at(10 * RESERVATION_SECONDS)) == 1
    known.end("s1")
    assert len(known.warm(at(10 * RESERVATION_SECONDS))) == 1


def test_a_session_and_its_pod_count_once() -> None:
    known = book(warm("a"))
    known.begin("s1", "ada")
    assert known.total(at(0)) == 2
    known.reserve("a", "s1", at(0))
    assert known.total(at(0)) == 1
    known.observe(claimed("a", session="s1", version="2"), at(0))
    assert known.total(at(0)) == 1
    assert known.owned("ada", at(0)) == known.in_use(at(0)) == 1
