"""Sandboxes as pods of a Kubernetes cluster."""

from __future__ import annotations

import random
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from itertools import product

import structlog

from sshgate.config.model import Limits, Profile, SandboxPlace
from sshgate.errors import GateError, StartFailed, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.pool import PoolController
from sshgate.lifecycle.pool_plan import Target
from sshgate.lifecycle.reaper import Reaper
from sshgate.lifecycle.records import PHASES, Record, Stage
from sshgate.lifecycle.registry import Registry
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.allocator import PodAllocator
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer, Observe, unobserved
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.api.reflector import Reflector
from sshgate.providers.kubernetes.deletion import PodDeleter
from sshgate.providers.kubernetes.fence import Fence
from sshgate.providers.kubernetes.heartbeat import Heartbeat
from sshgate.providers.kubernetes.homes import KubernetesHomes
from sshgate.providers.kubernetes.inspection import anything_runs, ended_by, rules_of
from sshgate.providers.kubernetes.installation import check_rights, find_anchor
from sshgate.providers.kubernetes.lease_thread import LeaseRenewer
from sshgate.providers.kubernetes.leases import Leases
from sshgate.providers.kubernetes.liveness import PORT, free_name
from sshgate.providers.kubernetes.named import KubernetesNamed
from sshgate.providers.kubernetes.pods import Pods, record_of
from sshgate.providers.kubernetes.podspec import Owner
from sshgate.providers.kubernetes.user_records import SPENT, LeaseUserRecords
from sshgate.sandbox.interfaces import Kind, Notice, Order, Sandbox
from sshgate.sandbox.side_execs import ExecLimits
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events

# Seconds that `close` spends on deleting what is still there.
CLOSE_SECONDS = 8.0

_NO_LIMITS = Limits(sandboxes_per_user=1_000_000, sandboxes=1_000_000, homes_per_user=1_000_000, starts_per_minute=None)

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class KubernetesProvider:
    """The ``Provider`` that creates pods in one namespace, enters them by exec, and deletes them.

    One watch shows all sandboxes of the namespace, also those of other gateways, and feeds ``registry``, which the
    whole lifecycle uses. ``limits`` on sandboxes hold across all gateways of the namespace (``lifecycle.admission``);
    ``probe`` is the setting ``network.probe``.
    """

    def __init__(
        self,
        place: SandboxPlace,
        profiles: Mapping[str, Profile] | None = None,
        limits: Limits | None = None,
        observe: Observe = unobserved,
        events: Events | None = None,
        worker: int | None = None,
        probe: str = "auto",
    ) -> None:
        """``worker``: the number of this process, from 0, if the gateway has several."""
        self.api = ApiServer(place, observe=observe)
        name = place.gateway or socket.gethostname()
        self.owner = Owner(name if worker is None else f"{name}-{worker + 1}", secrets.token_hex(6))
        self._fence = Fence(self.api, probe, self.owner.instance)
        # `reconfigure` changes these in place, so that everything that was given one sees the change.
        self.profiles: dict[str, Profile] = {}
        self._templates: dict[str, str] = {}
        self._kinds: dict[str, Sequence[Kind]] = {}
        self._targets: list[Target] = []
        self._know(profiles or {})
        self._pods = Pods(self.api, self.owner, self.profiles)
        self.registry = Registry(self.owner.instance, limits or _NO_LIMITS, self._pods, _machine_clock, events)
        self.api.on_date = self.registry.time.observe
        self._deleter = PodDeleter(self.api)
        self._limits = ExecLimits()
        self._allocator = PodAllocator(
            self.api, self.registry, self.owner, self.profiles, self._templates, self._kinds, self._known,
            self._deleter, self._limits, self._fence,
        )  # fmt: skip
        self._pools = PoolController(
            self.registry, self._targets, self._allocator.parking, lambda: secrets.token_hex(4), random.random
        )
        self._name: socket.socket | None = None
        renewer = LeaseRenewer(self.api, self.owner, port=PORT + (worker or 0))
        self.heartbeat = Heartbeat(Leases(self.api, self.owner), self.registry, renewer)
        self.registry.leader = lambda: self.heartbeat.leads
        self._reaper = Reaper(self.registry, lambda: rules_of(self.profiles), self._busy)
        self.user_records = LeaseUserRecords(self.api)
        self.spending_records = LeaseUserRecords(self.api, SPENT)
        self.homes = KubernetesHomes(self.api, self.profiles, lambda: self.registry.now, lambda: self.registry.limits)
        self.named = KubernetesNamed(self.api, self.registry, self.owner, self.homes, self._allocator)
        self._reflector = Reflector(self.api, labels.SELECTOR, self._observe, self.registry.prune)

    async def open(self) -> None:
        try:
            await self.api.open()
            self._take_name()
            await check_rights(self.api, self.homes.wanted)
            await find_anchor(self.api)
            await self._fence.start()
            await self._reflector.start()
            await self.heartbeat.start()
            self._reaper.start()
            self.named.start()
            if self.profiles:
                self._pools.start()
        except BaseException as error:
            await self._fence.close()
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
        self._templates.update((name, podspec.template_hash(one)) for name, one in profiles.items())
        self._kinds.clear()
        self._kinds.update((name, parked_kinds(one)) for name, one in profiles.items())
        self._targets[:] = [
            Target(name, self._templates[name], one.warm, one.refill_per_minute)
            for name, one in profiles.items()
            if one.warm
        ]

    @failures.raised_as(StartFailed)
    async def create(self, order: Order, notice: Notice) -> Sandbox:
        return await self._allocator.create(order, notice)

    async def check(self) -> None:
        # Unlike `/readyz`, this also checks our credentials, and the API server's storage.
        await self.api.request("GET", self.api.path("pods"), query={"limit": "1"}, doing="list sandboxes")

    async def close(self) -> None:
        await self._fence.close()
        await self._reaper.close()
        await self.named.close(CLOSE_SECONDS / 2)
        self._allocator.discard_all()
        await self._pools.close(CLOSE_SECONDS, self.heartbeat.leave)
        await self._allocator.close()
        for name in self._pods.unsure:
            self._deleter.remove(name)
        left = await self._deleter.close(CLOSE_SECONDS)
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

    def _observe(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        self._pods.unsure.discard(pod.metadata.name)  # it exists, so its labels show what to do with it
        if new is None:
            self.registry.remove(pod.metadata.uid)
            self._fence.forget(pod.metadata.uid)
        else:
            self.registry.update(record_of(new))
        operator = ended_by(old, new)
        if operator is not None and self.heartbeat.leads:
            record = record_of(pod)
            self.registry.events.emit(
                Code.SANDBOX_END, sandbox=record.name, user=record.user, profile=record.profile, name=record.sandbox,
                by=f"operator {operator}", reason="ended by an operator",
            )  # fmt: skip
        self.named.observe(pod, gone=new is None)
        self._allocator.observe(pod, gone=new is None)


def parked_kinds(profile: Profile) -> tuple[Kind, ...]:
    """Return what to park in warm pods of a profile. Where no held program can begin in one, no resident waits."""
    held = profile.hold == "always" or (profile.hold == "named" and profile.home is None)
    return tuple(kind for kind in profile.parked if held or kind != "resident")


def _machine_clock() -> Now:
    return Now(time.time(), time.monotonic())
