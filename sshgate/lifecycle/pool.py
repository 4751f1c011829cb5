"""Keeps the warm pools: carries out what ``pool_plan`` decides, parks launchers, and cleans up at the end.

Every change of the cache causes a pass, so that a claim makes the next sandbox at once. One gateway, the leader, makes
and deletes warm pods; every gateway parks in its own slice and deletes its own orphans.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import structlog

from sshgate.errors import GateError, Unavailable
from sshgate.lifecycle.parking import Parking
from sshgate.lifecycle.pool_plan import HELD, Action, Backoff, Refiller, Target, Wait
from sshgate.lifecycle.reap_plan import orphans
from sshgate.lifecycle.records import Stage, State
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Create, Delete
from sshgate.lifecycle.schema import label_value
from sshgate.stream.tasks import Event, TaskSet, within
from sshgate.telemetry.codes import Code

# Seconds between a change and its pass: the login that caused it goes first, since a pod that starts is much work for
# the cluster. Of many changes only the last state matters.
SHORTEST = 0.1
LONGEST = 5.0
# Seconds until deletions are requested again after one that failed, at first and at most: each pass decides anew.
FIRST_DELAY = 0.5
LONGEST_DELAY = 15.0
# Requests under way at a time: the API server has logins to serve as well.
AT_ONCE = 8

# Seconds: longer than a leader needs to fill a pool, and than settings differ between gateways during a rollout.
UNFILLED_SECONDS = 120.0
UNFILLED = (
    "the gateway that leads makes no warm sandboxes as this one has them configured: give all gateways of a namespace "
    "the same profiles, or namespaces of their own."
)

log = structlog.get_logger("sshgate.lifecycle")


class PoolController:
    """All pools of one gateway. Call ``start`` once the cache is synced, and ``close`` before the watch ends."""

    def __init__(
        self,
        registry: Registry,
        targets: Sequence[Target],
        parking: Parking,
        token: Callable[[], str],
        jitter: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._targets = targets
        self._parking = parking
        self._refiller = Refiller(token, jitter)
        self._requests = TaskSet()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._deletions = Backoff(FIRST_DELAY, LONGEST_DELAY, jitter)
        self._closing = Event()
        self._passes = TaskSet()
        self._held: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._empty_since: dict[str, float] = {}

    def __repr__(self) -> str:
        pools = self._registry.cache.pools(self._registry.now)
        ready = sum(pool.count(Stage.READY) for pool in pools)
        return f"<PoolController {ready} ready, {sum(map(len, pools)) - ready} starting, {self._parking!r}>"

    def start(self) -> None:
        """Start the task that keeps the pools."""
        self._passes.start(self._run())

    async def close(self, seconds: float, last: Callable[[], Awaitable[bool]]) -> None:
        """Stop, and delete the warm sandboxes unless another gateway is there to hand them out.

        Args:
            seconds: how long to wait for requests under way and for the deletions; what is left is then cancelled.
            last: called once nothing is made any more; returns whether this was the last gateway. Of several that
                stop at once it must return True to at least one.
        """
        await self._passes.cancel()
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._parking.close()
                # Wait for creations under way, so that their pods are known and can be deleted.
                await self._requests.join()
                if await last():
                    await self._empty()
        await self._requests.cancel()

    async def _empty(self) -> None:
        registry = self._registry
        for one in registry.cache.warm(registry.now):
            delete = Delete(one.record, "the last gateway has ended", untouched=False)
            registry.cache.expectations.delete(one.record.uid, registry.now.mono)
            self._requests.start(self._delete(delete))
        await self._requests.join()

    async def _run(self) -> None:
        while True:
            changed = self._registry.changed()
            try:
                until = self._look()
            except Exception:
                log.exception("pool.broken")
                until = self._registry.now.mono + LONGEST
            await within(min(LONGEST, max(0.0, until - self._registry.now.mono)), changed)
            await asyncio.sleep(SHORTEST)

    def _look(self) -> float:
        """Decide, and begin to carry out. Returns when to look again (monotonic)."""
        registry = self._registry
        until = min(self._parking.look(), registry.now.mono + LONGEST)
        actions: list[Action] = list(orphans(registry.cache, registry.now))
        if registry.leads:
            limit = registry.limits.sandboxes
            actions += self._refiller.decide(registry.cache, self._targets, limit, registry.now)
        holds = self._stuck() | self._unfilled()
        for action in actions:
            if isinstance(action, Create):
                self._requests.start(self._create(action))
            elif isinstance(action, Delete):
                self._requests.start(self._delete(action))
            elif isinstance(action, Wait):
                until = min(until, action.until)
                holds.setdefault(action.profile, action.reason)
        self._log_once(holds)
        return until

    def _stuck(self) -> dict[str, str]:
        """Why warm sandboxes do not start, by profile. Only the leader reports it."""
        if not self._registry.leads:
            return {}
        cache = self._registry.cache
        held = {pool.profile: key for pool in cache.pools(self._registry.now) for key in islice(pool.least(HELD), 1)}
        return {profile: f"warm sandboxes cannot start: {cache.record(key).reason}" for profile, key in held.items()}

    def _unfilled(self) -> dict[str, str]:
        """Our pools that stay empty because the gateway that leads has other profiles."""
        registry = self._registry
        empty: set[str] = set()
        if registry.cache.synced and not registry.leads:
            warm = {(pool.profile, pool.template) for pool in registry.cache.pools(registry.now)}
            empty = {one.profile for one in self._targets if (label_value(one.profile), one.template) not in warm}
        now = registry.now.mono
        self._empty_since = {profile: self._empty_since.get(profile, now) for profile in empty}
        return {profile: UNFILLED for profile, since in self._empty_since.items() if now - since >= UNFILLED_SECONDS}

    def _log_once(self, holds: dict[str, str]) -> None:
        """Log why a pool does not grow once, not in every pass."""
        holds = {profile: reason for profile, reason in holds.items() if reason != "not so fast"}
        for profile, reason in holds.items():
            if self._held.get(profile) != reason:
                log.warning("pool.held", profile=profile, reason=reason)
        self._held = holds

    async def _create(self, action: Create) -> None:
        registry = self._registry
        async with self._room:
            try:
                await registry.make(action)
            except Unavailable as error:
                self._refiller.unanswered(action, str(error), registry.now)
            except GateError as error:
                self._refiller.refused(action, registry.cache, registry.now)
                if self._refused.get(action.profile) != str(error):
                    log.warning("pool.refused", profile=action.profile, reason=str(error))
                    self._refused[action.profile] = str(error)
            else:
                self._refiller.answered(action)
                self._refused.pop(action.profile, None)
        registry.notify()

    async def _delete(self, action: Delete) -> None:
        pause = self._deletions.until - self._registry.now.mono
        if pause > 0:
            await within(pause, self._closing.wait())
        async with self._room:
            going = await self._registry.delete(action)
        if not going:
            self._deletions.failed(self._registry.now.mono)
            return
        self._deletions.succeeded()
        if action.record.state is State.WARM:
            log.info("pool.removed", sandbox=action.record.name, reason=action.reason)
        else:
            self._registry.events.emit(Code.REAPED, sandbox=action.record.name, reason=action.reason)
