"""Pods that have to go: deleted at once, and again in the background until the API server has accepted it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from sshgate.errors import GateError
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import Conflict, NotFound

# Programs get this long after TERM. 0 would drop the object while the node may still run them.
GRACE_SECONDS = 1
FIRST_DELAY = 0.25
LONGEST_DELAY = 20.0
# A create whose answer never came may still arrive at the API server: look again until then.
UNSURE_SECONDS = 10.0


def nothing_to_remove() -> asyncio.Future[None]:
    """What ``Removals.remove`` returns, of a pod that is not to be removed: it is over."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


class PodDeleter:
    """The deletions under way. ``close`` gives up on what is left."""

    def __init__(self, api: ApiServer, jitter: Callable[[], float] = random.random) -> None:
        self._api = api
        self._jitter = jitter
        # By uid too: a named sandbox that is made anew has the name of the last one.
        self._tasks: dict[tuple[str, str | None], asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Removals {len(self._tasks)} under way>"

    def remove(self, name: str, uid: str | None = None) -> asyncio.Future[None]:
        """Delete a pod; the future is done when the first attempt is over, whatever came of it.

        Without ``uid`` it is not known whether the pod was ever made.
        """
        if (name, uid) in self._tasks:
            return nothing_to_remove()
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._remove(name, uid, first))
        self._tasks[name, uid] = task
        task.add_done_callback(lambda _: self._done((name, uid), first))
        return first

    async def close(self, seconds: float) -> list[str]:
        """Wait for what is under way, at most ``seconds``; returns the names of the pods that are left."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()), timeout=seconds)
        left = dict(self._tasks)
        for task in left.values():
            task.cancel()
        await asyncio.gather(*left.values(), return_exceptions=True)
        return sorted({name for name, _ in left})

    def _done(self, pod: tuple[str, str | None], first: asyncio.Future[None]) -> None:
        del self._tasks[pod]
        if not first.done():
            first.set_result(None)

    async def _remove(self, name: str, uid: str | None, first: asyncio.Future[None]) -> None:
        clock = asyncio.get_running_loop().time
        unsure_until = clock() + UNSURE_SECONDS if uid is None else 0.0
        delay = FIRST_DELAY
        while True:
            try:
                await self._api.delete_pod(name, uid, GRACE_SECONDS)
                return
            except (NotFound, Conflict):
                if clock() >= unsure_until:
                    return
            except GateError:
                pass
            if not first.done():
                first.set_result(None)
            await asyncio.sleep(delay * (0.5 + self._jitter()))
            delay = min(delay * 2, LONGEST_DELAY)
