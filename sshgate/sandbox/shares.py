"""What users share of one gateway: execs beside their programs, and the memory for files without an sftp-server."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sshgate.errors import LimitReached

# File transfers of one user, into sandboxes without an sftp-server.
SERVERS_OF_ONE = 24


class Shares:
    """``total`` places, of which one user holds ``most`` at most. The fewer are free, the fewer one user may hold.

    So a few users cannot hold all of them, and the last places are for users who hold none. A place that becomes free
    goes to the waiting user who holds fewest; those who hold equally many take turns.
    """

    def __init__(self, total: int, most: int) -> None:
        self._total = total
        self._most = most
        self._taken = 0
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By user. Who was given a place goes to the end: the order of their waits would serve one with many first."""

    def __repr__(self) -> str:
        return f"<Shares {self._taken}/{self._total} held, {sum(map(len, self._waiting.values()))} waiting>"

    def held(self, user: str) -> int:
        """The number of places that this user holds."""
        return self._held[user]

    def take(self, user: str) -> bool:
        """Take a place if this user may have one now. The caller calls ``release``."""
        if not self._may_have(user):
            return False
        self._held[user] += 1
        self._taken += 1
        return True

    async def acquire(self, user: str) -> None:
        """Take a place; waits for one. The caller calls ``release``, unless this raises or is cancelled."""
        if self.take(user):
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if not waiting.cancelled():
                self.release(user)
            elif waiting in self._waiting.get(user, ()):
                self._waiting[user].remove(waiting)
                if not self._waiting[user]:
                    del self._waiting[user]
            raise

    def release(self, user: str) -> None:
        """Give back a place."""
        self._taken -= 1
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
        while allowed := [one for one in self._waiting if self._may_have(one)]:
            first = min(allowed, key=self._held.__getitem__)
            theirs = self._waiting.pop(first)
            waiting = theirs.popleft()
            if theirs:
                self._waiting[first] = theirs
            # A wait that was just cancelled may still be listed.
            if not waiting.done() and self.take(first):
                waiting.set_result(None)

    @asynccontextmanager
    async def hold(self, user: str) -> AsyncIterator[None]:
        """Hold a place while the body runs; waits for one."""
        await self.acquire(user)
        try:
            yield
        finally:
            self.release(user)

    def _may_have(self, user: str) -> bool:
        held = self._held[user]
        # Of the places that others do not hold, a user may have the same part as of all.
        return self._taken < self._total and held * self._total < self._most * (self._total - self._taken + held)


class FileLimits:
    """Bounds the memory for files of sandboxes without an sftp-server. One per gateway."""

    def __init__(self) -> None:
        self.servers = Shares(total=256, most=SERVERS_OF_ONE)
        """Channels that are served; each keeps up to a MiB between two requests."""
        self.answers = Shares(total=16, most=4)
        """Long answers (up to 2 MiB) that are read."""

    @contextmanager
    def server(self, user: str) -> Iterator[None]:
        """Hold a place while the gateway serves files to one channel. Raises ``LimitReached`` if none is free."""
        if not self.servers.take(user):
            if self.servers.held(user) >= SERVERS_OF_ONE:
                raise LimitReached(
                    f"you have {SERVERS_OF_ONE} file transfers into sandboxes without an sftp-server; end one, or "
                    "install openssh-sftp-server in the image."
                )
            raise LimitReached("the gateway serves as many file transfers as it can; try again in a moment.")
        try:
            yield
        finally:
            self.servers.release(user)
