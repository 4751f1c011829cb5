"""A namespace of its own on the test cluster, and providers in it."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sshgate.config.model import SandboxPlace
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.provider import KubernetesProvider

NODE_CLUSTER = Path("/var/lib/sshgate-cluster/admin.kubeconfig")
BUSYBOX = "sshgate-busybox:latest"
NO_SHELL = "sshgate-noshell:latest"


def kubeconfig() -> Path:
    """The cluster of this run; skips the test where there is none."""
    path = Path(os.environ["KUBECONFIG"]) if os.environ.get("KUBECONFIG") else NODE_CLUSTER
    if not path.exists():
        pytest.skip("no cluster: run tests/cluster/cluster up")
    return path


class Namespace:
    """A namespace, and an API connection that may do everything in it."""

    def __init__(self, api: ApiServer) -> None:
        self.api = api
        self.name = api.namespace

    def place(self, **changes: Any) -> SandboxPlace:
        fields: dict[str, Any] = {"kubeconfig": kubeconfig(), "namespace": self.name, "gateway": "test"}
        return SandboxPlace(**{**fields, **changes})

    @asynccontextmanager
    async def provider(self, **changes: Any) -> AsyncIterator[KubernetesProvider]:
        """A provider, opened and closed."""
        provider = KubernetesProvider(self.place(**changes))
        await provider.open()
        try:
            yield provider
        finally:
            await provider.close()

    async def pods(self) -> dict[str, bool]:
        """Names of the pods there are, and whether each is being deleted."""
        listing = await self.api.list_pods("")
        return {pod.metadata.name: pod.metadata.deletion_timestamp is not None for pod in listing.items or ()}

    async def living(self) -> list[str]:
        """Names of the pods that nobody has deleted."""
        return [name for name, going in (await self.pods()).items() if not going]

    async def post(self, path: str, body: dict[str, Any]) -> None:
        """Make any object."""
        await self.api.request("POST", path, body)


@asynccontextmanager
async def namespace(labels: dict[str, str] | None = None) -> AsyncIterator[Namespace]:
    """A fresh namespace, deleted at the end."""
    name = f"sshgate-k8s-{secrets.token_hex(4)}"
    api = ApiServer(SandboxPlace(kubeconfig=kubeconfig(), namespace=name))
    await api.open()
    try:
        metadata = {"name": name, "labels": labels or {}}
        await api.request("POST", "/api/v1/namespaces", {"metadata": metadata})
        try:
            yield Namespace(api)
        finally:
            await api.request("DELETE", f"/api/v1/namespaces/{name}")
    finally:
        await api.close()
