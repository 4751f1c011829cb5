"""Named sandboxes on this machine: kept in this process, shared by its connections, gone when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection
from weakref import WeakValueDictionary

from sshgate.errors import BadRequest
from sshgate.lifecycle.clocks import SessionClock, Warn
from sshgate.sandbox.launch import runs_anything
from sshgate.sandbox.local.sandbox import LocalSandbox
from sshgate.sandbox.named import Admit, Attachment, Listed
from sshgate.sandbox.provider import Notice, Order, Sandbox

# Sessions end themselves at the maximum lifetime and tell why; what they leave goes this much later.
LAST_WORDS = 5.0

Make = Callable[[Order, Notice], Awaitable[LocalSandbox]]


class LocalNamed:
    """The ``NamedSandboxes`` of one machine."""

    outlast = False

    def __init__(self, make: Make, sandboxes: Collection[LocalSandbox]) -> None:
        """``sandboxes``: all there are, also ephemeral ones, for telling them."""
        self._make = make
        self._sandboxes = sandboxes
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._making: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<LocalNamed {len(self._kept)} kept>"

    def profile(self, user: str, name: str) -> str | None:
        kept = self._kept.get((user, name))
        return kept.order.profile.name if kept is not None else None

    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        assert order.name is not None
        key = (order.user, order.name)
        async with self._making.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            made = False
            if kept is not None and not kept.sandbox.alive:
                await self._forget(kept)
                kept = None
            if kept is None:
                kept = await self._keep(order, notice, admit)
                self._kept[key] = kept
                made = True
            elif order.chosen and kept.order.profile.name != order.profile.name:
                raise BadRequest(
                    f"your sandbox {order.name!r} has the profile {kept.order.profile.name!r}; "
                    f"log in without '+{order.profile.name}', or end it first."
                )
            return _Attached(kept, made)

    async def list(self, user: str | None) -> list[Listed]:
        kept = {one.sandbox: one for one in self._kept.values()}
        found = [one for one in self._sandboxes if one.alive and user in (None, one.order.user)]
        return [_listed(one, kept.get(one)) for one in sorted(found, key=lambda one: (one.made, one.id))]

    async def end(self, user: str, name: str) -> str | None:
        kept = self._kept.get((user, name))
        if kept is None:
            return None
        await self._forget(kept)
        return kept.sandbox.id

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*(self._forget(kept) for kept in tuple(self._kept.values())))

    async def _keep(self, order: Order, notice: Notice, admit: Admit) -> _Kept:
        release = admit()
        try:
            sandbox = await self._make(order, notice)
        except BaseException:
            release()
            raise
        kept = _Kept(order, sandbox, release)
        kept.task = asyncio.create_task(self._until_over(kept))
        return kept

    async def _until_over(self, kept: _Kept) -> None:
        await kept.until_over()
        kept.task = None
        await self._forget(kept)

    async def _forget(self, kept: _Kept) -> None:
        assert kept.order.name is not None
        key = (kept.order.user, kept.order.name)
        if self._kept.get(key) is kept:
            del self._kept[key]
        await kept.end()


class _Kept:
    """One named sandbox, the channels in it, and its clock."""

    def __init__(self, order: Order, sandbox: LocalSandbox, release: Callable[[], None]) -> None:
        self.order = order
        self.sandbox = sandbox
        self.attached = 0
        self.task: asyncio.Task[None] | None = None
        self._release = release
        limits = order.profile.limits
        lifetime = limits.max_lifetime + LAST_WORDS
        self._clock = SessionClock(limits, time.monotonic(), terminal=False, lifetime=lifetime, running_keeps=True)
        self._clock.detached(time.monotonic())
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Kept {self.order.name} of {self.order.user}: {self.attached} attached, {self._clock!r}>"

    @property
    def left(self) -> float:
        return max(0.0, self.sandbox.made + self.order.profile.limits.max_lifetime - time.monotonic())

    def attach(self) -> None:
        self.attached += 1
        self._clock.attached(time.monotonic())
        self._changed.set()

    def detach(self) -> None:
        self.attached -= 1
        if not self.attached:
            self._clock.detached(time.monotonic())
            self._changed.set()

    async def until_over(self) -> None:
        """Returns when its time is over, or when nobody came back to it and nothing runs in it."""
        while True:
            self._changed.clear()
            event = self._clock.next_event(time.monotonic())
            assert event is not None  # there is a maximum lifetime
            when, what = event
            if isinstance(what, Warn):
                raise AssertionError("nobody is here to be warned")
            if when > time.monotonic():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(when - time.monotonic()):
                        await self._changed.wait()
            elif not what.unless_busy:
                return
            elif await runs_anything(self.sandbox):
                self._clock.busy(time.monotonic())
            elif not self.attached:  # who joined during the look keeps it
                return

    async def end(self) -> None:
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.sandbox.delete()
        release, self._release = self._release, lambda: None
        release()


class _Attached:
    """One channel in it."""

    def __init__(self, kept: _Kept, made: bool) -> None:
        self._kept: _Kept | None = kept
        self.made = made
        self.sandbox: Sandbox = kept.sandbox
        self.left = kept.left
        kept.attach()

    async def leave(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.detach()


def _listed(sandbox: LocalSandbox, kept: _Kept | None) -> Listed:
    limits = sandbox.order.profile.limits
    age = time.monotonic() - sandbox.made
    attached = kept is None or kept.attached > 0
    return Listed(
        sandbox.id, sandbox.order.user, sandbox.order.name, sandbox.order.profile.name,
        "attached" if attached else "detached", age, max(0.0, limits.max_lifetime - age),
    )  # fmt: skip
