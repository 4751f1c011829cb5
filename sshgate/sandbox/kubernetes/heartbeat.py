"""Telling the other gateways that this one lives, and hearing of them: one Lease each, looked at every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import structlog

from sshgate.errors import GateError
from sshgate.lifecycle.election import Election
from sshgate.lifecycle.presence import LONGEST_GAP, RENEW
from sshgate.lifecycle.registry import Registry
from sshgate.sandbox.kubernetes.failures import Conflict, NotFound
from sshgate.sandbox.kubernetes.leases import LEADERSHIP, Lease, Leases, part_of, tell

# Twice as often as renewals come, and often enough never to count as deaf while the API server is quick.
LOOK = min(RENEW, LONGEST_GAP) / 2
CLOSE_SECONDS = 2.0

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class Heartbeat:
    """Feeds ``registry.presence`` and knows who leads. ``start`` once, ``close`` at the end."""

    def __init__(self, leases: Leases, registry: Registry) -> None:
        self._leases = leases
        self._registry = registry
        self._election = Election(registry.life, registry.presence)
        self._renewed: float | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Heartbeat {self._election!r}, {self._registry.presence!r}>"

    @property
    def leads(self) -> bool:
        """Whether this gateway is to refill the pools and to reap."""
        return self._election.leads(self._registry.now.mono)

    async def start(self) -> None:
        """Make this gateway's Lease and look once. Raises what the API server answers."""
        await self._leases.begin()
        self._renewed = self._registry.now.mono
        await self._bury()
        await self._look()
        self._task = asyncio.create_task(self._run())

    async def _bury(self) -> None:
        """Earlier lives of a gateway of this name are over, or this one would not begin: no need for their silence."""
        for life in await self._leases.earlier():
            await self._leases.release(life)
            self._registry.presence.left(life)

    async def close(self) -> None:
        """Say goodbye, so that the others need not wait for the silence. Never raises."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        with contextlib.suppress(GateError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._leases.release(self._registry.life)

    async def farewell(self) -> bool:
        """Say goodbye, and whether nobody else is there. Never raises.

        In this order: of two that stop at once, the one that says goodbye last finds nobody.
        """
        await self.close()
        try:
            lives = tell(self._registry.presence, await self._leases.all())
            if self._registry.lives != [self._registry.life]:
                return False
            for life in lives:  # nobody else will
                await self._leases.forget(life)
        except GateError:
            return False
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self._beat()
            except GateError as error:
                self._registry.presence.deaf()
                log.debug("lease.failed", reason=str(error))
            except Exception:
                # Whoever stops renewing is taken for dead, and its live sessions are reaped.
                self._registry.presence.deaf()
                log.exception("lease.broken")

    async def _beat(self) -> None:
        now = self._registry.now.mono
        if self._renewed is None or now - self._renewed >= RENEW - LOOK / 2:
            try:
                await self._leases.renew()
            except NotFound:
                await self._leases.begin()
            self._renewed = now
        await self._look()

    async def _look(self) -> None:
        leases = await self._leases.all()
        now = self._registry.now.mono
        presence = self._registry.presence
        told = tell(presence, leases)
        leader = next((lease for lease in leases if part_of(lease) == LEADERSHIP), None)
        holder = leader.spec.holder_identity if leader is not None else None
        on_pods = self._registry.book.lives()
        elsewhere = {*on_pods, *([holder] if holder else [])}
        presence.listen(now, elsewhere)
        presence.forget(but={*told, *elsewhere})
        await self._elect(leader, holder, now)
        if self.leads:
            await self._tidy(life for life in told if life not in elsewhere)
        self._registry.stir()

    async def _elect(self, leader: Lease | None, holder: str | None, now: float) -> None:
        if self._election.saw(holder, now):
            with contextlib.suppress(Conflict):  # somebody was quicker: the next look says who
                await self._leases.lead(leader)
                self._election.won(now)
                log.info("leading", gateway=self._registry.life, after=holder)

    async def _tidy(self, unused: Iterable[str]) -> None:
        """Delete the Leases of the dead once nothing of theirs is left and everybody has seen how they ended."""
        presence = self._registry.presence
        for life in unused:
            if presence.dead(life) and presence.silent(life):
                await self._leases.forget(life)
