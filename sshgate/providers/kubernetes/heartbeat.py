"""Shows the other gateways that this one is alive, and observes them: one Lease each, read every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import structlog

from sshgate.errors import GateError
from sshgate.lifecycle.membership import LONGEST_GAP, RENEW, Election
from sshgate.lifecycle.registry import Registry
from sshgate.providers.kubernetes.api.errors import Conflict
from sshgate.providers.kubernetes.lease_thread import LeaseRenewer
from sshgate.providers.kubernetes.leases import LEADERSHIP, Lease, Leases, endpoints, observe_leases, part_of
from sshgate.providers.kubernetes.liveness import LivenessProber
from sshgate.stream.tasks import TaskSet

# Seconds between reads of the Leases: twice per renewal, and short enough that while the API server is quick, the gap
# never counts as a disconnection (`Membership.listen`).
LOOK = min(RENEW, LONGEST_GAP) / 2
CLOSE_SECONDS = 2.0
# Seconds to wait for replies to liveness probes; later ones count at the next read.
PROBE_SECONDS = 1.0

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class Heartbeat:
    """Keeps the registry's ``Membership`` current and takes part in the election of the leader.

    ``start`` once, ``close`` at the end. ``renewer`` renews this gateway's own Lease.
    """

    def __init__(self, leases: Leases, registry: Registry, renewer: LeaseRenewer) -> None:
        self._leases = leases
        self._registry = registry
        self._renewer = renewer
        self._prober = LivenessProber()
        self._election = Election(registry.instance, registry.membership)
        self._tasks = TaskSet()
        self._begun = False

    @property
    def leads(self) -> bool:
        """Whether this gateway is the leader, which fills the pools and deletes orphans."""
        return self._election.leads(self._registry.now.mono)

    async def start(self) -> None:
        """Create this gateway's Lease, read the others once and start the loop. Raises ``GateError``."""
        self._begun = True
        await self._leases.announce(await self._renewer.start())
        await self._succeed()
        await self._look()
        self._tasks.start(self._run())

    async def _succeed(self) -> None:
        """Release the Leases of ended instances that ran here, usually our predecessor: no need to let them expire."""
        self._prober.learn(endpoints(await self._leases.all()))
        for instance in await self._prober.here():
            await self._leases.release(instance)
            self._registry.membership.left(instance)

    async def close(self) -> None:
        """Release our Lease and the leader's if we hold it, so that others need not let them expire. Never raises."""
        if not self._begun:
            return
        self._begun = False
        await self._tasks.cancel()
        await self._prober.close()
        await self._renewer.close()
        with contextlib.suppress(GateError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._leases.release(self._registry.instance)
                leader = _leader(await self._leases.all())
                if leader is not None and leader.spec.holder_identity == self._registry.instance:
                    await self._leases.resign(leader)

    async def leave(self) -> bool:
        """Close; returns whether no other gateway is left, and if so deletes our Lease and dead ones. Never raises.

        Our Lease is released before the others are read: of two gateways that stop at once, the one that releases
        last finds nobody.
        """
        await self.close()
        try:
            instances = observe_leases(self._registry.membership, await self._leases.all())
            if self._registry.live_instances != [self._registry.instance]:
                return False
            for instance in instances:
                if instance == self._registry.instance or self._registry.membership.dead(instance):  # no other will
                    await self._leases.forget(instance)
        except GateError:
            return False
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self._look()
            except GateError as error:
                self._registry.membership.mark_disconnected()
                log.debug("lease.failed", reason=str(error))
            except Exception:
                # Without news of the others, none may be taken for dead.
                self._registry.membership.mark_disconnected()
                log.exception("lease.broken")

    async def _look(self) -> None:
        leases = await self._leases.all()
        now = self._registry.now.mono
        membership = self._registry.membership
        instances = observe_leases(membership, leases)
        leader = _leader(leases)
        holder = (leader.spec.holder_identity or None) if leader is not None else None
        on_pods = self._registry.cache.instances()
        elsewhere = {*on_pods, *([holder] if holder else [])}
        membership.count_time(now, elsewhere)
        membership.forget(but={*instances, *elsewhere})
        self._prober.learn(endpoints(leases))
        self._prober.forget(but={*instances, *elsewhere})
        await self._elect(leader, holder, now)
        await self._prober.probe(membership, PROBE_SECONDS)
        for instance in instances if self.leads else ():
            # Once it owns nothing and every gateway has observed its end, nobody needs its Lease.
            if instance not in elsewhere and membership.dead(instance) and membership.silent(instance):
                await self._leases.forget(instance)
        self._registry.notify()

    async def _elect(self, leader: Lease | None, holder: str | None, now: float) -> None:
        if self._election.observe(holder, now):
            with contextlib.suppress(Conflict):  # another gateway was faster; the next read shows which
                await self._leases.lead(leader)
                self._election.won(now)
                log.info("leading", gateway=self._registry.instance, after=holder)


def _leader(leases: Iterable[Lease]) -> Lease | None:
    return next((lease for lease in leases if part_of(lease) == LEADERSHIP), None)
