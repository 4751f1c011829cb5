"""Counts the channels in a sandbox that outlives its programs, and decides when it has to end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from sshgate.config.model import ProfileLimits
from sshgate.lifecycle.clocks import SessionClock, Warn
from sshgate.stream.tasks import Event, within

# Seconds: sessions end themselves at the maximum lifetime and say why; the sandbox is deleted this much later.
GRACE_SECONDS = 5.0


class Occupancy:
    """The number of channels in one sandbox, and its clock. It starts with no channel."""

    def __init__(self, limits: ProfileLimits) -> None:
        self.count = 0
        lifetime = limits.max_lifetime + GRACE_SECONDS
        self._began = time.monotonic()
        self._lifetime = limits.max_lifetime
        self._clock = SessionClock(limits, self._began, terminal=False, lifetime=lifetime, running_keeps=True)
        self._clock.detached(self._began)
        self._changed = Event()

    @property
    def left(self) -> float:
        """Seconds that remain of its maximum lifetime."""
        return max(0.0, self._began + self._lifetime - time.monotonic())

    def enter(self) -> None:
        """One more channel has joined."""
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
        """Return when its maximum lifetime is over, or when it was without channels for too long and is not ``busy``.

        ``busy`` looks whether a program runs in it.
        """
        while True:
            self._changed.clear()
            when, what = self._clock.next_event(time.monotonic())
            if isinstance(what, Warn):
                raise AssertionError("nobody is here to be warned")
            if when > time.monotonic():
                await within(when - time.monotonic(), self._changed.wait())
            elif not what.unless_busy:
                return
            elif await busy():
                self._clock.busy(time.monotonic())
            elif not self.count:  # a channel that joined during the look keeps it
                return
