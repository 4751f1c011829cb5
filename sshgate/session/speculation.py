"""Speculative claims: a sandbox is claimed when a channel has a terminal but has not requested its program yet.

A logged-in client that asks for a terminal almost always wants a sandbox, while one that has only opened a channel may
ask for a subsystem of the gateway. The early claim overlaps with the client's round trips. Nothing is claimed before
authentication, and a connection has one speculative claim at a time. One that is not used is cancelled: when the
request needs another profile or no sandbox, after ``UNUSED_SECONDS`` without a request, or with the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sshgate.sandbox.provider import Notice, Order, Sandbox

Create = Callable[[Order, Notice], Coroutine[Any, Any, Sandbox]]
"""``Provider.create``."""

# A channel without a request for this long will hardly make one.
UNUSED_SECONDS = 10.0


class SpeculativeClaim:
    """One sandbox that is being claimed. Its owner must either ``use`` it once or ``cancel`` it.

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

    def __repr__(self) -> str:
        return f"<SpeculativeClaim {self.order.profile.name} for {self.order.session}{' used' * (self._task is None)}>"

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
