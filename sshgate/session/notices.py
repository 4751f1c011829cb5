"""Messages of the gateway itself to a client, and the progress line on its terminal.

A client that does not read cannot block the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from sshgate.stream.interfaces import STDERR, Client, Request
from sshgate.stream.tasks import TaskSet, cancel, within
from sshgate.stream.terminal import Terminal

# How long a message waits for a client that does not read.
WRITE_SECONDS = 5.0
# A sandbox that starts faster has no progress line: one that flashes up is worse than none.
QUIET_SECONDS = 0.7
# Interval at which the seconds in the progress line are updated.
TICK_SECONDS = 1.0

ERASE = b"\r\x1b[2K"


async def write(client: Client, data: bytes, stream: int = STDERR) -> None:
    """Write a short text, and wait ``WRITE_SECONDS`` at most. Unread data stays in the client's bounded buffers."""
    await within(WRITE_SECONDS, client.write(stream, data))


async def say(client: Client, request: Request, sentence: str) -> None:
    """Write a sentence to stderr as one line that begins with ``sshgate:``."""
    end = "\r\n" if request.terminal is not None else "\n"
    await write(client, f"sshgate: {sentence}{end}".encode())


class Terminals:
    """The clients with a terminal, to which a sentence can be sent at once."""

    def __init__(self) -> None:
        self._clients: set[Client] = set()

    @contextlib.contextmanager
    def among(self, client: Client, request: Request) -> Iterator[None]:
        """Let ``announce`` reach this client while the body runs, if the client has a terminal."""
        if request.terminal is not None:
            self._clients.add(client)
        try:
            yield
        finally:
            self._clients.discard(client)

    async def announce(self, sentence: str) -> None:
        """Write a sentence to every terminal. Waits ``WRITE_SECONDS`` at most; cancellation stops the writes."""
        writing = TaskSet()
        for client in self._clients:
            writing.start(write(client, f"\r\nsshgate: {sentence}\r\n".encode()))
        try:
            await writing.join()
        finally:
            await writing.cancel()


class Progress:
    """The progress line of a user who waits for a sandbox, erased before the prompt comes.

    Without a terminal nothing is shown. ``say`` may be called at any time.
    """

    def __init__(self, client: Client, terminal: Terminal | None) -> None:
        self._client = client
        self._columns = terminal.size.columns if terminal is not None else 0
        self._text = "starting"
        self._shown = False

    def say(self, text: str) -> None:
        """Replace the text."""
        self._text = text

    @contextlib.asynccontextmanager
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
                await write(self._client, ERASE)

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
