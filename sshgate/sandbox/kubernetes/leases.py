"""Leases (coordination.k8s.io/v1): what gateways tell each other by. One of each life's own, one of the leader.

A life that ends releases its Lease as client-go does, by taking the holder out; the leader deletes it later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from sshgate.errors import Unavailable
from sshgate.lifecycle.presence import SILENCE, Presence
from sshgate.sandbox import labels
from sshgate.sandbox.kubernetes.client import ApiServer
from sshgate.sandbox.kubernetes.failures import NotFound
from sshgate.sandbox.kubernetes.objects import Listing, Meta, Object
from sshgate.sandbox.kubernetes.podspec import Owner

LEADER = "sshgate-leader"
PART = "app.kubernetes.io/component"
PRESENCE, LEADERSHIP = "presence", "leadership"
LIFE = "sshgate-life-"
MERGE_PATCH = "application/merge-patch+json"


class LeaseSpec(Object):
    holder_identity: str | None = None
    renew_time: str | None = None


class Lease(Object):
    metadata: Meta
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


_leases = msgspec.json.Decoder(Listing[Lease])


class Leases:
    """The Leases of one namespace that gateways have made. Failures raise as ``ApiServer.request`` says."""

    def __init__(self, api: ApiServer, owner: Owner) -> None:
        self._api = api
        self._owner = owner
        self._root = f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"

    def __repr__(self) -> str:
        return f"<Leases of {self._owner.gateway}>"

    async def all(self) -> list[Lease]:
        """Those of every gateway, and the leader's."""
        query = {"labelSelector": labels.SELECTOR}
        body = await self._api.request("GET", self._root, query=query, doing="look for other gateways")
        try:
            return _leases.decode(body).items or []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable("the API server sent something that is no answer.") from error

    async def earlier(self) -> list[str]:
        """Lives of a gateway of this name other than this one."""
        mine = labels.label_value(self._owner.gateway)
        lives = [life_of(lease) for lease in await self.all() if lease.metadata.labels.get(labels.GATEWAY) == mine]
        return [life for life in lives if life is not None and life != self._owner.life]

    async def renew(self) -> None:
        """This gateway lives. Raises ``NotFound`` when its Lease is not there (any more)."""
        # With its holder: another gateway of this name may have thought that this life is over.
        life = self._owner.life
        await self._patch(life, {"holderIdentity": life, "renewTime": _now()}, "renew its lease")

    async def begin(self) -> None:
        """Make this gateway's own Lease."""
        await self._post(f"{LIFE}{self._owner.life}", PRESENCE)

    async def release(self, life: str) -> None:
        """Say goodbye for it: what belongs to this life is nobody's from now on. One without a Lease needs none."""
        with contextlib.suppress(NotFound):
            await self._patch(life, {"holderIdentity": ""}, "release a lease")

    async def forget(self, life: str) -> None:
        """Delete the Lease of a life that has ended."""
        with contextlib.suppress(NotFound):
            await self._api.request("DELETE", f"{self._root}/{LIFE}{life}", doing="delete a lease")

    async def lead(self, known: Lease | None) -> None:
        """Become the leader in place of ``known``. Raises ``Conflict`` when somebody was quicker."""
        if known is None:
            await self._post(LEADER, LEADERSHIP)
            return
        body = self._lease(LEADER, LEADERSHIP)
        body["metadata"]["resourceVersion"] = known.metadata.resource_version
        await self._api.request("PUT", f"{self._root}/{LEADER}", body, doing="become the leader")

    async def _patch(self, life: str, spec: dict[str, str], doing: str) -> None:
        await self._api.request("PATCH", f"{self._root}/{LIFE}{life}", {"spec": spec}, content=MERGE_PATCH, doing=doing)

    async def _post(self, name: str, part: str) -> None:
        await self._api.request("POST", self._root, self._lease(name, part), doing="make a lease")

    def _lease(self, name: str, part: str) -> dict[str, Any]:
        marks = {labels.MANAGED_BY: labels.MANAGED, PART: part, labels.GATEWAY: labels.label_value(self._owner.gateway)}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "labels": marks, **self._api.owned()},
            "spec": {
                "holderIdentity": self._owner.life,
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseDurationSeconds": int(SILENCE),
            },
        }


def part_of(lease: Lease) -> str:
    """``PRESENCE`` or ``LEADERSHIP``."""
    return lease.metadata.labels.get(PART, "")


def life_of(lease: Lease) -> str | None:
    """The life whose own this Lease is; ``None``: the leader's."""
    return lease.metadata.name.removeprefix(LIFE) if part_of(lease) == PRESENCE else None


def tell(presence: Presence, leases: Iterable[Lease]) -> list[str]:
    """What these Leases say of who lives; the lives they are of."""
    lives = [(life, lease) for lease in leases if (life := life_of(lease)) is not None]
    for life, lease in lives:
        if lease.spec.holder_identity:
            presence.heard(life, f"{lease.spec.renew_time} {lease.metadata.uid}")
        else:
            presence.left(life)
    return [life for life, _ in lives]


def _now() -> str:
    # Nobody compares this with a clock of their own: it only has to change.
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
