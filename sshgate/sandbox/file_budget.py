"""Bounds the memory that the gateway uses to serve files of sandboxes without an sftp-server, per user and in all."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from sshgate.errors import LimitReached

# Channels that are served at a time, in all and per user. Each keeps up to a MiB between two requests.
SERVERS = 256
SERVERS_OF_ONE = 24
# Long answers (up to 2 MiB) that are read at a time, in all and per user.
ANSWERS = 16
ANSWERS_OF_ONE = 4


class FilePlaces:
    """The budget of one gateway, divided into places."""

    def __init__(self) -> None:
        self._servers: Counter[str] = Counter()
        self._answers = asyncio.Semaphore(ANSWERS)
        self._users: dict[str, asyncio.Semaphore] = {}

    def __repr__(self) -> str:
        return f"<FilePlaces {self._servers.total()} servers of {len(self._users)} users>"

    @contextlib.contextmanager
    def server(self, user: str) -> Iterator[FilePlace]:
        """Hold a place while the gateway serves files to one channel. Raises ``LimitReached`` if none is free."""
        if self._servers[user] >= SERVERS_OF_ONE:
            raise LimitReached(
                f"you have {SERVERS_OF_ONE} file transfers into sandboxes without an sftp-server; end one, or install "
                "openssh-sftp-server in the image."
            )
        if self._servers.total() >= SERVERS:
            raise LimitReached("the gateway serves as many file transfers as it can; try again in a moment.")
        self._servers[user] += 1
        try:
            yield FilePlace(self._answers, self._users.setdefault(user, asyncio.Semaphore(ANSWERS_OF_ONE)))
        finally:
            self._servers[user] -= 1
            if not self._servers[user]:
                del self._servers[user], self._users[user]


class FilePlace:
    """One channel's place. Without arguments it shares nothing, for tools that serve a single channel."""

    def __init__(self, everybody: asyncio.Semaphore | None = None, own: asyncio.Semaphore | None = None) -> None:
        self._everybody = everybody or asyncio.Semaphore(1)
        self._own = own or asyncio.Semaphore(1)

    @contextlib.asynccontextmanager
    async def answer(self) -> AsyncIterator[None]:
        """Hold room for one long answer while it is read; waits until there is room."""
        async with self._own, self._everybody:
            yield
