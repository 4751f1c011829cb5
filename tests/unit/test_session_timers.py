"""Warnings and the end, carried out as the clock says. Time is the test's."""

from __future__ import annotations

import asyncio

from sshgate.config.model import ProfileLimits
from sshgate.lifecycle.clocks import SessionClock
from sshgate.session.timers import Expired, SessionTimer, run_with_limits
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import Exited


class _Scene:
    """A clock that jumps a minute at every look, and what was said."""

    def __init__(self, limits: ProfileLimits, busy: bool = False) -> None:
        self.time = 0.0
        self.output: list[str] = []
        self.asked = 0
        self._busy = busy
        self.keeper = SessionTimer(
            SessionClock(limits, 0.0, terminal=True), Traffic(), self._warn, self._is_busy, self._now
        )

    def _now(self) -> float:
        self.time += 60.0
        return self.time

    async def _warn(self, sentence: str) -> None:
        self.output.append(sentence)

    async def _is_busy(self) -> bool:
        self.asked += 1
        return self._busy


async def test_a_terminal_is_warned_five_and_one_minutes_before_the_end() -> None:
    scene = _Scene(ProfileLimits(max_lifetime=0.001 + 6 * 60, idle=0))
    scene.time = 240.0  # one minute left at the second look
    reason = await scene.keeper.wait_until_expired()
    assert reason == "its time is over"
    assert scene.output[-1] == "this session ends in 1 minute: its time is over."


async def test_the_line_ends_first_or_the_time_does() -> None:
    scene = _Scene(ProfileLimits(max_lifetime=1.0, idle=0))
    assert await run_with_limits(asyncio.sleep(60, Exited(0)), scene.keeper) == Expired(
        "this session ended: its time is over."
    )
    calm = SessionTimer(SessionClock(ProfileLimits(), 0.0, True), Traffic(), scene._warn, scene._is_busy, lambda: 0.0)
    assert await run_with_limits(asyncio.sleep(0, Exited(3)), calm) == Exited(3)


async def test_a_session_that_nobody_comes_back_to_is_over_after_its_detached_time() -> None:
    scene = _Scene(ProfileLimits())
    clock = SessionClock(ProfileLimits(detached=0.001, idle=0), 0.0, terminal=True)
    left = SessionTimer(clock, Traffic(), scene._warn, scene._is_busy, scene._now, present=lambda: False)
    assert await left.wait_until_expired() == "nobody came back"


async def test_who_comes_back_during_the_look_keeps_the_session() -> None:
    scene = _Scene(ProfileLimits())
    looked = asyncio.Event()

    async def busy() -> bool:
        looked.set()
        return False

    clock = SessionClock(ProfileLimits(detached=0.001, idle=0), 0.0, terminal=True, running_keeps=True)
    left = SessionTimer(clock, Traffic(), scene._warn, busy, scene._now, present=looked.is_set)
    over = asyncio.create_task(left.wait_until_expired())
    async with asyncio.timeout(10):
        await looked.wait()
    await asyncio.sleep(0.05)
    assert not over.done()
    over.cancel()
    await asyncio.gather(over, return_exceptions=True)


async def test_whether_something_runs_is_asked_only_when_that_decides() -> None:
    scene = _Scene(ProfileLimits(max_lifetime=86_400.0, idle=60.0))
    assert await scene.keeper.wait_until_expired() == "it was idle"
    assert scene.asked == 1
