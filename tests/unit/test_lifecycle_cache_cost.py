"""What a login, an event of the watch and a pass of the pools cost, counted in steps of the interpreter."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any

import pytest

from sshgate.access.limits import Starts
from sshgate.config.model import Group, Limits
from sshgate.lifecycle.admission import admit
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.claim import ClaimAttempt, TryPatch
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.parking import Parking
from sshgate.lifecycle.pool_plan import Refiller, Target, evict_for_login
from sshgate.lifecycle.reap_plan import Rules, orphans, reap
from sshgate.lifecycle.records import Record, Stage
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Claim
from tests.unit.lifecycle_values import at, claimed, nothing_attached, warm
from tests.unit.test_lifecycle_reaper import Pods

NODES = 20
INSTANCES = ("me", "they", "you")
FEW, MANY = 100, 10_000


class World:
    """A gateway among ``pods`` pods: half are warm, the rest is claimed, a fifth of it named; everybody is at rest."""

    def __init__(self, pods: int) -> None:
        self.seconds = 0.0
        self.numbers = count()
        self.limits = Limits(
            sandboxes=2 * pods, sandboxes_per_user=pods, starts_per_minute=None, groups={"all": Group(("*",), pods)}
        )
        self.registry = Registry("me", self.limits, Pods(), lambda: at(self.seconds))
        self.cache = self.registry.cache
        for instance in INSTANCES[1:]:
            self.registry.membership.observe(instance, "1")
        while not self.cache.share(INSTANCES):
            pass
        self.registry.replace([self._pod(number) for number in range(pods)])
        for number in range(1, pods, 2):
            self.cache.begin(f"s{number}", f"user{number}")
            self.cache.hold(f"s{number}", f"u{number}")
        self.refiller = Refiller(lambda: f"new{next(self.numbers)}", lambda: 0.5)
        self.targets = [Target("default", "t1", pods // 2), Target("gpu", "t2", 0)]
        # Nothing is parked, so that no event loop is needed: looking is what is measured.
        self.parking = Parking(self.registry, {}, lambda _: None, nothing_attached, lambda: 0.5)
        self.seconds = 100.0

    def _pod(self, number: int) -> Record:
        more: dict[str, Any] = {"node": f"n{number % NODES}", "created": float(number), "version": "1"}
        if number % 2 == 0:
            return warm(f"u{number}", instance="me", **more)
        user = f"user{number}"
        if number % 10 == 1:
            sandbox = {"sandbox": f"work{number}", "attached": frozenset({INSTANCES[number % 3]})}
            return claimed(f"u{number}", user, f"s{number}", **sandbox, **more)
        return claimed(f"u{number}", user, f"s{number}", **more)

    @property
    def now(self) -> Now:
        return at(self.seconds)

    # --- what is measured ---

    def log_in_and_out(self) -> None:
        session, starts = f"new{next(self.numbers)}", Starts(None)
        admit(self.cache, self.limits, starts, "ada", session, self.now)
        claim = ClaimAttempt(self.cache, Claim("ada", session, "gw", "me", 60.0), "t1", 3.0, INSTANCES)
        step = claim.step(self.now)
        assert isinstance(step, TryPatch)
        won = claimed(step.record.uid, "ada", session, version="2", node=step.record.node)
        claim.answered(won, self.now)
        self.refill()
        self.registry.end(session, won.uid)
        self.registry.remove(won.uid)

    def watch_a_pod_start(self) -> None:
        uid = f"new{next(self.numbers)}"
        for version, stage in ((1, Stage.STARTING), (2, Stage.READY)):
            self.registry.update(warm(uid, stage=stage, node="n1", version=str(version)))
        self.registry.update(claimed(uid, "bob", uid, version="3", instance="they"))
        self.registry.update(claimed(uid, "bob", uid, version="4", instance="they", deleting=True))
        self.registry.remove(uid)

    def refill(self) -> None:
        self.parking.look()
        assert orphans(self.cache, self.now) == []
        self.refiller.decide(self.cache, self.targets, self.limits.sandboxes, self.now)

    def evict(self) -> None:
        (delete,) = evict_for_login(self.cache, 1, self.now, {"t1"}, placed=True)
        self.cache.expectations.undelete(delete.record.uid)

    def reap(self) -> None:
        reap(self.cache, self.registry.membership, Rules(), self.now)

    def look(self) -> None:
        """What `/metrics`, a user's list, the Leases and a named login ask."""
        assert self.cache.counts(self.now)
        assert self.cache.instances()
        assert len(self.cache.of_user("user1", self.now)) == 1
        assert self.cache.named("p-u1") is not None


WORK = (World.log_in_and_out, World.watch_a_pod_start, World.refill, World.evict, World.reap, World.look)


@pytest.fixture(scope="module")
def worlds() -> tuple[World, World]:
    return World(FEW), World(MANY)


@pytest.mark.parametrize("work", WORK)
def test_ten_thousand_pods_cost_no_more_than_a_hundred(
    worlds: tuple[World, World], work: Callable[[World], None]
) -> None:
    for world in worlds:
        work(world)  # what is prepared once is not of interest
    few, many = (steps(work, world) for world in worlds)
    assert few > 50, "nothing was counted"
    assert many <= 1.25 * few, f"{few} steps with {FEW} pods, {many} with {MANY}"


def test_a_dead_gateway_costs_as_much_as_it_has_left(worlds: tuple[World, World]) -> None:
    for world in worlds:
        for number in range(5):
            world.registry.update(claimed(f"left{number}", "eve", f"left{number}", instance="dead"))
        world.registry.membership.left("dead")
        assert len(world.cache.of_user("eve", world.now)) == 5
    few, many = (steps(World.reap, world) for world in worlds)
    assert many <= 1.25 * few
    assert [world.cache.of_user("eve", world.now) for world in worlds] == [[], []]


def test_a_pod_takes_at_most_four_kibibytes() -> None:
    def parse(number: int) -> Record:
        """As the watch reads it: no two pods share a string."""
        record = claimed(f"{number:032x}", f"user{number}", f"{number:032x}", node=f"node{number}", version=f"{number}")
        return Record(**{name: _copy(getattr(record, name)) for name in Record.__slots__})

    tracemalloc.start()
    try:
        cache = PodCache("me")
        before = tracemalloc.get_traced_memory()[0]
        cache.sync((parse(number) for number in range(1000)), at(0))
        assert (tracemalloc.get_traced_memory()[0] - before) / 1000 <= 4096
    finally:
        tracemalloc.stop()


def _copy(value: Any) -> Any:
    return value.encode().decode() if isinstance(value, str) else value


def steps(work: Callable[[World], object], world: World) -> int:
    """The number of bytecode instructions that are executed in the lifecycle's modules."""
    counted = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal counted
        if "/lifecycle/" not in frame.f_code.co_filename.replace("\\", "/"):
            return None
        frame.f_trace_opcodes = True
        counted += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work(world)
    finally:
        sys.settrace(before)
    return counted
