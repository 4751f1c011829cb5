"""Limits how many execs are being started at a time in a pod, and on a node, whose places its users share.

A container runtime that is given two hundred at once starts none of them in time, nor anyone else's. And containerd 1.6
notices the end of an exec only between two starts in its pod, so many ends have a time of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from sshgate.errors import StartFailed
from sshgate.providers.kubernetes.exec.process import ExecProcess
from sshgate.sandbox.shares import Shares
from sshgate.sandbox.side_execs import ExecLimits
from sshgate.stream.tasks import TaskSet

PER_POD = 8
# An exec without output gives its turns back after this long. The node's sooner than the pod's: a user's own programs
# can slow down what starts in the pod, and that must not hold up other users on the node.
POD_SECONDS = 15.0
NODE_SECONDS = 1.0


class StartSlots:
    """The turns of one pod's execs; ``limits`` has those of the nodes."""

    def __init__(self, limits: ExecLimits) -> None:
        self._limits = limits
        self._pod = asyncio.Semaphore(PER_POD)
        self._watching = TaskSet()
        self._ending = asyncio.Lock()

    async def take(self, node: str, user: str, seconds: float) -> StartSlot:
        """Wait for the right to start an exec of ``user`` in this pod and on ``node``. The caller ends the turn.

        Raises ``StartFailed`` after ``seconds``. Nothing is held after an exception or cancellation.
        """
        turn = StartSlot()
        try:
            async with asyncio.timeout(seconds):
                await turn.enter(self._pod)
                await turn.enter_node(self._limits.node(node), user)
        except TimeoutError as error:
            turn.end()
            raise StartFailed("too many programs are being started beside this one; try again in a moment.") from error
        except BaseException:
            turn.end()
            raise
        return turn

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold all turns of the pod, so that no exec is being started in it. One caller at a time.

        Those that are being started give their turns back: after their wait for the node, the API server's answer, and
        ``POD_SECONDS`` at most. The caller has the time limit. Nothing is held after an exception or cancellation.
        """
        turns = StartSlot()
        async with self._ending:
            try:
                for _ in range(PER_POD):
                    await turns.enter(self._pod)
                yield
            finally:
                turns.end()

    def end_when_begun(self, turn: StartSlot, process: ExecProcess) -> None:
        """End the turn in the background: at the first output of the process, or after a time without any."""
        self._watching.start(_watch(turn, process))


class StartSlot:
    """The places that one exec holds, in the pod and on its node."""

    def __init__(self) -> None:
        self._held: list[Callable[[], None]] = []

    async def enter(self, pod: asyncio.Semaphore) -> None:
        """Wait for a place in a pod and hold it."""
        await pod.acquire()
        self._held.append(pod.release)

    async def enter_node(self, places: Shares, user: str) -> None:
        """Wait for a place on a node and hold it."""
        await places.acquire(user)
        self._held.append(partial(places.release, user))

    def leave(self) -> None:
        """Give back the place taken last."""
        self._held.pop()()

    def end(self) -> None:
        """Give back all places. Idempotent."""
        while self._held:
            self.leave()


async def _watch(turn: StartSlot, process: ExecProcess) -> None:
    try:
        if not await process.begun(NODE_SECONDS):
            turn.leave()
            await process.begun(POD_SECONDS - NODE_SECONDS)
    finally:
        turn.end()
