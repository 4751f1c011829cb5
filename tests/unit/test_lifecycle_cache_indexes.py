"""The indexes of the cache equal a recount after any sequence of events, and cost the same for any number of pods."""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import replace
from random import Random
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sshgate.lifecycle.cache import RESERVATION_SECONDS, PodCache
from sshgate.lifecycle.claim import pick
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.membership import Membership
from sshgate.lifecycle.pool_plan import evict_for_login
from sshgate.lifecycle.reap_plan import Rules, orphans, reap
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.schema import user_hash
from tests.unit.lifecycle_values import START, at, book, warm
from tests.unit.recounted_cache import RecountedCache

UIDS = st.sampled_from([f"u{number}" for number in range(12)])
SESSIONS = ("s1", "s2", "s3")
USERS = ("ada", "bob", "alan")
INSTANCES = ("me", "you", "they")
PROFILES = ("default", "gpu")
TEMPLATES = ("t1", "t2")
RULES = Rules({"default": 60.0}, otherwise=120.0)
TIMES = (None, START - 500.0, START, START + 100.0)
SEEDS = st.integers(0, 1 << 16)


def facts(seed: int) -> dict[str, Any]:
    """What may differ between two reports on one pod; most are like those that a gateway writes."""
    chance = Random(seed)
    state = chance.choice((State.WARM, State.WARM, State.CLAIMED, State.CLAIMED, State.DRAINING, State.UNKNOWN))
    values: dict[str, Any] = {
        "state": state,
        "stage": chance.choice((*Stage, Stage.READY, Stage.READY)),
        "node": chance.choice((None, "n1", "n2", "n3")),
        "ip": chance.choice((None, "10.0.0.1", "10.0.0.1")),
        "deleting": chance.random() < 0.1,
        "instance": chance.choice((None, *INSTANCES)),
        "ready_since": chance.choice(TIMES),
    }
    if state is not State.WARM or chance.random() < 0.1:
        user = chance.choice(USERS)
        named = chance.random() < 0.5
        values |= {
            "user": chance.choice((user, None)),
            "user_hash": chance.choice((user_hash(user), user_hash(user), None)),
            "session": chance.choice((*SESSIONS, None)),
            "sandbox": "work" if named else None,
            "attached": frozenset(one for one in INSTANCES if chance.random() < 0.3) if named else frozenset(),
            "claimed_at": chance.choice(TIMES), "detached_at": chance.choice(TIMES), "last_seen": chance.choice(TIMES),
            "kept_for": chance.choice((None, 30.0)),
        }  # fmt: skip
    return values


