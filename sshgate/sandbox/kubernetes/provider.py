"""Sandboxes as pods of a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any

import structlog

from sshgate.config import Limits, Profile, SandboxPlace
from sshgate.errors import GateError, Unavailable
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.patches import Claim, claim_annotations
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.registry import Registry
from sshgate.sandbox import labels
from sshgate.sandbox.kubernetes import podspec
from sshgate.sandbox.kubernetes.client import ApiServer
from sshgate.sandbox.kubernetes.objects import Pod
from sshgate.sandbox.kubernetes.pods import Pods, record_of
from sshgate.sandbox.kubernetes.podspec import Owner
from sshgate.sandbox.kubernetes.reflector import Reflector, pods
from sshgate.sandbox.kubernetes.removal import Removals
from sshgate.sandbox.kubernetes.rights import check_rights
from sshgate.sandbox.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.named import NoNamedSandboxes
from sshgate.sandbox.provider import Notice, Order, Sandbox

# Seconds that `close` spends on deleting what is still there.
CLOSE_SECONDS = 8.0

_NO_LIMITS = Limits(sandboxes_per_user=1_000_000, sandboxes=1_000_000, starts_per_minute=None)

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class KubernetesProvider:
    """Makes pods in one namespace, enters them by exec, and removes them.

    One watch shows all sandboxes of the namespace, whoever made them; it feeds ``registry``, which everything of
    the lifecycle shares. ``limits`` on sandboxes hold over all gateways of the namespace (``lifecycle.admit``);
    without them there are none.
    """

    def __init__(
        self, place: SandboxPlace, profiles: Mapping[str, Profile] | None = None, limits: Limits | None = None
    ) -> None:
        self.api = ApiServer(place)
        self.owner = Owner(place.gateway or socket.gethostname(), secrets.token_hex(6))
        self.profiles = profiles or {}
        self.registry = Registry(
            self.owner.life, limits or _NO_LIMITS, Pods(self.api, self.owner, self.profiles), _machine_clock
        )
        self.api.heard = self.registry.time.heard
        self._removals = Removals(self.api)
        self._sandboxes: dict[str, KubernetesSandbox] = {}
        self._sessions: dict[str, str] = {}
        self._taking: set[str] = set()
        self._opened = False
        self.named = NoNamedSandboxes()
        self.homes = None
        self._reflector: Reflector[Pod] = pods(self.api, labels.SELECTOR, self._observe, self._listed)

    def __repr__(self) -> str:
        return f"<KubernetesProvider {self.owner.gateway}: {len(self._sandboxes)} sandboxes, {self._reflector!r}>"

    async def open(self) -> None:
        try:
            await self.api.open()
            await check_rights(self.api)
            await self._reflector.start()
            self._opened = True
        except BaseException as error:
            await self.api.close()
            if isinstance(error, GateError) and not isinstance(error, Unavailable):
                raise Unavailable(str(error)) from error
            raise

    async def create(self, order: Order, notice: Notice) -> Sandbox:
        self.registry.admit(order.user, order.session)
        try:
            return await self._cold(order, notice)
        except BaseException:
            self.registry.end(order.session)
            raise

    async def _cold(self, order: Order, notice: Notice) -> KubernetesSandbox:
        stamps = claim_annotations(self.claim(order), self.registry.now)
        manifest = podspec.claimed_pod(order, self.owner, secrets.token_hex(5), stamps)
        name = manifest["metadata"]["name"]
        self._taking.add(name)
        try:
            pod = await self._create(manifest)
            return self._enlist(pod, order, notice)
        finally:
            self._taking.discard(name)

    def claim(self, order: Order) -> Claim:
        """Who claims a sandbox for this order, as it is written on the pod."""
        lifetime = podspec.lifetime(order.profile)
        return Claim(order.user, order.session, self.owner.gateway, self.owner.life, lifetime)

    async def adopt(self, record: Record, order: Order, notice: Notice) -> KubernetesSandbox:
        """The pod of ``record``, which was claimed for ``order``, as a sandbox that this gateway removes.

        Between the first word of the claim and this call its name must be kept from the tidying up of pods that
        bear our mark and have no session: ``taking``.
        """
        pod = self._reflector.known.get(record.name)
        if pod is None or pod.metadata.uid != record.uid:
            pod = await self.api.get_pod(record.name)
        return self._enlist(pod, order, notice)

    def taking(self, name: str, begun: bool) -> None:
        """A pod of this name is being claimed, or no longer: until then it is nobody's stray."""
        (self._taking.add if begun else self._taking.discard)(name)

    def _enlist(self, pod: Pod, order: Order, notice: Notice) -> KubernetesSandbox:
        sandbox = KubernetesSandbox(self.api, pod, order.profile, self._discard, notice)
        name = pod.metadata.name
        self._sandboxes[name] = sandbox
        self._sessions[name] = order.session
        self.registry.told(record_of(pod))
        self.registry.book.hold(order.session, pod.metadata.uid)
        known = self._reflector.known.get(name)
        if known is not None:
            sandbox.observe(known, gone=False)
        return sandbox

    async def close(self) -> None:
        for sandbox in tuple(self._sandboxes.values()):
            sandbox.abandon()
            self._discard(sandbox)
        left = await self._removals.close(CLOSE_SECONDS)
        if left:
            log.warning("sandboxes.left", pods=left, reason="the API server did not accept their deletion in time")
        await self._reflector.close()
        await self.api.close()

    async def _create(self, manifest: dict[str, Any]) -> Pod:
        try:
            return await self.api.create_pod(manifest)
        except (Unavailable, asyncio.CancelledError):
            # Nobody knows whether it was made.
            self._removals.remove(manifest["metadata"]["name"])
            raise

    def _discard(self, sandbox: KubernetesSandbox) -> asyncio.Future[None]:
        if self._sandboxes.pop(sandbox.id, None) is None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        self.registry.end(self._sessions.pop(sandbox.id), sandbox.uid)
        return self._removals.remove(sandbox.id, sandbox.uid)

    def _listed(self, found: list[Pod]) -> None:
        self.registry.listed([record_of(pod) for pod in found])

    def _observe(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if new is None:
            self.registry.gone(pod.metadata.uid)
        else:
            self.registry.told(record_of(new))
        sandbox = self._sandboxes.get(pod.metadata.name)
        if sandbox is not None:
            sandbox.observe(pod, gone=new is None)
        elif new is not None and self._orphaned(new):
            self._removals.remove(new.metadata.name, new.metadata.uid)

    def _orphaned(self, pod: Pod) -> bool:
        """Whether it is an ephemeral pod of this gateway that no session holds.

        Pods of other lives are taken for earlier ones only while this one begins: later ones are not ours.
        """
        meta = pod.metadata
        if meta.deletion_timestamp is not None or meta.name in self._taking:
            return False
        if meta.labels.get(labels.GATEWAY) != labels.label_value(self.owner.gateway):
            return False
        if self._opened and meta.annotations.get(labels.LIFE) != self.owner.life:
            return False
        return meta.labels.get(labels.STATE) == labels.CLAIMED and labels.NAME not in meta.labels


def _machine_clock() -> Now:
    return Now(time.time(), time.monotonic())
