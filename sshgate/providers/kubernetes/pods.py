"""The ``Cluster`` of ``lifecycle.registry``, implemented with the API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sshgate.config.model import Profile
from sshgate.errors import GateError, StartFailed, Unavailable
from sshgate.lifecycle.records import Record
from sshgate.lifecycle.requests import Answer, Create, Delete, Patch
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.api import errors as failures
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.deletion import GRACE_SECONDS
from sshgate.providers.kubernetes.podspec import Owner


class Pods:
    """Creates, patches, reads and deletes pods for the lifecycle, by the profiles of this gateway."""

    def __init__(self, api: ApiServer, owner: Owner, profiles: Mapping[str, Profile]) -> None:
        self._api = api
        self._owner = owner
        self._profiles = profiles
        self.unsure: set[str] = set()
        """Names of warm pods whose creation had no response. The watch removes a name when it shows the pod."""

    def __repr__(self) -> str:
        return f"<Pods of {self._api!r}>"

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
            return _answer(error)

    async def look(self, name: str) -> Record | Answer:
        try:
            return record_of(await self._api.get_pod(name))
        except GateError as error:
            return _answer(error)

    async def delete(self, delete: Delete) -> Answer | None:
        record = delete.record
        try:
            version = record.version if delete.untouched else None
            await self._api.delete_pod(record.name, record.uid, GRACE_SECONDS, version)
        except GateError as error:
            return _answer(error)
        return None


def record_of(pod: Pod) -> Record:
    """The ``Record`` of a pod: the facts that decisions depend on."""
    raw: dict[str, Any] = msgspec.to_builtins(pod)
    return Record.parse(raw)


def _answer(error: GateError) -> Answer:
    if isinstance(error, failures.NotFound):
        return Answer.MISSING
    if isinstance(error, (failures.Conflict, failures.Invalid, failures.Forbidden)):
        return Answer.REFUSED
    return Answer.UNKNOWN
