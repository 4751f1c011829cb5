"""Sandboxes as pods of a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import product
from typing import Any

import structlog

from sshgate.config.model import Limits, Profile, SandboxPlace
from sshgate.errors import GateError, LimitReached, StartFailed, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.claim import ClaimAttempt
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.parking import Kind, Parking
from sshgate.lifecycle.pool import PoolController
from sshgate.lifecycle.pool_plan import Target, evict_for_login
from sshgate.lifecycle.reaper import Reaper
from sshgate.lifecycle.records import PHASES, Record, Stage
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Claim, claim_annotations
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer, Observe, unobserved
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.api.reflector import Reflector, pods
from sshgate.providers.kubernetes.deletion import PodDeleter, nothing_to_remove
from sshgate.providers.kubernetes.heartbeat import Heartbeat
from sshgate.providers.kubernetes.homes import KubernetesHomes
from sshgate.providers.kubernetes.inspection import anything_runs, ended_by, rules_of
from sshgate.providers.kubernetes.installation import check_rights, find_anchor
from sshgate.providers.kubernetes.lease_thread import LeaseRenewer
from sshgate.providers.kubernetes.leases import Leases
from sshgate.providers.kubernetes.liveness import free_name
from sshgate.providers.kubernetes.named import KubernetesNamed
from sshgate.providers.kubernetes.pods import Pods, record_of
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.providers.kubernetes.user_records import LeaseUserRecords
from sshgate.sandbox.interfaces import Notice, Order, Sandbox
from sshgate.sandbox.side_execs import NOBODY, ExecLimits
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events

# Seconds that `close` spends on deleting what is still there.
CLOSE_SECONDS = 8.0

# If a warm pod is evicted to free quota for a login: how long that may take, and how often to retry.
WAY_SECONDS = 8.0
WAY_PAUSE = 0.25

_NO_LIMITS = Limits(sandboxes_per_user=1_000_000, sandboxes=1_000_000, homes_per_user=1_000_000, starts_per_minute=None)

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class KubernetesProvider:
    """The ``Provider`` that creates pods in one namespace, enters them by exec, and deletes them.

    One watch shows all sandboxes of the namespace, also those of other gateways, and feeds ``registry``, which the
    whole lifecycle uses. ``limits`` on sandboxes hold across all gateways of the namespace (``lifecycle.admission``).
    """

    def __init__(
        self,
        place: SandboxPlace,
        profiles: Mapping[str, Profile] | None = None,
        limits: Limits | None = None,
        observe: Observe = unobserved,
        events: Events | None = None,
    ) -> None:
        self.api = ApiServer(place, observe=observe)
        self.owner = Owner(place.gateway or socket.gethostname(), secrets.token_hex(6))
        # `reconfigure` changes these in place, so that everything that was given one sees the change.
        self.profiles: dict[str, Profile] = {}
        self._templates: dict[str, str] = {}
        self._kinds: dict[str, Sequence[Kind]] = {}
        self._targets: list[Target] = []
        self._know(profiles or {})
        self._pods = Pods(self.api, self.owner, self.profiles)
        self.registry = Registry(self.owner.life, limits or _NO_LIMITS, self._pods, _machine_clock, events)
        self.api.on_date = self.registry.time.observe
        self._removals = PodDeleter(self.api)
        self._limits = ExecLimits()
        self._sandboxes: dict[str, KubernetesSandbox] = {}
        self._sessions: dict[str, str] = {}
        self._warm: dict[str, KubernetesSandbox] = {}
        self._ways: set[asyncio.Task[bool]] = set()
        self._parking = Parking(self.registry, self._kinds, self._enter, random.random)
        self._pools = PoolController(
            self.registry, self._targets, self._parking, lambda: secrets.token_hex(4), random.random
        )
        self._name: socket.socket | None = None
        self._anchor = place.anchor
        self.heartbeat = Heartbeat(Leases(self.api, self.owner), self.registry, LeaseRenewer(self.api, self.owner))
        self.registry.leader = lambda: self.heartbeat.leads
        self._reaper = Reaper(self.registry, lambda: rules_of(self.profiles), self._busy)
        self.shelf = LeaseUserRecords(self.api)
        self.homes = KubernetesHomes(self.api, self.profiles, lambda: self.registry.now, lambda: self.registry.limits)
        self.named = KubernetesNamed(
            self.api, self.registry, self.owner, self.homes, self._known, self._making_way, self._limits
        )
        self._reflector: Reflector[Pod] = pods(self.api, labels.SELECTOR, self._observe, self.registry.prune)

    def __repr__(self) -> str:
        return f"<KubernetesProvider {self.owner.gateway}: {len(self._sandboxes)} sandboxes, {self._reflector!r}>"

    async def open(self) -> None:
        try:
            await self.api.open()
            self._take_name()
            await check_rights(self.api, self.homes.wanted)
            self.api.owner_reference = await find_anchor(self.api, self._anchor)
            await self._reflector.start()
            await self.heartbeat.start()
            self._reaper.start()
            self.named.start()
            if self.profiles:
                self._pools.start()
        except BaseException as error:
            await self._reaper.close()
            await self.heartbeat.close()
            await self._reflector.close()
            await self.api.close()
            self._free_name()
            if isinstance(error, GateError) and not isinstance(error, Unavailable):
                raise Unavailable(str(error)) from error
            raise

    def _take_name(self) -> None:
        """Make our name unique on this machine, for operators. Ownership depends on the instance id, not the name."""
        wanted = self.owner.gateway
        self.owner.gateway, self._name = free_name(self.api.namespace, wanted)
        if self.owner.gateway != wanted:
            log.warning("gateway.renamed", wanted=wanted, gateway=self.owner.gateway, reason="a gateway here has it")

    def _free_name(self) -> None:
        if self._name is not None:
            self._name.close()

    def counts(self) -> Mapping[tuple[str, ...], float]:
        # Include zeros: a series that disappears leaves gaps in graphs.
        counted: dict[tuple[str, ...], float] = dict.fromkeys(product(self.profiles, PHASES), 0)
        counted.update(self.registry.cache.counts(self.registry.now))
        return counted

    def reconfigure(self, profiles: Mapping[str, Profile], limits: Limits) -> None:
        self._know(profiles)
        self.registry.limit(limits)

    def _know(self, profiles: Mapping[str, Profile]) -> None:
        self.profiles.clear()
        self.profiles.update(profiles)
        self._templates.clear()
        self._templates.update((name, podspec.template_hash(podspec.template(one))) for name, one in profiles.items())
        self._kinds.clear()
        self._kinds.update((name, one.parked) for name, one in profiles.items())
        self._targets[:] = [
            Target(name, self._templates[name], one.warm, one.refill_per_minute)
            for name, one in profiles.items()
            if one.warm
        ]

    @failures.raised_as(StartFailed)
    async def create(self, order: Order, notice: Notice) -> Sandbox:
        self.registry.admit(order.user, order.session)
        try:
            return await self._claimed(order, notice) or await self._cold(order, notice)
        except BaseException:
            self._give_up(order.session)
            raise

    async def _claimed(self, order: Order, notice: Notice) -> KubernetesSandbox | None:
        """Claim a warm sandbox; ``None`` if there is none."""
        template = self._templates.get(order.profile.name)
        if template is None or order.name is not None:
            return None
        registry = self.registry
        claiming = ClaimAttempt(registry.cache, self.claim(order), template, order.profile.settle, registry.lives)
        try:
            async with asyncio.timeout(self.api.timeout + 1):
                record = await registry.claim(claiming, lambda delete: self._remove(delete.record))
        except TimeoutError as error:
            raise failures.silent(self.api.timeout) from error
        return await self.adopt(record, order, notice) if record is not None else None

    def _give_up(self, session: str) -> None:
        """The session has ended without its sandbox: delete the pods that it has claimed."""
        registry = self.registry
        registry.end(session)
        for record in registry.cache.of_session(session, registry.now):
            if record.name not in self._sandboxes:
                self._remove(record)

    def _remove(self, record: Record) -> None:
        self.registry.cache.expectations.delete(record.uid, self.registry.now.mono)
        self._removals.remove(record.name, record.uid)

    async def _cold(self, order: Order, notice: Notice) -> KubernetesSandbox:
        """Create a pod for this order, evicting warm ones if our limit or a quota requires it."""
        stamps = claim_annotations(self.claim(order), self.registry.now)
        manifest = podspec.claimed_pod(order, self.owner, secrets.token_hex(5), stamps)
        return self._enlist(await self._making_way(lambda: self._create(manifest)), order, notice)

    async def _making_way(self, make: Callable[[], Awaitable[Pod]]) -> Pod:
        """Create a pod that a login waits for; evict warm pods if there is no room. Raises as ``make`` does."""
        registry = self.registry
        await self._make_way(registry.cache.total(registry.now) - registry.limits.sandboxes)
        try:
            return await make()
        except LimitReached:
            if not await self._make_way(1):
                raise
        # The evicted pod has to end, and the quota controller has to count again.
        until = registry.now.mono + WAY_SECONDS
        while registry.now.mono < until:
            await asyncio.sleep(WAY_PAUSE)
            with contextlib.suppress(LimitReached):
                return await make()
        return await make()

    async def _make_way(self, count: int, placed: bool = False) -> bool:
        """Evict up to ``count`` warm sandboxes; returns whether any was. ``placed``: only those that have a node."""
        registry = self.registry
        deletes = evict_for_login(registry.cache, count, registry.now, self._templates.values(), placed)
        return any(await asyncio.gather(*(registry.delete(delete) for delete in deletes)))

    def claim(self, order: Order) -> Claim:
        """The claim for this order, as it is written on the pod."""
        lifetime = podspec.lifetime(order.profile)
        return Claim(order.user, order.session, self.owner.gateway, self.owner.life, lifetime)

    async def adopt(self, record: Record, order: Order, notice: Notice) -> KubernetesSandbox:
        """Turn the pod of ``record``, which was claimed for ``order``, into a sandbox that this gateway deletes.

        The registry must know the session (``admit``) from before the claim's request: a pod claimed by this instance
        without a session is deleted as an orphan. Raises as ``ApiServer.get_pod`` does.
        """
        parked = self._parking.take(record.uid)
        if isinstance(parked, KubernetesSandbox):
            sandbox = parked
        else:
            pod = self._reflector.known.get(record.name)
            if pod is None or pod.metadata.uid != record.uid:
                pod = await self.api.get_pod(record.name)
            sandbox = self._sandbox(pod, order, notice)
        sandbox.adopt(order, notice)
        return self._register(sandbox, order)

    def _enter(self, record: Record) -> KubernetesSandbox | None:
        """A warm pod as a sandbox to park launchers in; it is not claimed by that.

        ``None`` if the watch does not show the pod yet or any more, or if its profile has been removed.
        """
        known, profile = self._reflector.known.get(record.name), self.profiles.get(record.profile)
        if known is None or known.metadata.uid != record.uid or profile is None:
            return None
        sandbox = KubernetesSandbox(self.api, known, profile, self._discard, self._limits, NOBODY)
        self._warm[record.name] = sandbox
        return sandbox

    def _enlist(self, pod: Pod, order: Order, notice: Notice) -> KubernetesSandbox:
        self.registry.update(record_of(pod))
        return self._register(self._sandbox(pod, order, notice), order)

    def _sandbox(self, pod: Pod, order: Order, notice: Notice) -> KubernetesSandbox:
        return KubernetesSandbox(self.api, pod, order.profile, self._discard, self._limits, order.user, notice)

    def _register(self, sandbox: KubernetesSandbox, order: Order) -> KubernetesSandbox:
        name = sandbox.id
        self._warm.pop(name, None)
        self._sandboxes[name] = sandbox
        self._sessions[name] = order.session
        self.registry.cache.hold(order.session, sandbox.uid)
        known = self._reflector.known.get(name)
        if known is not None:
            sandbox.observe(known, gone=False)
        return sandbox

    async def check(self) -> None:
        # Unlike `/readyz`, this also checks our credentials, and the API server's storage.
        await self.api.request("GET", self.api.path("pods"), query={"limit": "1"}, doing="list sandboxes")

    async def close(self) -> None:
        await self._reaper.close()
        await self.named.close(CLOSE_SECONDS / 2)
        for sandbox in tuple(self._sandboxes.values()):
            sandbox.abandon()
            self._discard(sandbox)
        await self._pools.close(CLOSE_SECONDS, self.heartbeat.leave)
        await asyncio.gather(*self._ways, return_exceptions=True)
        for name in self._pods.unsure:
            self._removals.remove(name)
        left = await self._removals.close(CLOSE_SECONDS)
        if left:
            log.warning("sandboxes.left", pods=left, reason="the API server did not accept their deletion in time")
        await self.heartbeat.close()
        await self._reflector.close()
        await self.api.close()
        self._free_name()

    def _known(self, name: str) -> Pod | None:
        return self._reflector.known.get(name)

    async def _busy(self, record: Record) -> bool:
        """Whether any program runs in the pod of this record."""
        pod = self._reflector.known.get(record.name)
        if pod is None or pod.metadata.uid != record.uid or record.stage is not Stage.READY:
            return False
        return await anything_runs(self.api, pod, self.profiles.get(record.profile, Profile()), self._limits)

    async def _create(self, manifest: dict[str, Any]) -> Pod:
        try:
            return await self.api.create_pod(manifest)
        except (Unavailable, asyncio.CancelledError):
            # It is unknown whether the pod was created.
            self._removals.remove(manifest["metadata"]["name"])
            raise

    def _discard(self, sandbox: KubernetesSandbox) -> asyncio.Future[None]:
        if self._sandboxes.pop(sandbox.id, None) is None:
            return nothing_to_remove()
        self.registry.end(self._sessions.pop(sandbox.id), sandbox.uid)
        return self._removals.remove(sandbox.id, sandbox.uid)

    def _observe(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        self._pods.unsure.discard(pod.metadata.name)  # it exists, so its labels show what to do with it
        if new is None:
            self.registry.remove(pod.metadata.uid)
        else:
            self.registry.update(record_of(new))
        operator = ended_by(old, new)
        if operator is not None and self.heartbeat.leads:
            self._emit_end(record_of(pod), operator)
        name = pod.metadata.name
        self.named.observe(pod, gone=new is None)
        warm = self._warm.get(name) if new is not None else self._warm.pop(name, None)
        sandbox = self._sandboxes.get(name) or warm
        if sandbox is not None:
            sandbox.observe(pod, gone=new is None)
            if sandbox.crowded_out():
                way = asyncio.create_task(self._make_way(1, placed=True))
                self._ways.add(way)
                way.add_done_callback(self._ways.discard)
        elif new is not None and self._orphaned(new):
            self._removals.remove(new.metadata.name, new.metadata.uid)

    def _emit_end(self, record: Record, operator: str) -> None:
        by = f"operator {operator}"
        self.registry.events.emit(
            Code.SANDBOX_END, sandbox=record.name, user=record.user, profile=record.profile, name=record.sandbox,
            by=by, reason="ended by an operator",
        )  # fmt: skip

    def _orphaned(self, pod: Pod) -> bool:
        """Whether it is an ephemeral pod claimed by this instance for a session that does not exist."""
        meta = pod.metadata
        session = meta.labels.get(labels.SESSION)
        if meta.deletion_timestamp is not None or self.registry.cache.knows_session(session):
            return False
        if meta.annotations.get(labels.LIFE) != self.owner.life:
            return False
        return meta.labels.get(labels.STATE) == labels.CLAIMED and labels.NAME not in meta.labels


def _machine_clock() -> Now:
    return Now(time.time(), time.monotonic())
