"""Which sandbox a channel gets, and when it is removed: one place for the three scopes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from sshgate.access.limits import Admission
from sshgate.access.policy import Grant
from sshgate.foresight import Foreseen
from sshgate.sandbox.named import Attachment, NamedSandboxes
from sshgate.sandbox.provider import Notice, Order, Provider, Sandbox
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Trail
from sshgate.telemetry.marks import since


class Pending(Protocol):
    """A sandbox that is made, or joined, when it is first asked for."""

    @property
    def left(self) -> float | None:
        """Seconds of its maximum lifetime that remained when it was entered; ``None``: all of it."""

    @property
    def how(self) -> str:
        """After ``get``: whether the sandbox was ``warm``, made ``cold``, or ``joined`` (it was there already)."""

    async def get(self) -> Sandbox:
        """Raises as ``Provider.create`` does, and ``LimitReached``; the next one to ask tries again."""


class Claims:
    """The claims of one connection. ``close`` when it has ended."""

    def __init__(self, provider: Provider, admission: Admission | None, user: str, trail: Trail) -> None:
        self._trail = trail
        self._provider = provider
        self._admission = admission
        self._user = user
        self._shared: dict[str, _Once] = {}
        self._foreseen: Foreseen | None = None

    def foresee(self, granted: Grant, session: str) -> None:
        """A channel will ask for something, probably this: claim the sandbox now.

        Only where one is ready, and where it is the provider that counts: else nothing would be gained.
        """
        shared = granted.scope == "connection" and granted.profile.name in self._shared
        ready = self._admission is None and granted.profile.warm > 0 and granted.name is None
        if ready and not shared and self._foreseen is None:
            order = Order(granted.profile, self._user, session, None, granted.chosen)
            self._foreseen = Foreseen(self._provider.create, order)

    def foreseen(self) -> Foreseen | None:
        """What was foreseen for the channel that asks now; whoever gets it drops it."""
        foreseen, self._foreseen = self._foreseen, None
        return foreseen

    @asynccontextmanager
    async def sandbox(
        self, granted: Grant, session: str, notice: Notice, foreseen: Foreseen | None = None
    ) -> AsyncIterator[Pending]:
        """The sandbox of this grant; an ephemeral one is removed when the body ends."""
        order = Order(granted.profile, self._user, session, granted.name, granted.chosen)
        if granted.name is not None:
            joined = _Joined(self._provider.named, self._admission, order, notice)
            try:
                yield joined
            finally:
                await joined.leave()
            return
        if granted.scope == "connection":
            key = granted.profile.name
            if key not in self._shared:
                self._shared[key] = _Once(self._provider, self._admission, order, notice, self._trail, foreseen)
            yield self._shared[key]
            return
        trail = self._trail.bound(session=session)
        once = _Once(self._provider, self._admission, order, notice, trail, foreseen)
        try:
            yield once
        finally:
            await once.delete()

    async def close(self) -> None:
        """Remove what the connection's channels shared, or would have. Never raises."""
        foreseen = self.foreseen()
        if foreseen is not None:
            await foreseen.drop()
        shared, self._shared = list(self._shared.values()), {}
        for once in shared:
            await once.delete()


class _Joined:
    """A named sandbox, joined once; it stays when this channel leaves."""

    left: float | None = None
    how = "joined"

    def __init__(self, named: NamedSandboxes, admission: Admission | None, order: Order, notice: Notice) -> None:
        self._named = named
        self._admission = admission
        self._order = order
        self._notice = notice
        self._attachment: Attachment | None = None

    async def get(self) -> Sandbox:
        if self._attachment is None:
            self._attachment = await self._named.join(self._order, self._notice, self._admit)
            self.left = self._attachment.left
            self.how = "cold" if self._attachment.made else "joined"
        return self._attachment.sandbox

    async def leave(self) -> None:
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            await attachment.leave()

    def _admit(self) -> Callable[[], None]:
        return _admit(self._admission, self._order.user)


class _Once:
    """A sandbox that is made once, by whoever asks first, and removed once."""

    left: float | None = None

    def __init__(
        self,
        provider: Provider,
        admission: Admission | None,
        order: Order,
        notice: Notice,
        trail: Trail,
        foreseen: Foreseen | None,
    ) -> None:
        self.how = "cold"
        self._foreseen = foreseen
        self._trail = trail
        self._provider = provider
        self._admission = admission
        self._order = order
        self._notice = notice
        self._lock = asyncio.Lock()
        self._sandbox: Sandbox | None = None
        self._release: Callable[[], None] = lambda: None

    async def get(self) -> Sandbox:
        async with self._lock:
            if self._sandbox is None:
                release = _admit(self._admission, self._order.user)
                try:
                    self._sandbox = await self._made()
                except BaseException:
                    release()
                    raise
                self._release = release
                self.how = "warm" if self._sandbox.warm else "cold"
            else:
                self.how = "joined"
            return self._sandbox

    async def _made(self) -> Sandbox:
        foreseen, self._foreseen = self._foreseen, None
        if foreseen is not None and foreseen.fits(self._order):
            return await foreseen.use(self._notice)
        if foreseen is not None:
            await foreseen.drop()  # it would count as one of the user's
        return await self._provider.create(self._order, self._notice)

    async def delete(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            began = time.monotonic()
            try:
                await sandbox.delete()
                ended = self._trail.bound(sandbox=sandbox.id, profile=self._order.profile.name)
                ended.tell(Code.SANDBOX_END, seconds=since(began))
            finally:
                self._release()


def _admit(admission: Admission | None, user: str) -> Callable[[], None]:
    return admission.sandbox(user).release if admission is not None else lambda: None
