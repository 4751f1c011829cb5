"""Sandboxes as pods of a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import Any

import structlog

from sshgate.config import SandboxPlace
from sshgate.errors import GateError, Unavailable
from sshgate.sandbox import labels
from sshgate.sandbox.kubernetes import podspec
from sshgate.sandbox.kubernetes.client import ApiServer
from sshgate.sandbox.kubernetes.objects import Pod
from sshgate.sandbox.kubernetes.podspec import Owner
from sshgate.sandbox.kubernetes.reflector import Reflector, pods
from sshgate.sandbox.kubernetes.removal import Removals
from sshgate.sandbox.kubernetes.rights import check_rights
from sshgate.sandbox.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.named import NoNamedSandboxes
from sshgate.sandbox.provider import Notice, Order, Sandbox

# Seconds that `close` spends on deleting what is still there.
CLOSE_SECONDS = 8.0

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class KubernetesProvider:
    """Makes pods in one namespace, enters them by exec, and removes them."""

    def __init__(self, place: SandboxPlace) -> None:
        self.api = ApiServer(place)
        self.owner = Owner(place.gateway or socket.gethostname(), secrets.token_hex(6))
        self._removals = Removals(self.api)
        self._sandboxes: dict[str, KubernetesSandbox] = {}
        self._creating: set[str] = set()
        self._opened = False
        self.named = NoNamedSandboxes()
        self.homes = None
        selector = f"{labels.SELECTOR},{labels.GATEWAY}={labels.label_value(self.owner.gateway)}"
        self._reflector: Reflector[Pod] = pods(self.api, selector, self._observe)

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
        manifest = podspec.claimed_pod(order, self.owner, secrets.token_hex(5))
        name = manifest["metadata"]["name"]
        self._creating.add(name)
        try:
            pod = await self._create(manifest)
            sandbox = KubernetesSandbox(self.api, pod, order.profile, self._discard, notice)
            self._sandboxes[name] = sandbox
        finally:
            self._creating.discard(name)
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
        return self._removals.remove(sandbox.id, sandbox.uid)

    def _observe(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
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
        if meta.deletion_timestamp is not None or meta.name in self._creating:
            return False
        if self._opened and meta.annotations.get(labels.LIFE) != self.owner.life:
            return False
        return meta.labels.get(labels.STATE) == labels.CLAIMED and labels.NAME not in meta.labels
