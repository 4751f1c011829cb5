"""What an operator does to the sandboxes of a namespace from outside any gateway: list, end, reap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sshgate.config.model import Config, Profile
from sshgate.errors import BadRequest, GateError, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.actions import Delete, Detach
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.membership import LEASE_DURATION, RENEW, UNANSWERED
from sshgate.lifecycle.patches import ended_patch
from sshgate.lifecycle.reap_plan import reap
from sshgate.lifecycle.reaper import Reaper
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.registry import Registry
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.homes import KubernetesHomes
from sshgate.providers.kubernetes.keeping import anything_runs, rules_of
from sshgate.providers.kubernetes.leases import Leases, doors, observe_leases
from sshgate.providers.kubernetes.listing import list_sandboxes
from sshgate.providers.kubernetes.liveness import ASK_SECONDS, Inquiry
from sshgate.providers.kubernetes.pods import Pods, record_of
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.sandbox.named import Listed
from sshgate.sandbox.side_execs import ExecLimits

# A life of its own that nothing stands on: nothing here is ever a gateway.
NOBODY = Owner("operator", "operator")
LOOK = RENEW / 2
LONGEST_LISTENING = 2 * UNANSWERED


class Operator:
    """One operator's connection to the namespace of a configuration. Failures raise as ``ApiServer.request`` says."""

    def __init__(self, config: Config, api: ApiServer) -> None:
        self._profiles = config.profiles
        self._api = api
        self._limits = ExecLimits()
        pods = Pods(api, NOBODY, config.profiles)
        self._registry = Registry(NOBODY.life, config.limits, pods, lambda: Now(time.time(), time.monotonic()))
        self._registry.leader = lambda: True
        api.on_date = self._registry.time.record

    async def sandboxes(self) -> list[Listed]:
        """Every sandbox that is somebody's, oldest first."""
        await self._read()
        book, now = self._registry.book, self._registry.now
        records = [one.record for one in book.sightings(now) if one.record.state is not State.WARM]
        homes = KubernetesHomes(self._api, self._profiles, lambda: self._registry.now, lambda: self._registry.limits)
        return await list_sandboxes(self._api, records, homes, None, now)

    async def end(self, which: str, who: str) -> str | None:
        """End a sandbox, by its pod's name or as ``user=name``; its pod's name, or ``None`` when there is none.

        ``who`` ends it is written on the pod, from which the gateways tell their audit.
        """
        user, equals, name = which.partition("=")
        pod = labels.named_pod(user, name) if equals else which
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
        """What is left of dead gateways, and of named sandboxes nobody came back to; removed unless ``dry_run``.

        Who is dead is told by silence, so this takes somewhat longer than ``SILENCE``; ``waiting`` is told so. Longer
        still where silent gateways cannot be asked from here (``presence``).
        """
        waiting(LEASE_DURATION + LOOK)
        await self._listen(waiting)
        found = reap(self._registry.book, self._registry.presence, rules_of(self._profiles), self._registry.now)
        for action in found:
            self._registry.book.expectations.undelete(action.record.uid)
        if not dry_run:
            await Reaper(self._registry, lambda: rules_of(self._profiles), self._busy).once()
        return found

    async def _listen(self, waiting: Callable[[float], None]) -> None:
        leases, presence, inquiry = Leases(self._api, NOBODY), self._registry.presence, Inquiry()
        until = time.monotonic() + LONGEST_LISTENING
        longer = False
        # By time that counts, not by the clock: while answers are slow nobody's silence grows.
        while presence.listened <= LEASE_DURATION + LOOK / 2 or presence.suspects():
            if presence.listened > LEASE_DURATION + LOOK and not longer:
                longer = True
                waiting(UNANSWERED - presence.listened)
            if time.monotonic() > until:
                raise Unavailable("the API server is too slow to tell which gateways live; try again in a moment.")
            await self._read()
            found = await leases.all()
            observe_leases(presence, found)
            inquiry.know(doors(found))
            presence.listen(time.monotonic(), self._registry.book.lives())
            await inquiry.ask(presence, ASK_SECONDS)
            await asyncio.sleep(LOOK)
        await inquiry.close()
        presence.listen(time.monotonic())
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
            return True  # it ended meanwhile, or nobody knows: the next one who looks will see
        return await anything_runs(self._api, pod, self._profiles.get(record.profile, Profile()), self._limits)


@asynccontextmanager
async def operator(config: Config) -> AsyncIterator[Operator]:
    """An operator while the body runs. Raises ``BadRequest`` for local sandboxes."""
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
