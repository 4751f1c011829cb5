"""A progress line on the terminal of a user who waits for a sandbox. It is erased before the prompt comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sshgate.session import notices
from sshgate.stream.interfaces import STDERR, Client
from sshgate.stream.tasks import cancel
from sshgate.stream.terminal import Terminal

# A faster start shows nothing: a line that flashes up is worse than none.
QUIET_SECONDS = 0.7
# Interval at which the seconds after the text are updated.
TICK_SECONDS = 1.0

ERASE = b"\r\x1b[2K"


class Progress:
    """The progress line of one session. Without a terminal nothing is shown. ``say`` may be called at any time."""

    def __init__(self, client: Client, terminal: Terminal | None) -> None:
        self._client = client
        self._columns = terminal.size.columns if terminal is not None else 0
        self._text = "starting"
        self._shown = False

    def say(self, text: str) -> None:
        """Replace the text."""
        self._text = text

    @asynccontextmanager
    async def show(self) -> AsyncIterator[Progress]:
        """Show the line while the body runs, and erase it afterwards."""
        if not self._columns:
            yield self
            return
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            await cancel(task)
            if self._shown:
                await notices.write(self._client, ERASE)

    async def _run(self) -> None:
        await asyncio.sleep(QUIET_SECONDS)
        waited = QUIET_SECONDS
        while True:
            line = f"sshgate: {self._text} ({waited:.0f} s, Ctrl-C ends)"
            self._shown = True
            # The last column stays free: some terminals wrap a full line, which could then not be erased.
            await self._client.write(STDERR, ERASE + line[: self._columns - 1].encode("ascii", "replace"))
            await asyncio.sleep(TICK_SECONDS)
            waited += TICK_SECONDS
