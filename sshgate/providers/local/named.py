"""Named sandboxes on this machine: kept by this process, shared by its connections, ended with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from weakref import WeakValueDictionary

from sshgate.errors import BadRequest
from sshgate.lifecycle.occupancy import Occupancy
from sshgate.providers.local.sandbox import LocalSandbox
from sshgate.sandbox.interfaces import Admit, Attachment, Listed, Notice, Order, Sandbox, Unattended
from sshgate.stream.tasks import cancel

Make = Callable[[Order, Notice], Awaitable[LocalSandbox]]


class LocalNamed:
    """The ``NamedSandboxes`` of one machine. They do not outlive the gateway."""

    outlast = False

    def __init__(self, make: Make, sandboxes: Collection[LocalSandbox]) -> None:
        """``make`` creates a sandbox; ``sandboxes`` are all that exist, including ephemeral ones, for ``list``."""
        self._make = make
        self._sandboxes = sandboxes
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._making: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def profile(self, user: str, name: str) -> str | None:
        kept = self._kept.get((user, name))
        return kept.order.profile.name if kept is not None else None

    async def join(self, order: Order, notice: Notice, admit: Admit) -> Attachment:
        assert order.name is not None
        key = (order.user, order.name)
        async with self._making.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            if kept is not None and not kept.sandbox.usable:
                await self._forget(kept)
                kept = None
            made = kept is None
            if kept is None:
                kept = self._kept[key] = await self._keep(order, notice, admit)
            elif order.chosen and kept.order.profile.name != order.profile.name:
                raise BadRequest(
                    f"your sandbox {order.name!r} has the profile {kept.order.profile.name!r}; "
                    f"log in without '+{order.profile.name}', or end it first."
                )
            kept.channels.enter()
            return Attachment(kept.sandbox, made, kept.channels.left, lambda _: kept.channels.leave())

    async def find(self, order: Order) -> Sandbox | None:
        assert order.name is not None
        kept = self._kept.get((order.user, order.name))
        return kept.sandbox if kept is not None and kept.sandbox.usable else None

    def names(self, user: str) -> Collection[str]:
        return [name for owner, name in self._kept if owner == user]

    def unattended(self) -> Sequence[Unattended]:
        return []  # they end with their gateway, which has opened what they need

    async def list(self, user: str | None) -> list[Listed]:
        kept = {one.sandbox: one for one in self._kept.values()}
        found = [one for one in self._sandboxes if one.usable and user in (None, one.order.user)]
        return [_describe(one, kept.get(one)) for one in sorted(found, key=lambda one: (one.made, one.id))]

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
        async def busy() -> bool:
            return kept.sandbox.usable and await kept.sandbox.aside.anything()

        await kept.channels.until_over(busy)
        kept.task = None
        await self._forget(kept)

    async def _forget(self, kept: _Kept) -> None:
        assert kept.order.name is not None
        key = (kept.order.user, kept.order.name)
        if self._kept.get(key) is kept:
            del self._kept[key]
        await kept.end()


class _Kept:
    """One named sandbox and the channels in it; ``release`` gives back its place under the limits."""

    def __init__(self, order: Order, sandbox: LocalSandbox, release: Callable[[], None]) -> None:
        self.order = order
        self.sandbox = sandbox
        self.channels = Occupancy(order.profile.limits)
        self.task: asyncio.Task[None] | None = None
        self._release = release

    async def end(self) -> None:
        task, self.task = self.task, None
        try:
            try:
                if task is not None:
                    await cancel(task)
            finally:
                await self.sandbox.delete()
        finally:
            release, self._release = self._release, lambda: None
            release()


def _describe(sandbox: LocalSandbox, kept: _Kept | None) -> Listed:
    limits = sandbox.order.profile.limits
    age = time.monotonic() - sandbox.made
    attached = kept is None or kept.channels.count > 0
    return Listed(
        sandbox.id, sandbox.order.user, sandbox.order.name, sandbox.order.profile.name,
        "attached" if attached else "detached", age, max(0.0, limits.max_lifetime - age),
    )  # fmt: skip
