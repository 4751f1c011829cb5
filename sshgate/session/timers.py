"""Enforces a session's time limits: warns on its terminal and ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from sshgate.lifecycle.clocks import SessionClock, Warn
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import Lost, Outcome
from sshgate.stream.tasks import first_of

# Interval at which traffic is sampled, which is also the precision of the idle time.
LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Expired(Lost):
    """A time limit has ended the session."""


class SessionTimer:
    """Enforces the time limits of one session.

    Args:
        clock: Decides what happens when.
        traffic: Bytes of the session; any change counts as activity.
        warn: Receives sentences for the terminal.
        busy: Returns whether a program other than the shell runs. Called only when the answer matters.
        now: Returns monotonic seconds.
        present: Returns whether the client is connected. Only a client that users can leave and return to
            ever returns false.
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
        """Wait until a limit is reached, and return the reason. Writes warnings before that."""
        while True:
            now = self._look()
            event = when, what = self._clock.next_event(now)
            if when > now:
                await asyncio.sleep(min(when - now, LOOK_SECONDS))
            elif what.unless_busy and await self._busy():
                self._clock.busy(self._now())
            elif isinstance(what, Warn):
                self._clock.warning_sent(what, now)
                minutes = "1 minute" if what.minutes == 1 else f"{what.minutes} minutes"
                await self._warn(f"this session ends in {minutes}: {what.reason}.")
            elif not what.unless_busy or self._clock.next_event(self._look()) == event:
                return what.reason  # nobody has come back or typed while `busy` ran

    def ends(self) -> dict[str, float]:
        """Return when each clock that runs now ends the session; see ``SessionClock.ends``."""
        self._look()
        return self._clock.ends()

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
    """Run ``line`` and return its result, or cancel it and return ``Expired`` when a time limit is reached first."""
    first, result = await first_of(line, timekeeper.wait_until_expired())
    return cast("Outcome | None", result) if first == 0 else Expired(f"this session ended: {result}.")
