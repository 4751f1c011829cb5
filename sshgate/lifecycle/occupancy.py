"""Who is in a sandbox that outlives its programs, and when nobody will come back to it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from sshgate.config.model import ProfileLimits
from sshgate.lifecycle.clocks import SessionClock, Warn

# Sessions end themselves at the maximum lifetime and say why; what they leave goes this much later.
GRACE_SECONDS = 5.0


class Occupancy:
    """The channels in one sandbox, and its clock. Nobody is in it at first."""

    def __init__(self, limits: ProfileLimits) -> None:
        self.count = 0
        lifetime = limits.max_lifetime + GRACE_SECONDS
        self._began = time.monotonic()
        self._lifetime = limits.max_lifetime
        self._clock = SessionClock(limits, self._began, terminal=False, lifetime=lifetime, running_keeps=True)
        self._clock.detached(self._began)
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Occupancy {self.count} channels, {self._clock!r}>"

    @property
    def left(self) -> float:
        """Seconds of its maximum lifetime that remain."""
        return max(0.0, self._began + self._lifetime - time.monotonic())

    def enter(self) -> None:
        """One more channel is in it."""
        self.count += 1
        self._clock.attached(time.monotonic())
        self._changed.set()

    def leave(self) -> None:
        """One channel has left."""
        self.count -= 1
        if not self.count:
            self._clock.detached(time.monotonic())
            self._changed.set()

    async def until_over(self, busy: Callable[[], Awaitable[bool]]) -> None:
        """Returns when its time is over, or when nobody came back to it and it is not ``busy``."""
        while True:
            self._changed.clear()
            event = self._clock.next_event(time.monotonic())
            assert event is not None  # there is a maximum lifetime
            when, what = event
            if isinstance(what, Warn):
                raise AssertionError("nobody is here to be warned")
            if when > time.monotonic():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(when - time.monotonic()):
                        await self._changed.wait()
            elif not what.unless_busy:
                return
            elif await busy():
                self._clock.busy(time.monotonic())
            elif not self.count:  # who came during the look keeps it
                return
