"""Whether this gateway should be sent logins now, asked honestly and not too often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from sshgate.errors import GateError

# An answer of the API server holds this long, so that probes and load balancers cost it little.
FRESH_SECONDS = 2.0
# Probes give up themselves; the sentence should reach them before.
CHECK_SECONDS = 3.0


class Readiness:
    """Ready is: serving, not draining, and ``check`` (a request to the provider) has not raised.

    ``serving`` and ``draining`` are set by whoever runs the gateway.
    """

    def __init__(self, check: Callable[[], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self.serving = False
        self.draining = False
        self._check = check
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._answer: str | None = None

    def __repr__(self) -> str:
        state = "draining" if self.draining else "serving" if self.serving else "starting"
        return f"<Readiness {state}, last answer: {self._answer or 'fine'}>"

    async def why_not(self) -> str | None:
        """One sentence that says why not; ``None``: ready. Returns within ``CHECK_SECONDS``; never raises."""
        if self.draining:
            return "draining: this gateway is shutting down and takes no new logins."
        if not self.serving:
            return "starting: logins are not accepted yet."
        async with self._asking:
            if self._asked_at is None or self._clock() - self._asked_at >= FRESH_SECONDS:
                self._answer = await self._ask()
                self._asked_at = self._clock()
        return self._answer

    async def _ask(self) -> str | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._check()
        except TimeoutError:
            return f"the API server did not answer within {CHECK_SECONDS:g} s."
        except GateError as error:
            return str(error)
        return None
