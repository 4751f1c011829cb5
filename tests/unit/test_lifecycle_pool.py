"""What a gateway that does not lead says of its pools."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from sshgate.config.model import Limits
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.parking import Parking
from sshgate.lifecycle.pool import UNFILLED_SECONDS, PoolController
from sshgate.lifecycle.pool_plan import Target
from sshgate.lifecycle.registry import Registry
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


async def last() -> bool:
    return False
