"""Helpers to run tasks concurrently without losing an exception.

An exception that no caller can receive is passed to the event loop's exception handler, as asyncio itself does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from sshgate.errors import GateError


async def first_of(*works: Coroutine[Any, Any, Any]) -> tuple[int, Any]:
    """Run coroutines concurrently until the first one ends, and return its index and result.

    If several end at once, the first in the order given counts. The others are cancelled, and their cleanup is awaited.
    Cancellation does the same to all of them.

    Raises:
        Exception: What the first coroutine to end has raised.
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


async def all_of(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines concurrently until all have ended, and return their results in the order given.

    If one raises, the others are cancelled, and their cleanup is awaited. Cancellation does the same to all of them.

    Raises:
        Exception: What the first coroutine to fail has raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def within(seconds: float | None, work: Awaitable[object]) -> bool:
    """Wait for ``work`` at most this long (``None``: no limit), then cancel it. Returns whether it has ended in time.

    Raises what it raises, except ``TimeoutError``: then it has not ended in time.
    """
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended.

    Never raises their exceptions: defects go to ``report``. Unlike ``await task``, it cannot mistake a task's
    ``CancelledError`` for the caller's own cancellation.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        report(task)


def report(task: asyncio.Task[Any]) -> None:
    """Pass the exception with which ``task`` has ended, if any, to the event loop's exception handler.

    A ``GateError`` is ignored: it is an error of the user or the environment, not a defect.
    """
    if task.cancelled() or not task.done():
        return
    error = task.exception()
    if isinstance(error, Exception) and not isinstance(error, GateError):
        context = {"message": f"{task.get_coro()!r} failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


class Event:
    """As ``asyncio.Event``, in 100 bytes instead of 800: each session has several, most without anybody who waits."""

    __slots__ = ("_set", "_waiters")

    def __init__(self) -> None:
        self._set = False
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def __repr__(self) -> str:
        return f"<Event {'set' if self._set else 'unset'}, {len(self._waiters)} waiting>"

    def is_set(self) -> bool:
        """Return whether ``set`` was called, and not ``clear`` after it."""
        return self._set

    def set(self) -> None:
        """Wake all that wait; from now on ``wait`` returns at once."""
        self._set = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """From now on ``wait`` waits until the next ``set``."""
        self._set = False

    async def wait(self) -> None:
        """Return when the event is set, even if it is cleared before this task runs again."""
        if not self._set:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters += (waiter,)
            try:
                await waiter
            finally:
                self._waiters = tuple(other for other in self._waiters if other is not waiter)

    async def until(self, done: Callable[[], object]) -> None:
        """Return once ``done()`` is true. It is called again each time the event is set; clears the event."""
        while not done():
            self.clear()
            await self.wait()


class TaskSet:
    """Background tasks that are not awaited one by one. Holds them until they end and reports their defects."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] | tuple[()] = ()  # an empty set would take 216 bytes

    def __repr__(self) -> str:
        return f"<TaskSet {len(self._tasks)}>"

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(tuple(self._tasks))

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this set."""
        task = asyncio.create_task(work)
        self._tasks = self._tasks or set()
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def join(self) -> None:
        """Wait until all tasks have ended, including those started meanwhile. Cancellation leaves them running."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Cancel all tasks, those started meanwhile too, and wait until they have ended."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        assert self._tasks
        self._tasks.discard(task)
        self._tasks = self._tasks or ()
        report(task)
