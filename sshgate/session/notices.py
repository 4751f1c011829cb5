"""Messages of the gateway itself to a client. A client that does not read cannot block them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from sshgate.stream.interfaces import STDERR, Client, Request
from sshgate.stream.tasks import TaskSet

# How long a message waits for a client that does not read.
WRITE_SECONDS = 5.0


async def write(client: Client, data: bytes, stream: int = STDERR) -> None:
    """Write a short text, and wait ``WRITE_SECONDS`` at most. Unread data stays in the client's bounded buffers."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WRITE_SECONDS):
            await client.write(stream, data)


async def say(client: Client, request: Request, sentence: str) -> None:
    """Write a sentence to stderr as one line that begins with ``sshgate:``."""
    end = "\r\n" if request.terminal is not None else "\n"
    await write(client, f"sshgate: {sentence}{end}".encode())


class Terminals:
    """The clients with a terminal, to which a sentence can be sent at once."""

    def __init__(self) -> None:
        self._clients: set[Client] = set()

    def __repr__(self) -> str:
        return f"<Terminals {len(self._clients)}>"

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
