"""The channels of one gateway in named sandboxes, and the locks by which it changes one name at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.records import Record
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.interfaces import Sandbox


class Here:
    """A named sandbox, with the number of this gateway's channels in it."""

    def __init__(self, sandbox: KubernetesSandbox, made: bool, naming: asyncio.Task[None] | None = None) -> None:
        """``naming`` is done when the name is written on its pod; ``None``: it is already."""
        self.sandbox = sandbox
        self.made = made
        self.naming = naming
        self.count = 0

    @property
    def unused(self) -> bool:
        """Whether nothing runs in it: it was made here and not entered, or it will never run again."""
        return not self.sandbox.used and (self.made or self.sandbox.phase.over)


class Attached:
    """The ``Attachment`` of one channel; ``leave`` calls ``leaving`` once."""

    def __init__(self, here: Here, made: bool, left: float, leaving: Callable[[], None]) -> None:
        self.sandbox: Sandbox = here.sandbox
        self.made = made
        self.left = left
        self._leaving: Callable[[], None] | None = leaving

    async def leave(self) -> None:
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving()


class Locks:
    """One lock for each name, which exists only while somebody holds or awaits it."""

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    def __repr__(self) -> str:
        return f"<Locks {len(self._locks)} in use>"

    def __contains__(self, key: str) -> bool:
        return key in self._locks

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Serialise what the bodies do with one name, by ``key_of`` or ``schema.named_pod``."""
        lock = self._locks.setdefault(key, _Lock())
        lock.wanted += 1
        try:
            async with lock:
                yield
        finally:
            lock.wanted -= 1
            if not lock.wanted:
                del self._locks[key]


def key_of(record: Record) -> str:
    """By what changes of a named sandbox are serialised: the name of its pod if it had started cold."""
    return record.name if record.sandbox is None else labels.pod_of(record.user_hash or "", record.sandbox)


class _Lock(asyncio.Lock):
    wanted = 0
