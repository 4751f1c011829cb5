"""Running things side by side: the first to end decides, the others are cancelled, and no failure goes unseen.

What fails while nobody can be given its exception goes to the loop's exception handler, as asyncio itself does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from sshgate.errors import GateError


async def first_of(*works: Coroutine[Any, Any, Any]) -> tuple[int, Any]:
    """Run them until the first has ended: its index and its result, or its exception.

    Of several that end at once the first in the order given counts. The others are cancelled, and their clean-up is
    waited for; so are all of them when this is cancelled.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        index = next(index for index, task in enumerate(tasks) if task.done())
    except BaseException:
        await cancel(*tasks)
        raise
    await cancel(*tasks[:index], *tasks[index + 1 :])
    return index, tasks[index].result()


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them and wait for their end, whatever it is. Unlike awaiting one, it cannot hide our own cancellation."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        report(task)


def report(task: asyncio.Task[Any]) -> None:
    """Hand a defect with which ``task`` has ended to the loop's exception handler; a ``GateError`` is no defect."""
    if task.cancelled() or not task.done():
        return
    error = task.exception()
    if isinstance(error, Exception) and not isinstance(error, GateError):
        context = {"message": f"{task.get_coro()!r} failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


class TaskSet:
    """Tasks that nobody awaits one by one. They are kept until they end; a defect in one is reported at once."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<TaskSet {len(self._tasks)}>"

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(tuple(self._tasks))

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it beside whatever calls this."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def join(self) -> None:
        """Returns when all have ended, those included that were started meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Cancel all of them and wait for their end."""
        for task in self._tasks:
            task.cancel()
        await self.join()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        report(task)
