"""The Leases that say which pod is the sandbox of a name; ``lifecycle.naming`` has the rules.

They have no holder, and no label by which gateways find the Leases of other instances. The pod that has the name is
the owner, so the garbage collector deletes the Lease after its pod.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec

from sshgate.errors import Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.claim import GiveUp
from sshgate.lifecycle.naming import DropName, Held, Holder, LookAtHolder, NameAttempt, NameStep, TakeName
from sshgate.lifecycle.records import Record, State
from sshgate.lifecycle.registry import LOOK_AFTER, Registry
from sshgate.lifecycle.requests import Answer
from sshgate.providers.kubernetes.api.client import ApiServer, decode
from sshgate.providers.kubernetes.api.errors import Conflict, NotFound
from sshgate.providers.kubernetes.api.objects import Listing, Meta, Object
from sshgate.providers.kubernetes.leases import PART, lease_of, leases_path
from sshgate.providers.kubernetes.pods import record_of

NAMED = "name"


class _Reference(Object):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Owned(Meta):
    owner_references: list[_Reference] = msgspec.field(default_factory=list)


class _NameLease(Object):
    metadata: _Owned


_lease = msgspec.json.Decoder(_NameLease)
_leases = msgspec.json.Decoder(Listing[_NameLease])


class Names:
    """The names of all sandboxes in the namespace, for one gateway."""

    def __init__(self, api: ApiServer, registry: Registry) -> None:
        self._api = api
        self._registry = registry
        self._root = leases_path(api)

    async def holder(self, user: str, name: str, contender: Record | None) -> Record | None:
        """The pod that has this name; if no other has, ``contender`` takes it. ``None``: there is no pod at all.

        Cancelling leaves it unknown whether ``contender`` has the name. Raises ``Unavailable``, or ``GateError`` where
        the API server does not allow it.
        """
        attempt, lease, unanswered = NameAttempt(contender), labels.name_lease(user, name), 0
        while not isinstance(attempt.step, Held):
            if isinstance(attempt.step, GiveUp):
                raise Unavailable("the API server does not answer; try again in a moment.")
            if unanswered:
                await asyncio.sleep(LOOK_AFTER[min(unanswered, len(LOOK_AFTER)) - 1])
            answer = await self._do(attempt.step, user, name, lease)
            unanswered += answer is Answer.UNKNOWN
            attempt.answered(answer)
        return attempt.step.record

    async def _do(self, step: NameStep, user: str, name: str, lease: str) -> Holder | Record | Answer:
        try:
            if isinstance(step, TakeName):
                return await self._take(step.record, user, name, lease)
            if isinstance(step, LookAtHolder):
                return await self._look(step.holder)
            if isinstance(step, DropName):
                return await self._drop(step.holder, lease)
            return await self._read(lease)
        except Conflict:
            return Answer.REFUSED
        except NotFound:
            return Answer.MISSING
        except Unavailable:
            return Answer.UNKNOWN

    async def _take(self, record: Record, user: str, name: str, lease: str) -> Holder:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": record.name, "uid": record.uid}
        metadata: dict[str, Any] = {
            "name": lease,
            "labels": {PART: NAMED, labels.USER: labels.user_hash(user), labels.NAME: labels.label_value(name)},
            "annotations": {labels.USER: labels.printable(user)},
            "ownerReferences": [owner],
        }
        body = lease_of(metadata, {})
        made = decode(_lease, await self._api.request("POST", self._root, body, doing="take the sandbox's name"))
        return _holder(made)

    async def _read(self, lease: str) -> Holder | Answer:
        # A list of one: the role may list Leases, and need not be able to get them.
        query = {"fieldSelector": f"metadata.name={lease}"}
        found = await self._api.list_all(_leases, self._root, query, "look who has the sandbox's name")
        return _holder(found.items[0]) if found.items else Answer.MISSING

    async def _look(self, holder: Holder) -> Record | Answer:
        # A watch that lags does no harm: who joins a pod that is gone is refused, and looks again. But a pod that has a
        # name was claimed for it, which the watch may not have shown.
        cache = self._registry.cache
        known = cache.pod(holder.pod_uid)
        if known is not None and known.state is not State.WARM and not cache.expectations.deleting(known.uid):
            return known
        if cache.is_gone(holder.pod_uid) or not holder.pod_uid:
            return Answer.MISSING
        record = record_of(await self._api.get_pod(holder.pod))
        self._registry.update(record)
        return record

    async def _drop(self, holder: Holder, lease: str) -> Answer:
        await self._api.delete(f"{self._root}/{lease}", holder.uid, holder.version, "free the sandbox's name")
        return Answer.MISSING


def _holder(lease: _NameLease) -> Holder:
    meta = lease.metadata
    pod = next((one for one in meta.owner_references if one.kind == "Pod"), _Reference())
    return Holder(meta.uid, meta.resource_version, pod.name, pod.uid)


def bearing(record: Record, user: str, name: str) -> Record:
    """Return the pod that has this name, with the name, which another gateway may not have written on it yet."""
    if record.to_be_named and record.user_hash == labels.user_hash(user):
        return replace(record, sandbox=labels.label_value(name))
    return record
