"""Leases (coordination.k8s.io/v1), by which gateways know of each other: one per instance, and one for the leader.

An instance that ends releases its Lease, and the leader's if it holds that, by clearing the holder as client-go does.
The leader later deletes released Leases of instances.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.membership import LEASE_DURATION, Membership
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import Conflict, NotFound
from sshgate.providers.kubernetes.api.objects import Listing, Meta, Object
from sshgate.providers.kubernetes.installation import find_anchor
from sshgate.providers.kubernetes.liveness import LivenessEndpoint
from sshgate.providers.kubernetes.podspec import Owner

LEADER = "sshgate-leader"
PART = "app.kubernetes.io/component"
MEMBERSHIP, LEADERSHIP = "presence", "leadership"
NAME_PREFIX = "sshgate-life-"
BY_LEASE = "lease"
MERGE_PATCH = "application/merge-patch+json"


class LeaseSpec(Object):
    """The spec of a Lease; a released one has no holder."""

    holder_identity: str | None = None
    renew_time: str | None = None


class Lease(Object):
    """A coordination.k8s.io/v1 Lease."""

    metadata: Meta
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


_leases = msgspec.json.Decoder(Listing[Lease])
_endpoint_decoder = msgspec.json.Decoder(LivenessEndpoint)


class Leases:
    """The Leases of the gateways in one namespace. Methods raise as ``ApiServer.request`` does."""

    def __init__(self, api: ApiServer, owner: Owner) -> None:
        self._api = api
        self._owner = owner
        self._root = leases_path(api)

    async def all(self) -> list[Lease]:
        """List the Leases of all instances, and the leader's."""
        query = {"labelSelector": labels.SELECTOR}
        return (await self._api.list_all(_leases, self._root, query, "look for other gateways")).items or []

    async def renew(self, endpoint: LivenessEndpoint) -> None:
        """Renew this instance's Lease; create it again if it was deleted."""
        # Also sets the holder: another gateway may have released it, believing that this instance had ended.
        instance = self._owner.instance
        try:
            await self._patch(
                f"{NAME_PREFIX}{instance}", {"spec": {"holderIdentity": instance, "renewTime": _now()}}, "renew a lease"
            )
        except NotFound:
            # Its owner may have been deleted and made anew: what names the old one by its uid is deleted at once.
            await find_anchor(self._api)
            await self.announce(endpoint)

    async def announce(self, endpoint: LivenessEndpoint) -> None:
        """Create this instance's Lease; ``endpoint`` is where it answers liveness probes."""
        body = self._lease(f"{NAME_PREFIX}{self._owner.instance}", MEMBERSHIP)
        where = msgspec.json.encode(endpoint).decode()
        body["metadata"]["annotations"] = {labels.ENDPOINT: where, labels.NAMES: BY_LEASE}
        with contextlib.suppress(Conflict):  # created by a request whose response was lost: the name is unique
            await self._post(body)

    async def release(self, instance: str) -> None:
        """Release the Lease of an instance: what it owns has no owner from now on. No error if there is no Lease."""
        with contextlib.suppress(NotFound):
            await self._patch(f"{NAME_PREFIX}{instance}", {"spec": {"holderIdentity": ""}}, "release a lease")

    async def resign(self, known: Lease) -> None:
        """Release the leader's Lease ``known``. Raises ``Conflict`` if it has changed."""
        version = {"resourceVersion": known.metadata.resource_version}
        await self._patch(LEADER, {"metadata": version, "spec": {"holderIdentity": ""}}, "stop leading")

    async def forget(self, instance: str) -> None:
        """Delete the Lease of an instance that has ended."""
        with contextlib.suppress(NotFound):
            await self._api.request("DELETE", f"{self._root}/{NAME_PREFIX}{instance}", doing="delete a lease")

    async def lead(self, known: Lease | None) -> None:
        """Become the leader in place of ``known``. Raises ``Conflict`` if another gateway was faster."""
        if known is None:
            await self._post(self._lease(LEADER, LEADERSHIP))
            return
        body = self._lease(LEADER, LEADERSHIP)
        body["metadata"]["resourceVersion"] = known.metadata.resource_version
        await self._api.request("PUT", f"{self._root}/{LEADER}", body, doing="become the leader")

    async def _patch(self, name: str, patch: dict[str, Any], doing: str) -> None:
        await self._api.request("PATCH", f"{self._root}/{name}", patch, content=MERGE_PATCH, doing=doing)

    async def _post(self, body: dict[str, Any]) -> None:
        await self._api.request("POST", self._root, body, doing="make a lease")

    def _lease(self, name: str, part: str) -> dict[str, Any]:
        marks = {labels.MANAGED_BY: labels.MANAGED, PART: part, labels.GATEWAY: labels.label_value(self._owner.gateway)}
        spec = {
            "holderIdentity": self._owner.instance, "acquireTime": _now(), "renewTime": _now(),
            "leaseDurationSeconds": int(LEASE_DURATION),
        }  # fmt: skip
        return lease_of({"name": name, "labels": marks, **self._api.owner_metadata()}, spec)


def leases_path(api: ApiServer) -> str:
    """The URL path of the Leases in the namespace."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"


def lease_of(metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a Lease."""
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def part_of(lease: Lease) -> str:
    """What a Lease is for: ``MEMBERSHIP`` or ``LEADERSHIP``."""
    return lease.metadata.labels.get(PART, "")


def instance_of(lease: Lease) -> str | None:
    """The instance that this Lease belongs to; ``None`` for the leader's Lease."""
    return lease.metadata.name.removeprefix(NAME_PREFIX) if part_of(lease) == MEMBERSHIP else None


def endpoints(leases: Iterable[Lease]) -> Iterator[tuple[str, LivenessEndpoint | None]]:
    """For each instance, where it answers liveness probes."""
    for lease in leases:
        instance = instance_of(lease)
        if instance is not None:
            yield instance, _endpoint_of(lease)


def observe_leases(membership: Membership, leases: Iterable[Lease]) -> list[str]:
    """Update the membership from these Leases; returns the instances that they belong to."""
    instances = [(instance, lease) for lease in leases if (instance := instance_of(lease)) is not None]
    membership.by_pod_name = {
        instance for instance, lease in instances if lease.metadata.annotations.get(labels.NAMES) != BY_LEASE
    }
    for instance, lease in instances:
        if lease.spec.holder_identity:
            membership.observe(instance, f"{lease.spec.renew_time} {lease.metadata.uid}")
        else:
            membership.left(instance)
    return [instance for instance, _ in instances]


def _endpoint_of(lease: Lease) -> LivenessEndpoint | None:
    """Where the instance of this Lease answers; ``None`` if nowhere, or if an older gateway wrote it."""
    try:
        return _endpoint_decoder.decode(lease.metadata.annotations.get(labels.ENDPOINT, ""))
    except (msgspec.DecodeError, UnicodeError):
        return None


def _now() -> str:
    # Never compared with another clock: it only has to change.
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
