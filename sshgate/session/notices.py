"""What the gateway itself writes to a client. It waits for no client that does not read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from sshgate.stream.interfaces import STDERR, Client, Request
from sshgate.stream.tasks import TaskSet

# A client that does not take what the gateway has to say is left alone after this many seconds.
WRITE_SECONDS = 5.0


async def write(client: Client, data: bytes, stream: int = STDERR) -> None:
    """Write a little. What the client has not taken in time waits in its own bounded buffers."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WRITE_SECONDS):
            await client.write(stream, data)


async def say(client: Client, request: Request, sentence: str) -> None:
    """Write a sentence on stderr, as a line of its own."""
    end = "\r\n" if request.terminal is not None else "\n"
    await write(client, f"sshgate: {sentence}{end}".encode())


class Terminals:
    """The clients that have a terminal on which a sentence to all of them can be shown."""

    def __init__(self) -> None:
        self._clients: set[Client] = set()

    def __repr__(self) -> str:
        return f"<Terminals {len(self._clients)}>"

    @contextlib.contextmanager
    def among(self, client: Client, request: Request) -> Iterator[None]:
        """While it lasts, ``announce`` reaches this client, if it has a terminal."""
        if request.terminal is not None:
            self._clients.add(client)
        try:
            yield
        finally:
            self._clients.discard(client)

    async def announce(self, sentence: str) -> None:
        """Write it to every terminal."""
        writing = TaskSet()
        for client in self._clients:
            writing.start(write(client, f"\r\nsshgate: {sentence}\r\n".encode()))
        try:
            await writing.join()
        finally:
            await writing.cancel()
