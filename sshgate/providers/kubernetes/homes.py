"""Homes of named sandboxes: one PersistentVolumeClaim for each user and name, kept when the sandbox ends."""

from __future__ import annotations

import contextlib
import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sshgate.config.model import Home, Limits, Profile
from sshgate.errors import BadRequest, StartFailed, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.admission import admit_home
from sshgate.lifecycle.clocks import Now
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import JSON_PATCH, ApiServer, decode
from sshgate.providers.kubernetes.api.objects import Listing, Meta, Object
from sshgate.providers.kubernetes.podspec import home_claim
from sshgate.sandbox.interfaces import ListedHome, Order

PART = "app.kubernetes.io/component"
HOME = "home"
UNUSED = labels.DOMAIN + "unused"
"""Annotation of a volume claim, with a random value: the start that made it may delete it. The next one removes it."""
# Attempts to delete a claim that the cluster changes at the same moment.
TRIES = 5


class _Requests(Object):
    requests: dict[str, str] = msgspec.field(default_factory=dict)


class _ClaimSpec(Object):
    resources: _Requests = msgspec.field(default_factory=_Requests)


class VolumeClaim(Object):
    """A core/v1 PersistentVolumeClaim."""

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
    """A pod, reduced to the volumes it uses."""

    metadata: Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_claim = msgspec.json.Decoder(VolumeClaim)
_claims = msgspec.json.Decoder(Listing[VolumeClaim])
_pods = msgspec.json.Decoder(Listing[_User])


