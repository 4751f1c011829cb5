"""How much of what sandboxes answer about their files is in the gateway's hands at once, of one user and of all."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from sshgate.errors import LimitReached

# Each keeps up to a MiB between two requests.
SERVERS = 256
SERVERS_OF_ONE = 24
# Answers of up to 2 MiB that are being read.
ANSWERS = 16
ANSWERS_OF_ONE = 4


class FilePlaces:
    """The places of a whole gateway."""

    def __init__(self) -> None:
        self._servers: Counter[str] = Counter()
        self._answers = asyncio.Semaphore(ANSWERS)
        self._users: dict[str, asyncio.Semaphore] = {}

    def __repr__(self) -> str:
        return f"<FilePlaces {self._servers.total()} servers of {len(self._users)} users>"

    @contextlib.contextmanager
    def server(self, user: str) -> Iterator[FilePlace]:
        """A place while the gateway serves one channel. Raises ``LimitReached``."""
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
    """One channel's place. Without arguments: alone, for tools that serve one."""

    def __init__(self, everybody: asyncio.Semaphore | None = None, own: asyncio.Semaphore | None = None) -> None:
        self._everybody = everybody or asyncio.Semaphore(1)
        self._own = own or asyncio.Semaphore(1)

    @contextlib.asynccontextmanager
    async def answer(self) -> AsyncIterator[None]:
        """While a long answer is read: waits until there is room for it."""
        async with self._own, self._everybody:
            yield
