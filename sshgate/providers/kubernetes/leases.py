"""Leases (coordination.k8s.io/v1): what gateways tell each other by. One of each life's own, one of the leader.

A life that ends releases its Lease, and the leader's if that is its own, as client-go does, by taking the holder out;
the next leader deletes the former later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from sshgate.errors import Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.membership import LEASE_DURATION, Membership
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import Conflict, NotFound
from sshgate.providers.kubernetes.api.objects import Listing, Meta, Object
from sshgate.providers.kubernetes.liveness import Door
from sshgate.providers.kubernetes.podspec import Owner

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
_doors = msgspec.json.Decoder(Door)
_door = msgspec.json.Encoder()


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

    async def renew(self, door: Door) -> None:
        """This gateway lives. Its Lease is made anew where it is not there (any more)."""
        # With its holder: another gateway may have thought that this life is over.
        life = self._owner.life
        try:
            await self._patch(f"{LIFE}{life}", {"spec": {"holderIdentity": life, "renewTime": _now()}}, "renew a lease")
        except NotFound:
            await self.begin(door)

    async def begin(self, door: Door) -> None:
        """Make this gateway's own Lease; ``door`` is where it answers."""
        body = self._lease(f"{LIFE}{self._owner.life}", PRESENCE)
        body["metadata"]["annotations"] = {labels.DOOR: _door.encode(door).decode()}
        with contextlib.suppress(Conflict):  # made by a request whose answer was lost: nobody else has this name
            await self._post(body)

    async def release(self, life: str) -> None:
        """What belongs to this life is nobody's from now on. One without a Lease needs none."""
        with contextlib.suppress(NotFound):
            await self._patch(f"{LIFE}{life}", {"spec": {"holderIdentity": ""}}, "release a lease")

    async def resign(self, known: Lease) -> None:
        """Lead no longer. Raises ``Conflict`` when somebody else does already."""
        version = {"resourceVersion": known.metadata.resource_version}
        await self._patch(LEADER, {"metadata": version, "spec": {"holderIdentity": ""}}, "stop leading")

    async def forget(self, life: str) -> None:
        """Delete the Lease of a life that has ended."""
        with contextlib.suppress(NotFound):
            await self._api.request("DELETE", f"{self._root}/{LIFE}{life}", doing="delete a lease")

    async def lead(self, known: Lease | None) -> None:
        """Become the leader in place of ``known``. Raises ``Conflict`` when somebody was quicker."""
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
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "labels": marks, **self._api.owned()},
            "spec": {
                "holderIdentity": self._owner.life,
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseDurationSeconds": int(LEASE_DURATION),
            },
        }


def part_of(lease: Lease) -> str:
    """``PRESENCE`` or ``LEADERSHIP``."""
    return lease.metadata.labels.get(PART, "")


def life_of(lease: Lease) -> str | None:
    """The life whose own this Lease is; ``None``: the leader's."""
    return lease.metadata.name.removeprefix(LIFE) if part_of(lease) == PRESENCE else None


def doors(leases: Iterable[Lease]) -> Iterator[tuple[str, Door | None]]:
    """By life where it answers."""
    for lease in leases:
        life = life_of(lease)
        if life is not None:
            yield life, _door_of(lease)


def observe_leases(presence: Membership, leases: Iterable[Lease]) -> list[str]:
    """What these Leases say of who lives; the lives they are of."""
    lives = [(life, lease) for lease in leases if (life := life_of(lease)) is not None]
    for life, lease in lives:
        if lease.spec.holder_identity:
            presence.observe(life, f"{lease.spec.renew_time} {lease.metadata.uid}")
        else:
            presence.left(life)
    return [life for life, _ in lives]


def _door_of(lease: Lease) -> Door | None:
    """Where the life of this Lease answers; ``None``: nowhere, or an older gateway wrote it."""
    try:
        return _doors.decode(lease.metadata.annotations.get(labels.DOOR, ""))
    except (msgspec.DecodeError, UnicodeError):
        return None


def _now() -> str:
    # Nobody compares this with a clock of their own: it only has to change.
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
