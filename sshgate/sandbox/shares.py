"""What users share of one gateway: execs beside their programs, and the memory for files without an sftp-server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sshgate.errors import LimitReached

# File transfers of one user, into sandboxes without an sftp-server.
SERVERS_OF_ONE = 24


class Shares:
    """``total`` places, of which one user holds ``most`` at most. The fewer are free, the fewer one user may hold.

    So a few users cannot hold all of them, and the last places are for users who hold none. A place that becomes free
    goes to the waiting user who holds fewest.
    """

    def __init__(self, total: int, most: int) -> None:
        self._total = total
        self._most = most
        self._taken = 0
        self._held: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}

    def __repr__(self) -> str:
        return f"<Shares {self._taken}/{self._total} held, {len(self._waiting)} waiting>"

    def held(self, user: str) -> int:
        """The number of places that this user holds."""
        return self._held[user]

    def take(self, user: str) -> bool:
        """Take a place if this user may have one now. The caller calls ``release``."""
        held = self._held[user]
        # Of the places that others do not hold, a user may have the same part as of all.
        if self._taken >= self._total or held * self._total >= self._most * (self._total - self._taken + held):
            return False
        self._held[user] += 1
        self._taken += 1
        return True

    def release(self, user: str) -> None:
        """Give back a place."""
        self._taken -= 1
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
        for waiting, theirs in sorted(self._waiting.items(), key=lambda one: self._held[one[1]]):
            # A wait that was just cancelled is still listed; it removes itself.
            if not waiting.done() and self.take(theirs):
                del self._waiting[waiting]
                waiting.set_result(None)

    @asynccontextmanager
    async def hold(self, user: str) -> AsyncIterator[None]:
        """Hold a place while the body runs; waits for one."""
        if not self.take(user):
            waiting = asyncio.get_running_loop().create_future()
            self._waiting[waiting] = user
            try:
                await waiting
            except asyncio.CancelledError:
                if self._waiting.pop(waiting, None) is None:
                    self.release(user)
                raise
        try:
            yield
        finally:
            self.release(user)


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