class KubernetesHomes:
    """The ``Homes`` of a namespace. ``now`` is the API server's time; ``limits`` is called for every new home."""

    def __init__(
        self, api: ApiServer, profiles: Mapping[str, Profile], now: Callable[[], Now], limits: Callable[[], Limits]
    ) -> None:
        self._api = api
        self._now = now
        self._limits = limits
        self._profiles = profiles
        # Homes being created here, as volume claim name -> user: a list may not show them yet.
        self._making: dict[str, str] = {}

    @property
    def wanted(self) -> bool:
        """Whether any profile has homes; if not, no request is ever sent."""
        return any(profile.home is not None for profile in self._profiles.values())

    def planned(self, order: Order) -> VolumeClaim | None:
        """What ``prepare`` makes where there is no home yet; ``None``: the order needs none."""
        if order.profile.home is None or order.name is None:
            return None
        name = home_claim(order.user, order.name)
        return VolumeClaim(metadata=Meta(name=name, annotations={UNUSED: secrets.token_hex(8)}))

    async def prepare(self, order: Order, planned: VolumeClaim | None) -> VolumeClaim | None:
        """Make sure that the home for this order exists and is unused.

        Returns the volume claim if this call created it, for ``undo``; ``None`` if it existed or none is needed.

        Raises ``StartFailed`` if it cannot be used now, ``LimitReached`` if there may be no more homes. After
        ``Unavailable`` or a cancellation ``planned`` may come to exist all the same.
        """
        home = order.profile.home
        if home is None or planned is None:
            return None
        name, mark = planned.metadata.name, planned.metadata.annotations[UNUSED]
        claim = await self._get(name)
        users = (await self._users()).get(name)
        if claim is None:
            claim = await self._admitted(name, order, home, mark)
        if claim.metadata.labels.get(labels.USER) != labels.user_hash(order.user):
            raise StartFailed(f"the volume claim {name} is in the way of your home {order.name!r}; ask your operator.")
        made = claim if claim.metadata.annotations.get(UNUSED) == mark else None
        if made is None and UNUSED in claim.metadata.annotations:
            claim = await self._keep(claim)
        if claim is None or _is_going(claim):
            raise StartFailed(f"your home {order.name!r} is being deleted; try again in a moment.")
        if users:
            await self.undo(made)
            raise StartFailed(f"your home {order.name!r} is in use by {users[0]}; try again when that has ended.")
        return made

    async def undo(self, made: VolumeClaim | None) -> None:
        """Delete what ``prepare`` has created, because the sandbox was not made; not if another start uses it."""
        if made is None:
            return
        for _ in range(TRIES):
            claim = await self._get(made.metadata.name)
            if claim is None or claim.metadata.annotations.get(UNUSED) != made.metadata.annotations[UNUSED]:
                return
            with contextlib.suppress(failures.NotFound, failures.Conflict):  # it was changed meanwhile: look again
                await self._delete(claim, unchanged=True)
                return

    async def _keep(self, claim: VolumeClaim) -> VolumeClaim | None:
        """Keep the start that made this claim from deleting it. Returns the claim, ``None`` if it was too late."""
        pointer = "/metadata/annotations/" + UNUSED.replace("/", "~1")
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": claim.metadata.uid},
            {"op": "add", "path": pointer, "value": ""},
            {"op": "remove", "path": pointer},
        ]
        path = self._api.path("persistentvolumeclaims", claim.metadata.name)
        try:
            body = await self._api.request("PATCH", path, patch, content=JSON_PATCH, doing="keep the home")
        except (failures.NotFound, failures.Invalid):
            return None
        return decode(_claim, body)

    async def _admitted(self, name: str, order: Order, home: Home, mark: str) -> VolumeClaim:
        """Create the volume claim within the limits, or return the one there is. Raises ``LimitReached``.

        The limit is exact within one gateway. Gateways that create homes at the same moment may exceed it; use a
        ResourceQuota where that matters.
        """
        # Count those that began earlier: of two that begin at once, only the second can exceed the limit.
        before = dict(self._making)
        self._making[name] = order.user
        try:
            owners = {claim.metadata.name: _owner(claim) for claim in await self._kept(None) if not _is_going(claim)}
            owners |= {other: (labels.printable(user), labels.user_hash(user)) for other, user in before.items()}
            admit_home(self._limits(), order.user, owners.values())
            return await self._make(name, order, home, mark)
        finally:
            del self._making[name]

    async def names(self, user: str | None) -> set[str]:
        """The pod names of the sandboxes that have a home; ``None``: of all users."""
        if not self.wanted:
            return set()
        claims = await self._kept(user)
        return {claim.metadata.name.removeprefix("home-") for claim in claims}

    @failures.raised_as(Unavailable)
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

    @failures.raised_as(Unavailable)
    async def delete(self, user: str, name: str) -> bool:
        claim = await self._get(home_claim(user, name))
        if claim is None or claim.metadata.labels.get(labels.USER) != labels.user_hash(user):
            return False
        if _is_going(claim):
            return True
        if (await self._users()).get(claim.metadata.name):
            raise BadRequest(f"your home {name!r} is in use; end the sandbox first: `ssh -s USER={name}@HOST end`.")
        await self._delete(claim)
        return True

    async def _delete(self, claim: VolumeClaim, unchanged: bool = False) -> None:
        # If a sandbox is created at this moment, the cluster keeps the volume while it is used (pvc-protection).
        version = claim.metadata.resource_version if unchanged else None
        path = self._api.path("persistentvolumeclaims", claim.metadata.name)
        await self._api.delete(path, claim.metadata.uid, version, "delete the home")

    async def _make(self, name: str, order: Order, home: Home, mark: str) -> VolumeClaim:
        marks = {
            labels.MANAGED_BY: labels.MANAGED, PART: HOME,
            labels.USER: labels.user_hash(order.user), labels.NAME: labels.label_value(order.name or ""),
        }  # fmt: skip
        spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": home.size}}}
        if home.storage_class is not None:
            spec["storageClassName"] = home.storage_class
        notes = {labels.USER: labels.printable(order.user), UNUSED: mark}
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            # No owner reference: uninstalling sshgate must not delete homes.
            "metadata": {"name": name, "labels": marks, "annotations": notes},
            "spec": spec,
        }
        claim, _ = await self._api.create(_claim, "persistentvolumeclaims", body, "make the home")
        return claim

    async def _get(self, name: str) -> VolumeClaim | None:
        try:
            path = self._api.path("persistentvolumeclaims", name)
            return decode(_claim, await self._api.request("GET", path, doing="look at the home"))
        except failures.NotFound:
            return None

    async def _kept(self, user: str | None) -> Sequence[VolumeClaim]:
        selector = f"{labels.SELECTOR},{PART}={HOME}"
        if user is not None:
            selector += f",{labels.USER}={labels.user_hash(user)}"
        path = self._api.path("persistentvolumeclaims")
        return (await self._api.list_all(_claims, path, {"labelSelector": selector}, "list homes")).items or []

    async def _users(self) -> Mapping[str, Sequence[str]]:
        """The names of unfinished pods that use a volume claim, by its name; also pods that sshgate did not create."""
        listing = await self._api.list_all(_pods, self._api.path("pods"), {}, "look who uses homes")
        found: defaultdict[str, deque[str]] = defaultdict(deque)
        for pod in listing.items or ():
            for volume in pod.spec.volumes:
                if volume.persistent_volume_claim is not None and pod.status.phase not in ("Succeeded", "Failed"):
                    found[volume.persistent_volume_claim.claim_name].append(pod.metadata.name)
        return found


def _is_going(claim: VolumeClaim) -> bool:
    return claim.metadata.deletion_timestamp is not None


def _owner(claim: VolumeClaim) -> tuple[str, str]:
    """The home's user, by name and by hash."""
    return claim.metadata.annotations.get(labels.USER, ""), claim.metadata.labels.get(labels.USER, "")
