"""Deletes pods, retrying in the background until the API server has accepted the deletion."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from sshgate.errors import GateError
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import Conflict, NotFound
from sshgate.stream.tasks import cancel

# Seconds that programs get after TERM. With 0 the object would go while the node may still run them.
GRACE_SECONDS = 1
FIRST_DELAY = 0.25
LONGEST_DELAY = 20.0
# A create request without a response may still reach the API server: retry a deletion by name for this long.
UNSURE_SECONDS = 10.0


def nothing_to_remove() -> asyncio.Future[None]:
    """A finished future, for callers that expect the one of ``PodDeleter.remove`` but have nothing to delete."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


class PodDeleter:
    """The pod deletions under way. ``close`` gives up on those that are left."""

    def __init__(self, api: ApiServer, jitter: Callable[[], float] = random.random) -> None:
        self._api = api
        self._jitter = jitter
        # Keyed by uid as well: a recreated named sandbox has the same pod name.
        self._tasks: dict[tuple[str, str | None], asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<PodDeleter {len(self._tasks)} under way>"

    def remove(self, name: str, uid: str | None = None) -> asyncio.Future[None]:
        """Start deleting a pod. Never raises.

        Pass no ``uid`` if it is unknown whether the pod was ever created: it is then deleted by name, and looked for
        again for ``UNSURE_SECONDS``. The future is done after the first attempt, whatever its result; at once if the
        deletion is already under way.
        """
        if (name, uid) in self._tasks:
            return nothing_to_remove()
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._remove(name, uid, first))
        self._tasks[name, uid] = task
        task.add_done_callback(lambda _: self._done((name, uid), first))
        return first

    async def close(self, seconds: float) -> list[str]:
        """Wait at most ``seconds`` for the deletions, cancel the rest; returns the names of the pods that are left."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()), timeout=seconds)
        left = dict(self._tasks)
        await cancel(*left.values())
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
