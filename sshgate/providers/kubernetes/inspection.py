"""What is known of existing sandboxes: their list with usage and homes, whether anything runs in one, who ended one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from sshgate.config.model import Profile
from sshgate.config.values import quantity_value
from sshgate.errors import GateError
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.reap_plan import Rules
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Listing, Meta, Object, Pod
from sshgate.providers.kubernetes.deletion import nothing_to_remove
from sshgate.providers.kubernetes.homes import KubernetesHomes
from sshgate.providers.kubernetes.sandbox import KubernetesSandbox
from sshgate.sandbox.interfaces import Listed
from sshgate.sandbox.side_execs import NOBODY, ExecLimits

# Seconds to wait for the figures of the metrics API (metrics.k8s.io), which many clusters lack.
USAGE_SECONDS = 2.0


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
        async with asyncio.timeout(USAGE_SECONDS):
            found = await api.list_all(_metrics, path, {"labelSelector": selector}, "ask what is used")
            return {one.metadata.name: _sum(one) for one in found.items or ()}
    except (GateError, TimeoutError, ValueError):
        return {}


async def list_sandboxes(
    api: ApiServer, records: Iterable[Record], homes: KubernetesHomes, user: str | None, now: Now
) -> list[Listed]:
    """Describe these sandboxes, in this order. Raises ``Unavailable``; usage is left out where it is not measured.

    ``user``: whose sandboxes these are; ``None``: everybody's. ``now`` is the API server's time.
    """
    usage, at_home = await asyncio.gather(read_usage(api, user), homes.names(user))
    return [_describe(one, usage.get(one.name), one.name in at_home, now) for one in records]


def rules_of(profiles: Mapping[str, Profile]) -> Rules:
    """How long named sandboxes are kept without clients, by profile."""
    return Rules({labels.label_value(name): profile.limits.detached for name, profile in profiles.items()})


async def anything_runs(api: ApiServer, pod: Pod, profile: Profile, limits: ExecLimits) -> bool:
    """Whether any program runs in this pod; true if that cannot be determined."""
    # The sandbox object is temporary and must not delete the pod.
    return await KubernetesSandbox(api, pod, profile, lambda _: nothing_to_remove(), limits, NOBODY).aside.anything()


def ended_by(old: Pod | None, new: Pod | None) -> str | None:
    """The operator who ended this named sandbox, for the first change that shows its deletion; else ``None``.

    ``old`` and ``new`` are the pod before and after the change; ``new`` is ``None`` if it was deleted.
    """
    if old is None or old.metadata.deletion_timestamp is not None or labels.NAME not in old.metadata.labels:
        return None
    if new is not None and new.metadata.deletion_timestamp is None:
        return None
    return (new or old).metadata.annotations.get(labels.ENDED_BY)


def _describe(record: Record, usage: tuple[float, int] | None, home: bool, now: Now) -> Listed:
    return Listed(
        id=record.name,
        user=record.user or record.user_hash or "",
        name=record.sandbox,
        profile=record.profile,
        state=_state(record),
        age=max(0.0, now.wall - (record.claimed_at or record.created)),
        left=None if record.expires_at is None else max(0.0, record.expires_at - now.wall),
        home=home,
        cpu=usage[0] if usage is not None else None,
        memory=usage[1] if usage is not None else None,
    )


def _state(record: Record) -> Literal["starting", "attached", "detached", "ending"]:
    if record.deleting or record.state is State.DRAINING or record.stage is Stage.FINISHED:
        return "ending"
    if record.stage is not Stage.READY:
        return "starting"
    return "attached" if record.attached or record.sandbox is None else "detached"


def _sum(pod: _PodMetrics) -> tuple[float, int]:
    used = [container.usage for container in pod.containers]
    cpu = sum(quantity_value(one.get("cpu", "0")) for one in used)
    return cpu, int(sum(quantity_value(one.get("memory", "0")) for one in used))
