"""CPU and memory usage of pods from the metrics API (metrics.k8s.io), which many clusters lack."""

from __future__ import annotations

import asyncio

import msgspec

from sshgate.errors import GateError
from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Listing, Meta, Object

# Seconds to wait for the figures, which are optional.
PATIENCE = 2.0

_SUFFIXES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


class _Container(Object):
    usage: dict[str, str] = msgspec.field(default_factory=dict)


class _PodMetrics(Object):
    metadata: Meta
    containers: list[_Container] = msgspec.field(default_factory=list)


_metrics = msgspec.json.Decoder(Listing[_PodMetrics])


async def read_usage(api: ApiServer, user: str | None) -> dict[str, tuple[float, int]]:
    """CPU cores and bytes of memory by pod name; empty without a metrics API or a timely answer. Never raises.

    ``user`` selects whose sandboxes; ``None``: everybody's.
    """
    selector = labels.SELECTOR if user is None else f"{labels.SELECTOR},{labels.USER}={labels.user_hash(user)}"
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{api.namespace}/pods"
    try:
        async with asyncio.timeout(PATIENCE):
            body = await api.request("GET", path, query={"labelSelector": selector}, doing="ask what is used")
            return {one.metadata.name: _sum(one) for one in _metrics.decode(body).items or ()}
    except (GateError, TimeoutError, msgspec.DecodeError, ValueError):
        return {}


def quantity(text: str) -> float:
    """Parse a Kubernetes quantity such as ``250m`` or ``64Mi``. Raises ``ValueError``."""
    digits = text.rstrip("numkKMGTPi")
    suffix = text[len(digits) :]
    if suffix not in _SUFFIXES:
        raise ValueError(f"not a quantity: {text!r}")
    return float(digits) * _SUFFIXES[suffix]


def _sum(pod: _PodMetrics) -> tuple[float, int]:
    used = [container.usage for container in pod.containers]
    cpu = sum(quantity(one.get("cpu", "0")) for one in used)
    return cpu, int(sum(quantity(one.get("memory", "0")) for one in used))
