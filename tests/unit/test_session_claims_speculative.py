"""A sandbox that is claimed before the client has said what for: used once, or given up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sshgate.config.model import Profile
from sshgate.errors import LimitReached
from sshgate.sandbox.interfaces import Notice, Order, Sandbox
from sshgate.session.claims import SpeculativeClaim
from tests.rig.ends import TestSandbox

ORDER = Order(Profile(warm=1), "dev", "s1")


class Maker:
    """Makes a sandbox when asked to, and keeps count."""

    def __init__(self) -> None:
        self.room = TestSandbox()
        self.ready = asyncio.Event()
        self.cancelled = False
        self.full = False

    async def create(self, order: Order, notice: Notice) -> Sandbox:
        if self.full:
            raise LimitReached("all sandboxes are in use.")
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        notice("here")
        return self.room


async def test_a_speculative_claim_is_used_and_its_progress_shown() -> None:
    maker, output = Maker(), list[str]()
    speculative = SpeculativeClaim(maker.create, ORDER)
    assert speculative.matches(ORDER)
    using = asyncio.create_task(speculative.use(output.append))
    await asyncio.sleep(0)
    maker.ready.set()
    assert await using is maker.room
    assert output == ["here"]
    assert not speculative.matches(ORDER), "once"
    await speculative.cancel()
    assert not maker.room.deleted


async def test_another_profile_does_not_fit() -> None:
    maker = Maker()
    speculative = SpeculativeClaim(maker.create, ORDER)
    assert not speculative.matches(replace(ORDER, profile=Profile(name="gpu")))
    await speculative.cancel()


@pytest.mark.parametrize("ready", [True, False])
async def test_what_nobody_uses_is_given_up(ready: bool) -> None:
    maker = Maker()
    speculative = SpeculativeClaim(maker.create, ORDER)
    await asyncio.sleep(0)
    if ready:
        maker.ready.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await speculative.cancel()
    await speculative.cancel()
    assert maker.room.deleted is ready
    assert maker.cancelled is not ready


async def test_a_user_who_gives_up_takes_what_is_under_way_along() -> None:
    maker = Maker()
    using = asyncio.create_task(SpeculativeClaim(maker.create, ORDER).use(lambda text: None))
    await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert maker.cancelled


async def test_its_failure_is_raised_to_its_user_and_to_nobody_else() -> None:
    maker = Maker()
    maker.full = True
    unused, used = SpeculativeClaim(maker.create, ORDER), SpeculativeClaim(maker.create, ORDER)
    await asyncio.sleep(0)
    await unused.cancel()
    with pytest.raises(LimitReached):
        await used.use(lambda text: None)
