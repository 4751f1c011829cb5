"""What a gateway that does not lead says of its pools, and what one does whose API server fails."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from structlog.testing import capture_logs

from sshgate.config.model import Limits
from sshgate.errors import Unavailable
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.parking import Parking
from sshgate.lifecycle.pool import SHORTEST, UNFILLED_SECONDS, PoolController
from sshgate.lifecycle.pool_plan import Target
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Answer, Create, Delete
from tests.unit.lifecycle_values import START, nothing_attached, warm
from tests.unit.test_lifecycle_reaper import Pods


async def test_pools_that_the_leader_does_not_fill_are_named_once() -> None:
    seconds = 0.0
    registry = Registry("me", Limits(), Pods(), lambda: Now(START + seconds, seconds))
    registry.leader = lambda: False
    registry.replace([warm("a", template="t1"), warm("b", template="old", profile="gpu")])
    parking = Parking(registry, {}, lambda _: None, nothing_attached, lambda: 0.5)
    targets = [Target("default", "t1", 1), Target("gpu", "t2", 1), Target("none", "t3", 0)]
    pools = PoolController(registry, [one for one in targets if one.size], parking, lambda: "x", lambda: 0.5)
    with capture_logs() as logs:
        pools.start()
        for _ in range(10):
            seconds += UNFILLED_SECONDS / 4
            registry.notify()
            await asyncio.sleep(0.05)
        assert [(one["event"], one["profile"]) for one in logs] == [("pool.held", "gpu")]
        assert "the same profiles" in logs[0]["reason"]
        await pools.close(1.0, last)


@pytest.mark.parametrize("gone", [False, True])
async def test_an_api_server_that_fails_is_asked_ever_less_often(gone: bool) -> None:
    """As where an admission webhook is down. Logged once; of the deletions each is tried once per pause."""
    seconds = 0.0
    pods = Failing()
    limits = Limits(sandboxes=20)
    registry = Registry("me", limits, pods, lambda: Now(START + seconds, seconds))
    registry.leader = lambda: True
    registry.replace([warm("a", template="old"), warm("b", template="old")] if gone else [])
    numbers = count()
    parking = Parking(registry, {}, lambda _: None, nothing_attached, lambda: 0.5)
    targets = [] if gone else [Target("default", "t1", 4)]
    pools = PoolController(registry, targets, parking, lambda: str(next(numbers)), lambda: 0.5)

    async def passes(number: int) -> None:
        nonlocal seconds
        for _ in range(number):
            seconds += 4
            registry.notify()
            await asyncio.sleep(1.5 * SHORTEST)

    with capture_logs() as logs:
        pools.start()
        await passes(15)
        assert 4 <= len(pods.requests) <= (12 if gone else 7)
        held = [one["reason"] for one in logs if one["event"] == "pool.held"]
        assert held == ([] if gone else ["the API server failed (HTTP 500)."])
        pods.well = True
        await passes(12)
        assert len(registry.cache.warm(registry.now)) == (0 if gone else 4)
        await pools.close(1.0, last)


class Failing(Pods):
    """A ``Cluster`` that is not well: what it is asked to make or delete stays undone."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.well = False

    async def make(self, create: Create) -> Record:
        self.requests.append(create.name)
        if not self.well:
            raise Unavailable("the API server failed (HTTP 500).")
        return warm(create.name, create.template, name=create.name)

    async def delete(self, delete: Delete) -> Answer | None:
        self.requests.append(delete.record.name)
        return Answer.MISSING if self.well else Answer.UNKNOWN


async def last() -> bool:
    return False
