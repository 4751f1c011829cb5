"""The ``Cluster`` of ``lifecycle.registry``, implemented with the API server."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sshgate.config.model import Profile
from sshgate.errors import GateError, StartFailed, Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.requests import Answer, Create, Delete, Patch
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Pod, Waiting
from sshgate.providers.kubernetes.deletion import GRACE_SECONDS
from sshgate.providers.kubernetes.exec.diagnosis import blocked, unscheduled
from sshgate.providers.kubernetes.podspec import Owner


class Pods:
    """Creates, patches, reads and deletes pods for the lifecycle, by the profiles of this gateway."""

    def __init__(self, api: ApiServer, owner: Owner, profiles: Mapping[str, Profile]) -> None:
        self._api = api
        self._owner = owner
        self._profiles = profiles
        self.unsure: set[str] = set()
        """Names of warm pods whose creation had no response. The watch removes a name when it shows the pod."""

    async def make(self, create: Create) -> Record:
        profile = self._profiles.get(create.profile)
        if profile is None:
            raise StartFailed(f"the profile {create.profile!r} is no longer configured.")
        manifest = podspec.warm_pod(profile, self._owner, create.name)
        self.unsure.add(create.name)
        try:
            made = record_of(await self._api.create_pod(manifest))
        except Unavailable:
            raise
        except GateError:
            self.unsure.discard(create.name)
            raise
        self.unsure.discard(create.name)
        return made

    async def patch(self, name: str, patch: Patch) -> Record | Answer:
        try:
            return record_of(await self._api.patch_pod(name, patch))
        except GateError as error:
            return answer_of(error)

    async def look(self, name: str) -> Record | Answer:
        try:
            return record_of(await self._api.get_pod(name))
        except GateError as error:
            return answer_of(error)

    async def delete(self, delete: Delete) -> Answer | None:
        record = delete.record
        try:
            version = record.version if delete.untouched else None
            await self._api.delete_pod(record.name, record.uid, GRACE_SECONDS, version)
        except GateError as error:
            return answer_of(error)
        return None


# One for all: an empty set of its own has 216 bytes.
NOBODY: frozenset[str] = frozenset()
_STATES = {labels.WARM: State.WARM, labels.CLAIMED: State.CLAIMED, labels.DRAINING: State.DRAINING}


def record_of(pod: Pod) -> Record:
    """The ``Record`` of a pod: the facts that decisions depend on.

    What is missing becomes ``None`` or empty, and so does what makes no sense: people can edit labels and annotations.
    """
    meta, marks, notes = pod.metadata, pod.metadata.labels, pod.metadata.annotations
    stage, reason, ready_since = _stage(pod)
    kept_for = notes.get(labels.KEPT_FOR, "")
    return Record(
        name=meta.name,
        uid=meta.uid,
        version=meta.resource_version,
        state=_STATES.get(marks.get(labels.STATE, ""), State.UNKNOWN),
        stage=stage,
        profile=marks.get(labels.PROFILE, ""),
        template=marks.get(labels.TEMPLATE, ""),
        user=notes.get(labels.USER) or None,
        user_hash=marks.get(labels.USER) or None,
        sandbox=marks.get(labels.NAME) or None,
        session=marks.get(labels.SESSION) or None,
        gateway=marks.get(labels.GATEWAY) or None,
        instance=notes.get(labels.INSTANCE) or None,
        node=pod.spec.node_name or None,
        ip=pod.status.pod_ip or None,
        created=labels.parse_timestamp(meta.creation_timestamp) or 0.0,
        started=labels.parse_timestamp(pod.status.start_time),
        ready_since=ready_since,
        deleting=meta.deletion_timestamp is not None,
        reason=reason,
        deadline=pod.spec.active_deadline_seconds,
        claimed_at=labels.parse_timestamp(notes.get(labels.CLAIMED_AT)),
        last_seen=labels.parse_timestamp(notes.get(labels.LAST_SEEN)),
        detached_at=labels.parse_timestamp(notes.get(labels.DETACHED_AT)),
        expires_at=labels.parse_timestamp(notes.get(labels.EXPIRES_AT)),
        kept_for=float(kept_for) if re.fullmatch(r"[0-9]{1,9}", kept_for) else None,
        attached=frozenset(
            key.removeprefix(labels.ATTACHED)
            for key, value in notes.items()
            if key.startswith(labels.ATTACHED) and value
        )
        or NOBODY,
    )


def _stage(pod: Pod) -> tuple[Stage, str | None, float | None]:
    """The stage, its reason, and since when it is ready."""
    if pod.status.phase in ("Succeeded", "Failed"):
        return Stage.FINISHED, pod.status.reason or None, None
    ready = next((one for one in pod.status.conditions if one.type == "Ready"), None)
    if ready is not None and ready.status == "True":
        return Stage.READY, None, labels.parse_timestamp(ready.last_transition_time)
    waiting = unscheduled(pod) or blocked(pod)
    if waiting is not None:
        return Stage.BLOCKED if isinstance(waiting, Waiting) else Stage.UNSCHEDULABLE, waiting.reason or None, None
    return Stage.STARTING, None, None


def answer_of(error: GateError) -> Answer:
    """What a failed request means for the lifecycle."""
    if isinstance(error, failures.NotFound):
        return Answer.MISSING
    if isinstance(error, (failures.Conflict, failures.Invalid, failures.Forbidden)):
        return Answer.REFUSED
    return Answer.UNKNOWN
