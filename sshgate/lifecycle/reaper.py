"""Carrying out what ``reap`` decides, every few seconds: nothing of a dead gateway stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from sshgate.lifecycle.actions import Delete, Detach
from sshgate.lifecycle.patches import detach_patch, seen_patch
from sshgate.lifecycle.reap_plan import Rules, reap
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.telemetry.codes import Code

# Orphans are found by silence of many seconds: looking much more often would find them no sooner.
PERIOD = 2.0

Busy = Callable[[Record], Awaitable[bool]]
"""Whether any program runs in this sandbox; true when it cannot be told."""

log = structlog.get_logger("sshgate.lifecycle")


class Reaper:
    """One per gateway; only the leader's does anything."""

    def __init__(self, registry: Registry, rules: Callable[[], Rules], busy: Busy) -> None:
        """``rules`` is asked at every sweep: settings may be read anew."""
        self._registry = registry
        self._rules = rules
        self._busy = busy
        self._under_way: set[asyncio.Task[None]] = set()
        self._looking: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Reaper {'leading' if self._registry.leads else 'following'}, {len(self._under_way)} under way>"

    def start(self) -> None:
        """Sweep from now on."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop, also what is under way: whatever was not done is found again by the next leader."""
        tasks = [*self._under_way, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def once(self) -> None:
        """Sweep, and see it through."""
        self.sweep()
        for outcome in await asyncio.gather(*self._under_way, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def sweep(self) -> None:
        """Decide, and begin to carry out; the leader only."""
        if not self._registry.leads:
            return
        book = self._registry.book
        for action in reap(book, self._registry.presence, self._rules(), self._registry.now):
            if isinstance(action, Delete) and action.unless_busy:
                # Nothing is being deleted yet, and during the look its user shall see it and may join it.
                book.expectations.undelete(action.record.uid)
                if action.record.uid in self._looking:
                    continue
                self._looking.add(action.record.uid)
            task = asyncio.create_task(self._carry_out(action))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _run(self) -> None:
        while True:
            try:
                self.sweep()
            except Exception:
                log.exception("reaper.broken")
            await asyncio.sleep(PERIOD)

    async def _carry_out(self, action: Delete | Detach) -> None:
        registry, record = self._registry, action.record
        if isinstance(action, Detach):
            await registry.patch(record, detach_patch(record, action.life, registry.now))
        elif not action.unless_busy or await self._idle(record):
            registry.book.expectations.delete(record.uid, registry.now.mono)
            if await registry.delete(action):
                registry.events.emit(
                    Code.REAPED, sandbox=record.name, user=record.user, name=record.sandbox, reason=action.reason
                )

    async def _idle(self, record: Record) -> bool:
        """Whether nothing runs in it; notes on the pod when something does."""
        try:
            if not await self._busy(record):
                return True
            await self._registry.patch(record, seen_patch(record, self._registry.now))
            return False
        finally:
            self._looking.discard(record.uid)
