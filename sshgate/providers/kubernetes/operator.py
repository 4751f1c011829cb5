"""An operator's commands on the sandboxes of a namespace, run outside any gateway: list, end, reap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sshgate.config.model import Config, Profile
from sshgate.errors import BadRequest, GateError, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.membership import LEASE_DURATION, RENEW, UNANSWERED
from sshgate.lifecycle.reap_plan import reap
from sshgate.lifecycle.reaper import Reaper
from sshgate.lifecycle.records import Record, Stage
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Delete, Detach, ended_patch
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.homes import KubernetesHomes
from sshgate.providers.kubernetes.inspection import anything_runs, list_sandboxes, rules_of
from sshgate.providers.kubernetes.leases import Leases, endpoints, observe_leases
from sshgate.providers.kubernetes.liveness import ASK_SECONDS, LivenessProber
from sshgate.providers.kubernetes.pods import Pods, record_of
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.sandbox.interfaces import Listed
from sshgate.sandbox.side_execs import ExecLimits

# An instance that owns nothing: an operator's command is not a gateway.
NOBODY = Owner("operator", "operator")
LOOK = RENEW / 2
LONGEST_LISTENING = 2 * UNANSWERED


class Operator:
    """One operator's access to the namespace of a configuration. Methods raise as ``ApiServer.request`` does."""

    def __init__(self, config: Config, api: ApiServer) -> None:
        self._profiles = config.profiles
        self._api = api
        self._limits = ExecLimits()
        pods = Pods(api, NOBODY, config.profiles)
        self._registry = Registry(NOBODY.instance, config.limits, pods, lambda: Now(time.time(), time.monotonic()))
        self._registry.leader = lambda: True
        api.on_date = self._registry.time.observe

    async def sandboxes(self) -> list[Listed]:
        """List every sandbox that is in use, oldest first; no warm ones."""
        await self._read()
        now = self._registry.now
        records = self._registry.cache.claimed(now)
        homes = KubernetesHomes(self._api, self._profiles, lambda: self._registry.now, lambda: self._registry.limits)
        return await list_sandboxes(self._api, records, homes, None, now)

    async def end(self, which: str, who: str) -> str | None:
        """End a sandbox; returns its pod's name, or ``None`` if there is none.

        Args:
            which: The pod's name, or ``user=name`` for a named sandbox.
            who: The operator's name; written on the pod, where the gateways read it for their audit log.

        Raises ``BadRequest`` if the pod is not a sandbox.
        """
        user, equals, name = which.partition("=")
        pod = await self._pod_of(user, name) if equals else which
        try:
            found = await self._api.get_pod(pod)
        except failures.NotFound:
            return None
        if found.metadata.labels.get(labels.MANAGED_BY) != labels.MANAGED:
            raise BadRequest(f"the pod {pod} is no sandbox; use kubectl.")
        try:
            await self._api.patch_pod(pod, ended_patch(record_of(found), who))
            await self._api.delete_pod(pod, found.metadata.uid)
        except (failures.NotFound, failures.Invalid):
            return None  # it ended by itself meanwhile
        return pod

    async def reap(self, dry_run: bool, waiting: Callable[[float], None]) -> list[Delete | Detach]:
        """Find what dead gateways and abandoned named sandboxes have left; remove it unless ``dry_run``.

        A gateway is dead if its Lease does not change, so this takes a little longer than ``LEASE_DURATION``, and up
        to ``UNANSWERED`` if a silent gateway cannot be probed from here. ``waiting`` is called with the seconds that
        remain.
        """
        waiting(LEASE_DURATION + LOOK)
        await self._listen(waiting)
        found = reap(self._registry.cache, self._registry.membership, rules_of(self._profiles), self._registry.now)
        for action in found:
            self._registry.cache.expectations.undelete(action.record.uid)
        if not dry_run:
            await Reaper(self._registry, lambda: rules_of(self._profiles), self._busy).once()
        return found

    async def _pod_of(self, user: str, name: str) -> str:
        """The name of the pod that is this sandbox now, or would be if it was started cold."""
        await self._read()
        found = (one.name for one in self._registry.cache.sandboxes(user, name) if one.counts)
        return next(found, labels.named_pod(user, name))

    async def _listen(self, waiting: Callable[[float], None]) -> None:
        leases, membership, prober = Leases(self._api, NOBODY), self._registry.membership, LivenessProber()
        until = time.monotonic() + LONGEST_LISTENING
        longer = False
        # Measured in time during which renewals could be observed: slow answers of the API server do not count.
        while membership.observed_time <= LEASE_DURATION + LOOK / 2 or membership.suspects():
            if membership.observed_time > LEASE_DURATION + LOOK and not longer:
                longer = True
                waiting(UNANSWERED - membership.observed_time)
            if time.monotonic() > until:
                raise Unavailable("the API server is too slow to show which gateways live; try again in a moment.")
            await self._read()
            found = await leases.all()
            observe_leases(membership, found)
            prober.learn(endpoints(found))
            membership.count_time(time.monotonic(), self._registry.cache.instances())
            await prober.probe(membership, ASK_SECONDS)
            await asyncio.sleep(LOOK)
        await prober.close()
        membership.count_time(time.monotonic())
        await self._read()

    async def _read(self) -> None:
        found = await self._api.list_pods(labels.SELECTOR)
        self._registry.replace([record_of(pod) for pod in found.items or ()])

    async def _busy(self, record: Record) -> bool:
        if record.stage is not Stage.READY:
            return False
        try:
            pod = await self._api.get_pod(record.name)
        except GateError:
            return True  # it ended meanwhile, or its state is unknown: the next sweep decides
        return await anything_runs(self._api, pod, self._profiles.get(record.profile, Profile()), self._limits)


@asynccontextmanager
async def operator(config: Config) -> AsyncIterator[Operator]:
    """An ``Operator`` while the body runs. Raises ``BadRequest`` for the local provider, else ``Unavailable``."""
    if config.sandbox.provider != "kubernetes":
        raise BadRequest(
            "local sandboxes live inside their gateway: their users list and end them by `ssh -s USER@HOST sandboxes`."
        )
    api = ApiServer(config.sandbox)
    await api.open()
    try:
        yield Operator(config, api)
    finally:
        await api.close()
