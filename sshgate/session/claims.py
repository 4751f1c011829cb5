"""Which sandbox a channel gets and when it is removed, for the three scopes: channel, connection and named."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from sshgate.access.limits import Admission
from sshgate.access.policy import Grant
from sshgate.errors import GateError
from sshgate.lifecycle.occupancy import Occupancy
from sshgate.sandbox.interfaces import Attachment, NamedSandboxes, Notice, Order, Provider, Sandbox
from sshgate.stream.interfaces import Shell
from sshgate.stream.tasks import cancel
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EventContext
from sshgate.telemetry.timings import since

Create = Callable[[Order, Notice], Coroutine[Any, Any, Sandbox]]
"""``Provider.create``."""

# A channel without a request for this long will hardly make one.
UNUSED_SECONDS = 10.0
# Seconds before each attempt to delete a named sandbox that is over.
END_PAUSES = (0.0, 0.5, 2.0)


class PendingSandbox:
    """The sandbox of one channel, created or joined at the first call of ``get``."""

    source = "joined"
    """How it was obtained, valid after ``get``: ``warm``, ``cold`` or ``joined`` (it existed already)."""
    remaining_lifetime: float | None = None
    """Seconds of its maximum lifetime that remained when the channel got it; ``None``: all of it."""
    over = False
    """Whether a named sandbox is deleted when the channel leaves, unless the connection has others in it."""
    returns = False
    """Whether its user has left a held session in it, and may come back to that."""
    over_if_made = False
    """Whether it is deleted then if this channel has made it: until that is known, others may be in it."""

    def __init__(
        self, get: Callable[[PendingSandbox], Awaitable[Sandbox]], order: Order, notice: Notice,
        speculative: SpeculativeClaim | None,
    ) -> None:  # fmt: skip
        self.order = order
        self.notice = notice
        self.speculative = speculative
        self._get = get

    async def get(self) -> Sandbox:
        """Return the sandbox; create or join it if that has not been done.

        Cancellation and exceptions leave nothing behind; the next call tries again.

        Raises:
            GateError: As ``Provider.create`` does; for a named sandbox, as ``NamedSandboxes.join`` does.
            LimitReached: The user has too many sandboxes.
        """
        return await self._get(self)


class Claims:
    """The claims of one connection. Call ``close`` when the connection has ended.

    Args:
        admission: Counts each user's sandboxes; ``None`` if the provider does.
        events: Events of this connection.
    """

    def __init__(self, provider: Provider, admission: Admission | None, user: str, events: EventContext) -> None:
        self._events = events
        self._provider = provider
        self._admission = admission
        self._user = user
        self._shared: dict[str, _SharedSandbox] = {}
        # How many channels are in each named sandbox, or on their way.
        self._inside: Counter[str] = Counter()
        # Those that a channel has left as over while others of the connection were in them.
        self._over: set[str] = set()
        self._speculative: SpeculativeClaim | None = None

    def start_speculative_claim(self, granted: Grant, session: str) -> None:
        """Claim a sandbox for the request that a channel will probably make.

        Does nothing without a warm pool, for a named sandbox, when this process (not the provider) counts sandboxes,
        when the connection already has its shared sandbox, or when a speculative claim is already there.

        Args:
            session: The id of the session that will use the claim.
        """
        ready = self._admission is None and granted.profile.warm > 0 and granted.name is None
        if ready and not self.has(granted) and self._speculative is None:
            order = Order(granted.profile, self._user, session, None, granted.chosen)
            self._speculative = SpeculativeClaim(self._provider.create, order)

    def has(self, granted: Grant) -> bool:
        """Return whether the connection's shared sandbox for this grant exists or is being created."""
        shared = self._shared.get(granted.profile.name) if granted.scope == "connection" else None
        return shared is not None and shared.sandbox_now

    def take_speculative_claim(self) -> SpeculativeClaim | None:
        """Hand the speculative claim, if there is one, to the caller, who must use or cancel it."""
        speculative, self._speculative = self._speculative, None
        return speculative

    @asynccontextmanager
    async def sandbox(
        self, granted: Grant, session: str, notice: Notice, speculative: SpeculativeClaim | None = None
    ) -> AsyncIterator[PendingSandbox]:
        """Provide the sandbox of this grant while the body runs.

        A sandbox with the scope of a channel is deleted when the body ends. One shared by the connection, or a named
        one, is left and stays for others.

        Args:
            notice: Receives progress texts while the sandbox starts.
            speculative: Used if it matches the order and no sandbox is shared yet, otherwise cancelled.
        """
        order = Order(granted.profile, self._user, session, granted.name, granted.chosen)
        if granted.name is not None:
            named = _NamedSandbox(self._provider.named, self._admission)
            pending = PendingSandbox(named.get, order, notice, speculative)
            name, asks = granted.name, granted.request
            # The connection's other channels stay in it, such as second shells; but no transfer keeps what is over.
            counts = asks.terminal is not None or isinstance(asks.kind, Shell)
            self._inside[name] += counts
            try:
                yield pending
            finally:
                self._inside[name] -= counts
                try:
                    over = pending.over or (pending.over_if_made and (pending.source != "joined" or name in self._over))
                    if not self._inside[name]:
                        del self._inside[name]
                        self._over.discard(name)
                        if over:
                            await self._end(order)
                    elif over:
                        self._over.add(name)
                finally:
                    await named.leave(pending.returns)
        elif granted.scope == "connection":
            shared = self._shared.get(granted.profile.name)
            if shared is None:
                shared = _SharedSandbox(self._provider, self._admission, self._events)
                self._shared[granted.profile.name] = shared
            with shared.entered():
                yield PendingSandbox(shared.get, order, notice, speculative)
        else:
            own = _OwnSandbox(self._provider, self._admission, self._events)
            try:
                yield PendingSandbox(own.get, order, notice, speculative)
            finally:
                await own.delete()

    async def _end(self, order: Order) -> None:
        """Delete a named sandbox. If the provider does not answer, it goes once nothing runs in it."""
        assert order.name is not None
        began = time.monotonic()
        for pause in END_PAUSES:
            await asyncio.sleep(pause)
            try:
                sandbox = await self._provider.named.end(order.user, order.name)
            except GateError:
                continue
            if sandbox is not None:
                ended = self._events.with_fields(session=order.session, sandbox=sandbox, profile=order.profile.name)
                ended.emit(Code.SANDBOX_END, seconds=since(began))
            return

    async def close(self) -> None:
        """Delete the shared sandboxes of the connection and an unused speculative claim. Never raises."""
        speculative = self.take_speculative_claim()
        if speculative is not None:
            await speculative.cancel()
        shared, self._shared = list(self._shared.values()), {}
        for once in shared:
            await once.close()


