"""Carrying out what a session's clock says: warn on its terminal, and end it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from sshgate.lifecycle.clocks import SessionClock, Warn
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import Lost, Outcome
from sshgate.stream.tasks import first_of

# How often bytes are looked at, so that "idle since" is right to this many seconds.
LOOK_SECONDS = 10.0


class SessionTimer:
    """Keeps one session to its limits.

    ``warn`` is given sentences for the terminal. ``busy`` tells whether a program other than the shell runs;
    it is asked only when that decides. ``present`` tells whether somebody is at the client; only a client that can
    be left and come back to ever says no.
    """

    def __init__(
        self,
        clock: SessionClock,
        traffic: Traffic,
        warn: Callable[[str], Awaitable[None]],
        busy: Callable[[], Awaitable[bool]],
        now: Callable[[], float] = time.monotonic,
        present: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._traffic = traffic
        self._warn = warn
        self._busy = busy
        self._now = now
        self._present = present
        self._was_present = True
        self._seen = 0

    async def wait_until_expired(self) -> str:
        """Returns why the session is over, when it is."""
        while True:
            now = self._look()
            event = self._clock.next_event(now)
            when, what = event if event is not None else (now + LOOK_SECONDS, None)
            if what is None or when > now:
                await asyncio.sleep(min(when - now, LOOK_SECONDS))
            elif what.unless_busy and await self._busy():
                self._clock.busy(self._now())
            elif isinstance(what, Warn):
                self._clock.warning_sent(what, now)
                minutes = "1 minute" if what.minutes == 1 else f"{what.minutes} minutes"
                await self._warn(f"this session ends in {minutes}: {what.reason}.")
            elif not what.unless_busy or self._clock.next_event(self._look()) == event:
                return what.reason  # nobody has come back, or typed, during the look

    def _look(self) -> float:
        now = self._now()
        total = self._traffic.up + self._traffic.down
        if total != self._seen:
            self._seen = total
            self._clock.active(now)
        if (present := self._present()) != self._was_present:
            self._was_present = present
            (self._clock.attached if present else self._clock.detached)(now)
        return now


async def run_with_limits(line: Coroutine[Any, Any, Outcome | None], timekeeper: SessionTimer) -> Outcome | None:
    """What ``line`` returns, or ``Lost`` when the session's time is over first."""
    first, result = await first_of(line, timekeeper.wait_until_expired())
    return cast("Outcome | None", result) if first == 0 else Lost(f"this session ended: {result}.")
