"""Carries out what ``reap_plan`` decides, every few seconds, so that nothing of a dead gateway stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from sshgate.lifecycle.reap_plan import Rules, reap
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Delete, Detach, detach_patch, seen_patch
from sshgate.stream.tasks import TaskSet
from sshgate.telemetry.codes import Code

# Seconds between two sweeps. Dead gateways are detected after many seconds; more frequent sweeps would gain nothing.
PERIOD = 2.0

Busy = Callable[[Record], Awaitable[bool]]
"""Returns whether any program runs in this sandbox; True where that cannot be found out."""

log = structlog.get_logger("sshgate.lifecycle")


class Reaper:
    """Deletes what is left over. One per gateway; only the leader's does anything."""

    def __init__(self, registry: Registry, rules: Callable[[], Rules], busy: Busy) -> None:
        """``rules`` is called in every sweep, because settings can be reloaded."""
        self._registry = registry
        self._rules = rules
        self._busy = busy
        self._actions = TaskSet()
        self._looking: set[str] = set()
        self._sweeps = TaskSet()

    def start(self) -> None:
        """Start sweeping every ``PERIOD`` seconds."""
        self._sweeps.start(self._run())

    async def close(self) -> None:
        """Stop, and cancel what is under way: the next leader finds again what was not done."""
        await self._sweeps.cancel()
        await self._actions.cancel()

    async def once(self) -> None:
        """Sweep once and wait for all that is under way. Raises the first failure."""
        self.reap_once()
        for outcome in await asyncio.gather(*self._actions, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def reap_once(self) -> None:
        """Decide, and begin to carry out. Does nothing unless this gateway leads."""
        if not self._registry.leads:
            return
        cache = self._registry.cache
        for action in reap(cache, self._registry.membership, self._rules(), self._registry.now):
            if isinstance(action, Delete) and action.unless_busy:
                # Nothing is being deleted yet: during the look the sandbox must stay visible, and its user may join it.
                cache.expectations.undelete(action.record.uid)
                if action.record.uid in self._looking:
                    continue
                self._looking.add(action.record.uid)
            self._actions.start(self._carry_out(action))

    async def _run(self) -> None:
        while True:
            try:
                self.reap_once()
            except Exception:
                log.exception("reaper.broken")
            await asyncio.sleep(PERIOD)

    async def _carry_out(self, action: Delete | Detach) -> None:
        registry, record = self._registry, action.record
        if isinstance(action, Detach):
            await registry.patch(record, detach_patch(record, action.instance, registry.now))
        elif not action.unless_busy or await self._idle(record):
            registry.cache.expectations.delete(record.uid, registry.now.mono)
            if await registry.delete(action):
                registry.events.emit(
                    Code.REAPED, sandbox=record.name, user=record.user, name=record.sandbox, reason=action.reason
                )

    async def _idle(self, record: Record) -> bool:
        """Whether nothing runs in it; if something does, note the time on the pod."""
        try:
            if not await self._busy(record):
                return True
            await self._registry.patch(record, seen_patch(record, self._registry.now))
            return False
        finally:
            self._looking.discard(record.uid)
