"""A sandbox that is claimed before the client has said what for: when it has a terminal and no program yet.

A client that has logged in and asks for a terminal wants a sandbox almost always, while one that has only opened a
channel may ask for a verb of the gateway's. The claim then overlaps with the client's own round trips. Nothing is
claimed before authentication, one at a time for a connection, and what was foreseen wrongly (another profile by a
variable, a verb with a terminal, no request at all) is given up at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sshgate.sandbox.provider import Notice, Order, Sandbox

Create = Callable[[Order, Notice], Coroutine[Any, Any, Sandbox]]
"""``Provider.create``."""

# A channel that asks for nothing for so long will hardly ever.
UNUSED_SECONDS = 10.0


class SpeculativeClaim:
    """One sandbox under way. Whoever has it uses it once, or drops it."""

    def __init__(self, create: Create, order: Order) -> None:
        self.order = order
        self._say: Notice = lambda text: None
        self._task: asyncio.Task[Sandbox] | None = asyncio.create_task(create(order, lambda text: self._say(text)))
        self._task.add_done_callback(_retrieve_exception)
        self._dropping: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(UNUSED_SECONDS, self.give_up)

    def __repr__(self) -> str:
        return f"<Foreseen {self.order.profile.name} for {self.order.session}{' used' * (self._task is None)}>"

    def matches(self, order: Order) -> bool:
        """Whether it is what is wanted now, and still to be had."""
        return self._task is not None and self.order == order

    async def use(self, notice: Notice) -> Sandbox:
        """Raises as ``Provider.create`` does. The sandbox is the caller's; cancelling gives it up."""
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
        """Give up what was not used. Never raises; may be called again."""
        self.give_up()
        if self._dropping is not None:
            await asyncio.shield(self._dropping)

    def give_up(self) -> None:
        """Begin to ``drop`` it, without waiting for that."""
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
    """A failure nobody asked about is none; it comes again when somebody does."""
    if not task.cancelled():
        task.exception()
