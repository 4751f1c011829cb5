"""Picking and claiming a warm pod, one situation each. The pods are values, time is the test's."""

from __future__ import annotations

from collections import Counter

import pytest

from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.claim import ClaimAttempt, GetPod, GiveUp, StartCold, TryPatch, Won, pick
from sshgate.lifecycle.membership import is_mine
from sshgate.lifecycle.records import Stage
from sshgate.lifecycle.requests import Answer, Claim
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


# --- gateways that have just started, and do not know each other yet ---


def test_gateways_that_do_not_know_each_other_seldom_try_the_same_pod_twice() -> None:
    """All choose, then all patches arrive, as when they claim at the same moment. Nobody has to start cold."""
    gateways, logins = [f"gateway-{number}" for number in range(10)], range(4)
    pods = [warm(f"pod-{number}", created=float(number)) for number in range(200)]
    attempts = []
    for gateway in gateways:
        known = PodCache(gateway)
        known.sync(pods, at(0))
        for login in logins:
            known.begin(f"{gateway}-{login}", "ada")
            claim = Claim("ada", f"{gateway}-{login}", gateway, gateway, 60.0)
            attempts.append(ClaimAttempt(known, claim, "t1", 0.0, [gateway]))
    owners: dict[str, str] = {}
    lost = 0
    while steps := [(one, step) for one in attempts if not isinstance(step := one.step(at(0)), Won)]:
        for attempt, step in steps:
            assert isinstance(step, TryPatch)
            owner = owners.setdefault(step.record.uid, attempt.claim.session)
            won = owner == attempt.claim.session
            lost += not won
            pod = claimed(step.record.uid, session=owner)
            attempt.answered(pod if won else Answer.REFUSED, at(0))
    # The first choice is everybody's, so nine of ten lose it.
    assert lost <= 2 * len(attempts)
