"""What gateways share about their users: one Lease per user, with a text in an annotation.

Leases rather than ConfigMaps: a role that may write ConfigMaps could change the gateway's own settings if they are in
the same namespace, and the role may write Leases anyway. These have no holder, and no label by which gateways find the
Leases of other instances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sshgate.errors import Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import Conflict, raised_as
from sshgate.providers.kubernetes.api.objects import Listing
from sshgate.providers.kubernetes.leases import MERGE_PATCH, PART, Lease

ISSUED = "issued"
TEXT = labels.DOMAIN + ISSUED
# Attempts, in case other gateways change the same user's text at the same moment.
TRIES = 5

_leases = msgspec.json.Decoder(Listing[Lease])


class LeaseUserRecords:
    """The ``UserRecords`` in the sandboxes' namespace. Methods raise as ``ApiServer.request`` does."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._root = f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"

    def __repr__(self) -> str:
        return f"<LeaseUserRecords in {self._api.namespace}>"

    @raised_as(Unavailable)
    async def all(self) -> Mapping[str, str]:
        found = await self._list({"labelSelector": f"{PART}={ISSUED}"})
        texts = {one.metadata.annotations.get(labels.USER, ""): one.metadata.annotations.get(TEXT, "") for one in found}
        return {user: text for user, text in texts.items() if user}

    @raised_as(Unavailable)
    async def change(self, user: str, change: Callable[[str], str]) -> str:
        """See ``UserRecords``; ``change`` is called up to ``TRIES`` times, as other gateways may write meanwhile.

        Raises ``Unavailable`` after that. Cancelling leaves it unknown whether the text was written.
        """
        name = f"sshgate-{ISSUED}-{labels.user_hash(user)}"
        for _ in range(TRIES):
            found = await self._list({"fieldSelector": f"metadata.name={name}"})
            text = change(found[0].metadata.annotations.get(TEXT, "") if found else "")
            try:
                if found:
                    await self._patch(found[0], text)
                else:
                    await self._post(name, user, text)
            except Conflict:
                continue
            return text
        raise Unavailable("too many gateways write at once; try again in a moment.")

    async def _list(self, query: Mapping[str, str]) -> list[Lease]:
        return (await self._api.list_all(_leases, self._root, query, "look for tokens and logouts")).items or []

    async def _patch(self, known: Lease, text: str) -> None:
        version = known.metadata.resource_version
        patch = {"metadata": {"resourceVersion": version, "annotations": {TEXT: text}}}
        path = f"{self._root}/{known.metadata.name}"
        await self._api.request("PATCH", path, patch, content=MERGE_PATCH, doing="write down tokens and logouts")

    async def _post(self, name: str, user: str, text: str) -> None:
        metadata: dict[str, Any] = {
            "name": name,
            "labels": {PART: ISSUED, labels.USER: labels.user_hash(user)},
            "annotations": {labels.USER: user, TEXT: text},
            **self._api.owner_metadata(),
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
        await self._api.request("POST", self._root, body, doing="write down tokens and logouts")