class _NamedSandbox:
    """A named sandbox, joined at most once. It stays when this channel leaves."""

    def __init__(self, named: NamedSandboxes, admission: Admission | None) -> None:
        self._named = named
        self._admission = admission
        self._attachment: Attachment | None = None

    async def get(self, pending: PendingSandbox) -> Sandbox:
        if pending.speculative is not None:
            await pending.speculative.cancel()  # it would count as one of the user's sandboxes
        if self._attachment is None:
            admit = partial(_admit, self._admission, pending.order.user)
            self._attachment = await self._named.join(pending.order, pending.notice, admit)
            pending.remaining_lifetime = self._attachment.left
            sandbox = self._attachment.sandbox
            pending.source = "joined" if not self._attachment.made else "warm" if sandbox.warm else "cold"
        return self._attachment.sandbox

    async def leave(self, returns: bool) -> None:
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            await attachment.leave(returns)


class _OwnSandbox:
    """A sandbox that is created once, at the first ``get``, and deleted once."""

    def __init__(self, provider: Provider, admission: Admission | None, events: EventContext) -> None:
        self._events = events
        self._provider = provider
        self._admission = admission
        self._lock = asyncio.Lock()
        self._sandbox: Sandbox | None = None
        self._order: Order | None = None
        self._release: Callable[[], None] = lambda: None

    async def get(self, pending: PendingSandbox) -> Sandbox:
        async with self._lock:
            return self._sandbox or await self._create(pending)

    async def _create(self, pending: PendingSandbox) -> Sandbox:
        order, speculative = pending.order, pending.speculative
        release = _admit(self._admission, order.user)
        try:
            if speculative is not None and speculative.matches(order):
                sandbox = await speculative.use(pending.notice)
            else:
                if speculative is not None:
                    await speculative.cancel()  # it would count as one of the user's sandboxes
                sandbox = await self._provider.create(order, pending.notice)
        except BaseException:
            release()
            raise
        self._sandbox, self._order, self._release = sandbox, order, release
        pending.source = "warm" if sandbox.warm else "cold"
        return sandbox

    async def delete(self) -> None:
        sandbox, order, self._sandbox = self._sandbox, self._order, None
        if sandbox is not None and order is not None:
            began = time.monotonic()
            try:
                await sandbox.delete()
                ended = self._events.with_fields(session=order.session, sandbox=sandbox.id, profile=order.profile.name)
                ended.emit(Code.SANDBOX_END, seconds=since(began))
            finally:
                self._release()


