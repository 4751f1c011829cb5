"""Readiness: whether this gateway can accept logins now. The check of the provider is cached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from sshgate.errors import GateError

# A result is reused for this long, so that frequent probes do not load the API server.
FRESH_SECONDS = 2.0
# Must be shorter than the time limit of probes, so that the reason reaches them.
CHECK_SECONDS = 3.0


class Readiness:
    """The gateway is ready if it serves, does not drain, and ``check`` (a request to the provider) succeeds.

    The code that runs the gateway sets ``serving`` and ``draining``. ``check`` fails by raising ``GateError``.
    """

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self.serving = False
        self.draining = False
        self._check = check
        self._lock = asyncio.Lock()
        self._asked_at: float | None = None
        self._answer: str | None = None

    async def why_not(self) -> str | None:
        """Return one sentence that says why the gateway is not ready; ``None``: it is ready.

        A check takes at most ``CHECK_SECONDS``; concurrent calls share its result.
        """
        if self.draining:
            return "draining: this gateway is shutting down and takes no new logins."
        if not self.serving:
            return "starting: logins are not accepted yet."
        async with self._lock:
            if self._asked_at is None or time.monotonic() - self._asked_at >= FRESH_SECONDS:
                self._answer = await self._ask()
                self._asked_at = time.monotonic()
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