class Events(RuleBasedStateMachine):
    """Every event goes to the cache and to the recount."""

    def __init__(self) -> None:
        super().__init__()
        self.mono, self.wall = 1000.0, START
        self.version = 0
        self.cache, self.plain = PodCache("me"), RecountedCache("me")
        self.membership = Membership("me")
        self.parkable: set[str] = set()
        self.cache.parkable_changed = self.note_parkable

    @property
    def now(self) -> Now:
        return Now(self.wall, self.mono)

    def note_parkable(self, uid: str) -> None:
        self.parkable = self.parkable | {uid} if self.cache.parkable(uid) is not None else self.parkable - {uid}

    def record(self, uid: str, seed: int) -> Record:
        self.version += 1
        number = int(uid[1:])
        profile, template = PROFILES[number % 2], TEMPLATES[number % 3 % 2]
        made = START - number // 2
        return Record(
            f"p{number % 9}", uid, str(self.version), profile=profile, template=template, created=made, **facts(seed)
        )

    @rule(found=st.dictionaries(UIDS, SEEDS))
    def sync(self, found: dict[str, int]) -> None:
        listed = [self.record(uid, seed) for uid, seed in found.items()]
        self.cache.sync(listed, self.now)
        self.plain.sync(listed, self.now)

    @rule(uid=UIDS, seed=SEEDS, late=st.integers(0, 5))
    def observe(self, uid: str, seed: int, late: int) -> None:
        record = self.record(uid, seed)
        if late == 0:
            record = replace(record, version=str(max(1, self.version - 5)))
        assert self.cache.observe(record, self.now) == self.plain.observe(record, self.now)

    @rule(uid=UIDS)
    def fence(self, uid: str) -> None:
        self.cache.fence(uid)
        if uid in self.plain.pods:
            self.plain.pods[uid] = replace(self.plain.pods[uid], fenced=True)

    @rule(uid=UIDS)
    def gone(self, uid: str) -> None:
        self.cache.gone(uid, self.now)
        self.plain.gone(uid, self.now)

    @rule(uid=UIDS, session=st.sampled_from((*SESSIONS, None)))
    def reserve(self, uid: str, session: str | None) -> None:
        self.cache.reserve(uid, session, self.now)
        self.plain.reserve(uid, session, self.now)

    @rule(session=st.sampled_from(SESSIONS), user=st.sampled_from(USERS))
    def begin(self, session: str, user: str) -> None:
        if session not in self.plain.sessions:
            self.cache.begin(session, user)
            self.plain.begin(session, user, self.now)

    @rule(session=st.sampled_from(SESSIONS), uid=UIDS)
    def hold(self, session: str, uid: str) -> None:
        self.cache.hold(session, uid)
        if session in self.plain.sessions:
            self.plain.sessions[session] = (self.plain.sessions[session][0], uid)

    @rule(session=st.sampled_from(SESSIONS))
    def end(self, session: str) -> None:
        self.cache.end(session)
        self.plain.sessions.pop(session, None)

    @rule(number=st.integers(0, 9), profile=st.sampled_from(PROFILES), template=st.sampled_from(TEMPLATES))
    def expect_creation(self, number: int, profile: str, template: str) -> None:
        self.cache.expectations.create(f"p{number}", profile, template, self.mono)
        self.plain.create(f"p{number}", profile, template, self.now)

    @rule(number=st.integers(0, 9))
    def refuse_creation(self, number: int) -> None:
        self.cache.expectations.observe(f"p{number}")
        self.plain.creates.pop(f"p{number}", None)

    @rule(uid=UIDS)
    def expect_deletion(self, uid: str) -> None:
        self.cache.expectations.delete(uid, self.mono)
        self.plain.delete(uid, self.now)

    @rule(uid=UIDS)
    def refuse_deletion(self, uid: str) -> None:
        self.cache.expectations.undelete(uid)
        self.plain.deletes.pop(uid, None)

    @rule(seconds=st.sampled_from((0.1, 1.0, 4.0, 16.0, 61.0, 301.0)))
    def time_passes(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds
        self.membership.count_time(self.mono, self.cache.instances())

    @rule(seconds=st.sampled_from((-1e6, -100.0, 100.0, 1e6)))
    def the_server_clock_is_set(self, seconds: float) -> None:
        self.wall += seconds

    @rule(instances=st.sampled_from((("me",), ("me", "you"), ("me", "they", "you"))))
    def instances_come_and_go(self, instances: tuple[str, ...]) -> None:
        self.plain.instances = instances
        self.cache.share(instances)

    @rule(instance=st.sampled_from(("you", "they")))
    def an_instance_ends(self, instance: str) -> None:
        self.membership.left(instance)

    @rule()
    def reap(self) -> None:
        expected = set(self.plain.reap(self.membership, RULES, self.now)) if self.plain.synced else set()
        actions = reap(self.cache, self.membership, RULES, self.now)
        assert set(actions) == expected
        assert len(actions) == len(expected)
        for action in actions:
            if self.cache.expectations.deleting(action.record.uid):
                self.plain.delete(action.record.uid, self.now)

    @rule()
    def delete_orphans(self) -> None:
        expected = self.plain.orphans(self.now)
        assert {delete.record.uid for delete in orphans(self.cache, self.now)} == expected
        for uid in expected:
            self.plain.delete(uid, self.now)

    @rule(count=st.integers(0, 5), placed=st.booleans(), templates=st.sampled_from(((), ("t1",))))
    def evict(self, count: int, placed: bool, templates: tuple[str, ...]) -> None:
        pools = [(profile, template) for profile in PROFILES for template in TEMPLATES]
        ended = {one.record.uid for one in self.plain.warm(self.now) if one.record.stage is Stage.FINISHED}
        worst = {uid for pool in pools for uid in self.plain.pool(self.now, *pool, placed=placed)} - ended
        stale = {one.record.uid for one in self.plain.warm(self.now) if one.record.template not in templates}
        found = [one.record.uid for one in evict_for_login(self.cache, count, self.now, templates, placed)]
        assert len(found) == min(count, len(worst))
        assert set(found) <= worst
        assert set(found) <= stale or worst & stale <= set(found), "stale ones first"
        for uid in found:
            self.plain.delete(uid, self.now)

    # --- the recount ---

    @invariant()
    def counts_and_limits_are_equal(self) -> None:
        cache, plain, now = self.cache, self.plain, self.now
        claims = plain.claims(now)
        assert cache.total(now) == plain.total(now)
        assert cache.in_use(now) == len(claims)
        for user in USERS:
            assert cache.owned(user, now) == sum(owner == user_hash(user) for owner, _ in claims.values())
            assert cache.of_user(user, now) == plain.of_user(user, now)
        for patterns in (("a*",), ("bob", "alan")):
            assert cache.owned_by_group(patterns, now) == plain.owned_by_group(patterns, now)
        phases = [(one.record.profile, one.record.phase) for one in plain.visible(now)]
        assert cache.counts(now) == {phase: phases.count(phase) for phase in phases}

    @invariant()
    def pools_are_equal(self) -> None:
        cache, plain, now = self.cache, self.plain, self.now
        pools = {(pool.profile, pool.template): pool for pool in cache.pools(now)}
        assert pools.keys() == {(one.record.profile, one.record.template) for one in plain.warm(now)}
        for group, pool in pools.items():
            uids = plain.pool(now, *group)
            assert [key[-1] for key in pool.least()] == uids
            assert [key[-1] for key in pool.least(placed=True)] == plain.pool(now, *group, placed=True)
            for stage in Stage:
                assert pool.count(stage) == sum(plain.pods[uid].record.stage is stage for uid in uids)
        for profile in PROFILES:
            starting = [one for one in plain.warm(now) if one.record.stage is Stage.STARTING]
            old = {
                one.record.uid
                for one in starting
                if one.record.profile == profile and one.stage_since <= self.mono - 60
            }
            assert {one.uid for one in cache.starting(profile, self.mono - 60)} == old
            warm = {uid for uid, one in plain.pods.items() if one.record.state is State.WARM}
            leaving = warm - {one.record.uid for one in plain.visible(now)}
            assert cache.leaving(profile) == sum(plain.pods[uid].record.profile == profile for uid in leaving)
            for template in TEMPLATES:
                assert cache.expectations.creating(profile, template) == plain.creating(now)[profile, template]
        assert cache.login_waits(now) == plain.login_waits(now)

    @invariant()
    def the_same_pods_are_found(self) -> None:
        cache, plain, now = self.cache, self.plain, self.now
        for template in TEMPLATES:
            ready = [one for one in plain.warm(now) if one.record.usable and one.record.template == template]
            assert cache.newest_ready(template) == max((one.stage_since for one in ready), default=-math.inf)
            for settle in (0.0, 3.0, 30.0):
                picked = pick(cache, template, settle, plain.instances, now)
                assert (picked.uid if picked is not None else None) == plain.pick(template, settle, now)
        assert self.parkable == set(cache.all_parkable()) == plain.parkable(now)
        named = [one.record for one in plain.pods.values()]
        for name in {one.name for one in named}:
            best = max((not one.deleting, one.created) for one in named if one.name == name)
            found = cache.named(name)
            assert found is not None
            assert (not found.deleting, found.created) == best
        for instance in INSTANCES:
            sandboxes = [one.record for one in plain.visible(now) if one.record.sandbox]
            assert set(cache.attached(instance, now)) == {one for one in sandboxes if instance in one.attached}
        instances = {instance for one in named for instance in (one.instance, *one.attached)}
        assert set(cache.instances()) == instances - {None}
        for session in SESSIONS:
            bearing = {one.record.uid for one in plain.visible(now) if one.record.session == session}
            assert {one.uid for one in cache.of_session(session, now)} == bearing


@pytest.mark.parametrize("others", [[], [warm("other", "t2", profile="gpu", stage=Stage.STARTING)]])
def test_what_is_asked_first_after_a_reservation_has_its_pod_again(others: list[Record]) -> None:
    for asked in (PodCache.pools, PodCache.counts):
        cache = book(*others, warm("lost"))
        cache.reserve("lost", None, at(1))
        assert len(cast(Sized, asked(cache, at(2)))) == len(others) + (asked is PodCache.counts)
        assert len(cast(Sized, asked(cache, at(2 + RESERVATION_SECONDS)))) == len(others) + 1


TestEvents = Events.TestCase
TestEvents.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    phases=(Phase.generate, Phase.shrink),
)