class _SharedSandbox(_OwnSandbox):
    """The sandbox that a connection's channels share.

    Like a named sandbox it stays for a while after the last channel has left. If it ends before the connection does,
    the next channel gets a new one.
    """

    _occupancy: Occupancy | None = None
    _keeper: asyncio.Task[None] | None = None
    _users = 0

    @property
    def sandbox_now(self) -> bool:
        """Whether there is a usable sandbox, or one is being created."""
        return self._lock.locked() or (self._sandbox is not None and self._sandbox.usable)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count a channel as being in the sandbox while the body runs."""
        self._users += 1
        if self._occupancy is not None:
            self._occupancy.enter()
        try:
            yield
        finally:
            self._users -= 1
            if self._occupancy is not None:
                self._occupancy.leave()

    async def get(self, pending: PendingSandbox) -> Sandbox:
        if pending.speculative is not None and self.sandbox_now:
            pending.speculative.give_up()
        async with self._lock:
            if self._sandbox is not None and not self._sandbox.usable:
                await self.delete()
            sandbox = self._sandbox or await self._create(pending)
            if self._occupancy is None:
                self._occupancy = Occupancy(pending.order.profile.limits)
                for _ in range(self._users):
                    self._occupancy.enter()
                self._keeper = asyncio.create_task(self._keep(sandbox, self._occupancy))
            pending.remaining_lifetime = self._occupancy.left
            return sandbox

    async def delete(self) -> None:
        keeper, self._keeper, self._occupancy = self._keeper, None, None
        if keeper is not None and keeper is not asyncio.current_task():
            await cancel(keeper)
        await super().delete()

    async def close(self) -> None:
        """Delete the sandbox: the connection has ended."""
        async with self._lock:
            await self.delete()

    async def _keep(self, sandbox: Sandbox, occupancy: Occupancy) -> None:
        async def busy() -> bool:
            await sandbox.forget()  # a parked launcher would look like a program
            return sandbox.usable and await sandbox.aside.anything()

        await occupancy.until_over(busy)
        async with self._lock:
            if self._sandbox is sandbox:
                await self.delete()


def _admit(admission: Admission | None, user: str) -> Callable[[], None]:
    return admission.sandbox(user).release if admission is not None else lambda: None


class SpeculativeClaim:
    """A sandbox that is claimed when a channel has a terminal but has not requested its program yet.

    A logged-in client that asks for a terminal almost always wants a sandbox, while one that has only opened a channel
    may ask for a subsystem of the gateway. The early claim overlaps with the client's round trips. A connection has one
    at a time. Its owner must either ``use`` it once or ``cancel`` it; after ``UNUSED_SECONDS`` it cancels itself.

    Args:
        create: ``Provider.create``; called at once, in a task.
    """

    def __init__(self, create: Create, order: Order) -> None:
        self.order = order
        self._say: Notice = lambda text: None
        self._task: asyncio.Task[Sandbox] | None = asyncio.create_task(create(order, lambda text: self._say(text)))
        self._task.add_done_callback(_retrieve_exception)
        self._dropping: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(UNUSED_SECONDS, self.give_up)

    def matches(self, order: Order) -> bool:
        """Return whether the claim is for this order and was neither used nor cancelled."""
        return self._task is not None and self.order == order

    async def use(self, notice: Notice) -> Sandbox:
        """Wait for the sandbox, which then belongs to the caller. Call it only if ``matches`` is true.

        Cancellation waits until the claim has ended and a sandbox it has made is deleted.

        Args:
            notice: Receives progress texts from now on.

        Raises:
            GateError: As ``Provider.create`` does.
        """
        task, self._task = self._task, None
        assert task is not None
        self._timer.cancel()
        self._say = notice
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _undo(task)
            raise

    async def cancel(self) -> None:
        """Cancel an unused claim and wait until its sandbox is deleted. Idempotent; never raises."""
        self.give_up()
        if self._dropping is not None:
            await asyncio.shield(self._dropping)

    def give_up(self) -> None:
        """Start to cancel an unused claim, without waiting for the end."""
        self._timer.cancel()
        task, self._task = self._task, None
        if task is not None:
            self._dropping = asyncio.create_task(_undo(task))


async def _undo(task: asyncio.Task[Sandbox]) -> None:
    task.cancel()
    (sandbox,) = await asyncio.gather(task, return_exceptions=True)
    if not isinstance(sandbox, BaseException):
        await sandbox.delete()


def _retrieve_exception(task: asyncio.Task[Sandbox]) -> None:
    """Mark the exception as retrieved. If the sandbox is needed, the next attempt shows it again."""
    if not task.cancelled():
        task.exception()
