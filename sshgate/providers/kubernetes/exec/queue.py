"""Who may begin an exec now: so many at a time in a pod and on a node, first come, first served.

A container runtime that is given two hundred at once begins none of them in time, and neither anybody else's.
"""

from __future__ import annotations

import asyncio

from sshgate.errors import StartFailed
from sshgate.providers.kubernetes.exec.process import ExecProcess
from sshgate.sandbox.side_execs import ExecLimits

PER_POD = 8
# An exec that says nothing gives its turn back after this long: the pod's when it may never say anything; the node's
# sooner, as a user's own programs can hold up what begins in a pod, and others have theirs on the same node.
POD_SECONDS = 15.0
NODE_SECONDS = 1.0


class Turns:
    """Those of one pod."""

    def __init__(self, limits: ExecLimits) -> None:
        self._limits = limits
        self._pod = asyncio.Semaphore(PER_POD)
        self._watching: set[asyncio.Task[None]] = set()

    async def take(self, node: str, seconds: float) -> Turn:
        """The right to begin an exec, within ``seconds``; else raises ``StartFailed``."""
        turn = Turn()
        try:
            async with asyncio.timeout(seconds):
                await turn.enter(self._pod)
                await turn.enter(self._limits.node(node))
        except TimeoutError as error:
            turn.end()
            raise StartFailed("too many programs are being started beside this one; try again in a moment.") from error
        except BaseException:
            turn.end()
            raise
        return turn

    def end_when_begun(self, turn: Turn, process: ExecProcess) -> None:
        """Give the turn back as soon as the process has said something."""
        task = asyncio.create_task(_watch(turn, process))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)


class Turn:
    """Places in the pod and on its node."""

    def __init__(self) -> None:
        self._held: list[asyncio.Semaphore] = []

    async def enter(self, places: asyncio.Semaphore) -> None:
        """Wait for a place."""
        await places.acquire()
        self._held.append(places)

    def leave(self) -> None:
        """Give the last one back that is held."""
        self._held.pop().release()

    def end(self) -> None:
        """Give back what is held."""
        while self._held:
            self.leave()


async def _watch(turn: Turn, process: ExecProcess) -> None:
    try:
        if not await process.begun(NODE_SECONDS):
            turn.leave()
            await process.begun(POD_SECONDS - NODE_SECONDS)
    finally:
        turn.end()
