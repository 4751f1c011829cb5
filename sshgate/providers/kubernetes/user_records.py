"""What gateways share of their users: one Lease for each, with a text in an annotation.

Not a ConfigMap: a Role that may make and change those could change the gateway's own settings where it shares the
namespace, and Leases it may make already. Nobody holds these, and none is looked at when gateways look for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sshgate.errors import Unavailable
from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import Conflict
from sshgate.providers.kubernetes.api.objects import Listing
from sshgate.providers.kubernetes.leases import MERGE_PATCH, PART, Lease

ISSUED = "issued"
TEXT = labels.DOMAIN + ISSUED
# Others that change the same user's at the same moment.
TRIES = 5

_leases = msgspec.json.Decoder(Listing[Lease])


class LeaseShelf:
    """A shelf in the sandboxes' namespace. Failures raise as ``ApiServer.request`` says."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._root = f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"

    def __repr__(self) -> str:
        return f"<LeaseShelf in {self._api.namespace}>"

    async def all(self) -> Mapping[str, str]:
        found = await self._list({"labelSelector": f"{PART}={ISSUED}"})
        texts = {one.metadata.annotations.get(labels.USER, ""): one.metadata.annotations.get(TEXT, "") for one in found}
        return {user: text for user, text in texts.items() if user}

    async def change(self, user: str, change: Callable[[str], str]) -> str:
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
        body = await self._api.request("GET", self._root, query=query, doing="look for tokens and logouts")
        try:
            return _leases.decode(body).items or []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable("the API server sent something that is no answer.") from error

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
            **self._api.owned(),
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
        await self._api.request("POST", self._root, body, doing="write down tokens and logouts")
