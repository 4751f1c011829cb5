"""Homes of named sandboxes: one PersistentVolumeClaim for each user and name, kept when the sandbox ends."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sshgate.config import Home, Profile
from sshgate.errors import BadRequest, StartFailed
from sshgate.lifecycle.clocks import Now
from sshgate.sandbox import labels
from sshgate.sandbox.kubernetes import failures
from sshgate.sandbox.kubernetes.client import ApiServer
from sshgate.sandbox.kubernetes.objects import Listing, Meta, Object
from sshgate.sandbox.kubernetes.podspec import home_claim
from sshgate.sandbox.named import ListedHome
from sshgate.sandbox.provider import Order

PART = "app.kubernetes.io/component"
HOME = "home"


class _Requests(Object):
    requests: dict[str, str] = msgspec.field(default_factory=dict)


class _ClaimSpec(Object):
    resources: _Requests = msgspec.field(default_factory=_Requests)


class VolumeClaim(Object):
    metadata: Meta
    spec: _ClaimSpec = msgspec.field(default_factory=_ClaimSpec)


class _Source(Object):
    claim_name: str = ""


class _Volume(Object):
    persistent_volume_claim: _Source | None = None


class _Spec(Object):
    volumes: list[_Volume] = msgspec.field(default_factory=list)


class _Status(Object):
    phase: str = ""


class _User(Object):
    """A pod, as far as it uses homes."""

    metadata: Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_claim = msgspec.json.Decoder(VolumeClaim)
_claims = msgspec.json.Decoder(Listing[VolumeClaim])
_pods = msgspec.json.Decoder(Listing[_User])


class KubernetesHomes:
    """The ``Homes`` of a namespace. ``now`` tells the API server's time."""

    def __init__(self, api: ApiServer, profiles: Mapping[str, Profile], now: Callable[[], Now]) -> None:
        self._api = api
        self._now = now
        self._profiles = profiles

    @property
    def wanted(self) -> bool:
        """Whether any profile has homes; without, nothing is ever asked."""
        return any(profile.home is not None for profile in self._profiles.values())

    def __repr__(self) -> str:
        return f"<KubernetesHomes {'of' if self.wanted else 'none in'} {self._api.namespace}>"

    async def prepare(self, order: Order) -> None:
        """See that the home of this order is there and free. Raises ``StartFailed`` with what is in the way."""
        home = order.profile.home
        if home is None or order.name is None:
            return
        name = home_claim(order.user, order.name)
        claim = await self._get(name) or await self._make(name, order, home)
        if claim.metadata.labels.get(labels.USER) != labels.user_hash(order.user):
            raise StartFailed(f"the volume claim {name} is in the way of your home {order.name!r}; ask your operator.")
        if claim.metadata.deletion_timestamp is not None:
            raise StartFailed(f"your home {order.name!r} is being deleted; try again in a moment.")
        users = (await self._users()).get(name)
        if users:
            raise StartFailed(f"your home {order.name!r} is in use by {users[0]}; try again when that has ended.")

    async def names(self, user: str | None) -> set[str]:
        """The names of the pods that have a home, as far as anybody knows: of all users, or of one."""
        if not self.wanted:
            return set()
        claims = await self._kept(user)
        return {claim.metadata.name.removeprefix("home-") for claim in claims}

    async def list(self, user: str | None) -> list[ListedHome]:
        if not self.wanted:
            return []
        claims, users = await self._kept(user), await self._users()
        wall = self._now().wall
        listed = []
        for claim in claims:
            meta = claim.metadata
            made = labels.parse_timestamp(meta.creation_timestamp) or wall
            size = claim.spec.resources.requests.get("storage", "-")
            whose = meta.annotations.get(labels.USER, meta.labels.get(labels.USER, ""))
            name = meta.labels.get(labels.NAME, meta.name)
            listed.append(ListedHome(whose, name, size, max(0.0, wall - made), meta.name in users))
        return sorted(listed, key=lambda one: (one.user, one.name))

    async def delete(self, user: str, name: str) -> bool:
        claim = await self._get(home_claim(user, name))
        if claim is None or claim.metadata.labels.get(labels.USER) != labels.user_hash(user):
            return False
        if claim.metadata.deletion_timestamp is not None:
            return True
        if (await self._users()).get(claim.metadata.name):
            raise BadRequest(f"your home {name!r} is in use; end the sandbox first: `ssh -s USER={name}@HOST end`.")
        # Should a sandbox be made at this moment, the cluster keeps the volume for as long as that uses it.
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": claim.metadata.uid}}
        path = self._api.path("persistentvolumeclaims", claim.metadata.name)
        await self._api.request("DELETE", path, options, doing="delete the home")
        return True

    async def _make(self, name: str, order: Order, home: Home) -> VolumeClaim:
        marks = {
            labels.MANAGED_BY: labels.MANAGED, PART: HOME,
            labels.USER: labels.user_hash(order.user), labels.NAME: labels.label_value(order.name or ""),
        }  # fmt: skip
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": home.size}},
        }
        if home.storage_class is not None:
            spec["storageClassName"] = home.storage_class
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            # No owner: uninstalling sshgate must not delete what people keep.
            "metadata": {"name": name, "labels": marks, "annotations": {labels.USER: labels.printable(order.user)}},
            "spec": spec,
        }
        path = self._api.path("persistentvolumeclaims")
        try:
            return _claim.decode(await self._api.request("POST", path, body, doing="make the home"))
        except failures.Conflict:
            found = await self._get(name)
            if found is None:
                raise
            return found

    async def _get(self, name: str) -> VolumeClaim | None:
        try:
            path = self._api.path("persistentvolumeclaims", name)
            return _claim.decode(await self._api.request("GET", path, doing="look at the home"))
        except failures.NotFound:
            return None

    async def _kept(self, user: str | None) -> Sequence[VolumeClaim]:
        selector = f"{labels.SELECTOR},{PART}={HOME}"
        if user is not None:
            selector += f",{labels.USER}={labels.user_hash(user)}"
        path = self._api.path("persistentvolumeclaims")
        body = await self._api.request("GET", path, query={"labelSelector": selector}, doing="list homes")
        return _claims.decode(body).items or []

    async def _users(self) -> Mapping[str, Sequence[str]]:
        """By volume claim the pods that use it, or still do: whoever made them."""
        body = await self._api.request("GET", self._api.path("pods"), doing="look who uses homes")
        found: defaultdict[str, deque[str]] = defaultdict(deque)
        for pod in _pods.decode(body).items or ():
            for volume in pod.spec.volumes:
                if volume.persistent_volume_claim is not None and pod.status.phase not in ("Succeeded", "Failed"):
                    found[volume.persistent_volume_claim.claim_name].append(pod.metadata.name)
        return found
