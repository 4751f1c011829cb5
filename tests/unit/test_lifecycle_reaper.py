"""What the reaper carries out, against pods that are values."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sshgate.config.model import Limits
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.membership import LEASE_DURATION
from sshgate.lifecycle.reap_plan import Rules
from sshgate.lifecycle.reaper import Reaper
from sshgate.lifecycle.records import Record, Stage
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Answer, Create, Delete, Patch
from tests.unit.lifecycle_values import START, claimed

LIMITS = Limits()


class Pods:
    """The ``Cluster`` of one test: answers as told, remembers what was asked."""

    def __init__(self, refuse: bool = False) -> None:
        self.deleted: list[str] = []
        self.patched: list[tuple[str, list[str]]] = []
        self._answer = Answer.REFUSED if refuse else None

    async def make(self, create: Create) -> Record:
        raise AssertionError("the reaper makes nothing")

    async def patch(self, name: str, patch: Patch) -> Record | Answer:
        self.patched.append((name, [one["path"] for one in patch if one["op"] != "test"]))
        return Answer.UNKNOWN

    async def look(self, name: str) -> Record | Answer:
        return Answer.MISSING

    async def delete(self, delete: Delete) -> Answer | None:
        self.deleted.append(delete.record.uid)
        return self._answer


class World:
    """A registry whose clock the test moves, and a reaper on it."""

    def __init__(self, *records: Record, leads: bool = True, busy: bool = False, refuse: bool = False) -> None:
        self.seconds = 0.0
        self.pods = Pods(refuse)
        self.registry = Registry("me", LIMITS, self.pods, lambda: Now(START + self.seconds, self.seconds))
        self.registry.replace(records)

        async def looks(record: Record) -> bool:
            return busy

        self.registry.leader = lambda: leads
        self.reaper = Reaper(self.registry, lambda: Rules({"default": 60.0}), looks)

    async def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.seconds += 1
            self.registry.membership.count_time(self.seconds, self.registry.cache.instances())
            self.reaper.reap_once()
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def test_the_pods_of_a_silent_gateway_go_and_those_of_a_living_one_stay() -> None:
    world = World(claimed("a", instance="dead"), claimed("b", instance="me", session="mine"))
    world.registry.admit("ada", "mine")
    world.registry.cache.hold("mine", "b")
    await world.pass_time(LEASE_DURATION - 1)
    assert world.pods.deleted == []
    await world.pass_time(3)
    assert world.pods.deleted == ["a"]


async def test_only_the_leader_reaps() -> None:
    world = World(claimed("a", instance="dead"), leads=False)
    await world.pass_time(LEASE_DURATION + 3)
    assert world.pods.deleted == []


async def test_a_named_sandbox_nobody_came_back_to_goes_after_its_time() -> None:
    record = claimed("a", instance="dead", sandbox="work", detached_at=START)
    world = World(record)
    await world.pass_time(59)
    assert world.pods.deleted == []
    await world.pass_time(2)
    assert world.pods.deleted == ["a"]


async def test_a_program_that_runs_keeps_it_and_is_noted() -> None:
    world = World(claimed("a", instance="dead", sandbox="work", detached_at=START), busy=True)
    await world.pass_time(61)
    assert world.pods.deleted == []
    assert world.pods.patched[0] == ("p-a", ["/metadata/annotations/sshgate.dev~1last-seen"])


async def test_the_clients_of_a_dead_gateway_are_detached() -> None:
    world = World(claimed("a", instance="me", sandbox="work", attached=frozenset({"dead"})))
    await world.pass_time(LEASE_DURATION + 2)
    name, paths = world.pods.patched[0]
    assert name == "p-a"
    assert "/metadata/annotations/attached.sshgate.dev~1dead" in paths
    assert world.pods.deleted == []


async def test_a_refused_deletion_is_decided_anew() -> None:
    world = World(claimed("a", instance="dead"), refuse=True)
    await world.pass_time(LEASE_DURATION + 4)
    assert len(world.pods.deleted) >= 2


async def test_a_pod_that_ended_is_removed_after_its_last_words() -> None:
    ended = replace(claimed("a", instance="me", session="mine", created=START), stage=Stage.FINISHED)
    world = World(ended)
    world.registry.admit("ada", "mine")
    world.registry.cache.hold("mine", "a")
    await world.pass_time(29)
    assert world.pods.deleted == []
    await world.pass_time(2)
    assert world.pods.deleted == ["a"]
