"""Named sandboxes that this gateway is in, and those whose user has just left a held session there.

A login that comes back would wait for an exec longer than for all the rest. So for a while after it has left a held
session, one waits that is attached to the sandbox's resident and has joined nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sshgate.config.model import Profile
from sshgate.errors import GateError
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.interfaces import Sandbox
from sshgate.stream.interfaces import Process
from sshgate.stream.tasks import Event, TaskSet, within

# Seconds that one waits; the resident lets go of what has joined nothing after an hour.
KEPT_SECONDS = 1800.0
# Sandboxes with one, of a user and of all: each holds a connection, and some memory here and in its pod.
MOST_BY_USER = 4
MOST = 64
# Seconds before it is started: its user may come back at once, and an exec makes the node slower for others.
PAUSE = 0.2
# Seconds that a login waits for one that is just being started. Giving it up for another costs a second on the node.
START_SECONDS = 2.0


@dataclass(eq=False)
class Here:
    """A named sandbox, with the number of this gateway's channels in it."""

    sandbox: KubernetesSandbox
    made: bool
    naming: asyncio.Task[None] | None = None
    """Done when the name is written on its pod; ``None``: it is already."""
    count: int = 0
    returns: bool = False
    """Whether a held session was left in it that its user may come back to."""

    @property
    def unused(self) -> bool:
        """Whether nothing runs in it: it was made here and not entered, or it will never run again."""
        return not self.sandbox.used and (self.made or self.sandbox.phase.over)


@dataclass(eq=False)
class _Left:
    """A sandbox that was left. ``settled`` is cleared while the exec in it is being started."""

    sandbox: KubernetesSandbox
    settled: Event
    waiting: asyncio.Task[None]


class Returning:
    """The sandboxes that were left. ``attach`` attaches to a sandbox's resident; ``None``: none runs there."""

    def __init__(self, attach: Callable[[Sandbox], Awaitable[Process | None]]) -> None:
        self._attach = attach
        self._left: dict[str, _Left] = {}
        self._tasks = TaskSet()

    def __repr__(self) -> str:
        return f"<Returning {len(self._left)} sandboxes>"

    def keep(self, sandbox: KubernetesSandbox) -> None:
        """Keep a sandbox that its user has left, and an exec in it: the one that was not used, or soon a new one.

        The oldest ones make room.
        """
        self._drop(sandbox.id)
        mine = [name for name, one in self._left.items() if one.sandbox.aside.user == sandbox.aside.user]
        if len(mine) >= MOST_BY_USER:
            self._drop(mine[0])
        elif len(self._left) >= MOST:
            self._drop(next(iter(self._left)))
        sandbox.unattend()
        settled = Event()
        settled.set()
        self._left[sandbox.id] = _Left(sandbox, settled, self._tasks.start(self._wait(sandbox, settled)))

    async def take(self, name: str, uid: str, profile: Profile) -> KubernetesSandbox | None:
        """Return the sandbox that is kept for this pod, if any, with what waits in it: the caller's from now on.

        Waits for an exec that is just being started, ``START_SECONDS`` at most. Cancelling leaves all as it was.
        """
        if (starting := self._left.get(name)) is not None:
            await within(START_SECONDS, starting.settled.wait())
        left = self._left.get(name)
        if left is None or left.sandbox.uid != uid or not left.sandbox.usable:
            self._drop(name)
            return None
        del self._left[name]
        left.waiting.cancel()
        left.sandbox.profile = profile  # its limits may have changed
        return left.sandbox

    def observe(self, pod: Pod, gone: bool) -> None:
        """Take note of a change of a pod, or of its end (``gone``), from the watch."""
        if (found := self._left.get(pod.metadata.name)) is not None:
            found.sandbox.observe(pod, gone)
            if not found.sandbox.usable:
                self._drop(pod.metadata.name)

    async def close(self) -> None:
        """Close all that wait. The sandboxes stay."""
        for left in self._left.values():
            left.sandbox.abandon()
        self._left.clear()
        await self._tasks.cancel()

    def _drop(self, name: str) -> None:
        if (left := self._left.pop(name, None)) is not None:
            left.waiting.cancel()
            self._tasks.start(left.sandbox.let_go())

    async def _wait(self, sandbox: KubernetesSandbox, settled: Event) -> None:
        process = sandbox.kept
        if process is None:
            await asyncio.sleep(PAUSE)
            settled.clear()
            try:
                with contextlib.suppress(GateError):
                    process = await self._attach(sandbox)
            finally:
                settled.set()  # also where it is cancelled since the sandbox is dropped: a login may wait
            if process is not None:
                sandbox.leave("kept", process)
        if process is not None:
            # Whatever comes is its end: nothing was asked of it.
            await within(KEPT_SECONDS, process.read())
        left = self._left.get(sandbox.id)
        if left is not None and left.settled is settled:
            del self._left[sandbox.id]
            await sandbox.let_go()
