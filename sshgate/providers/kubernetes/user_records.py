"""What gateways share about their users: one Lease per user and kind, with a text in an annotation.

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
from sshgate.providers.kubernetes.leases import MERGE_PATCH, PART, Lease, lease_of, leases_path

# What the text is of: tokens and logouts, or what was spent on models. Part of the Lease's name.
ISSUED = "issued"
SPENT = "spent"
_ABOUT = {ISSUED: "tokens and logouts", SPENT: "what was spent on models"}
# Attempts, in case other gateways change the same user's text at the same moment.
TRIES = 5

_leases = msgspec.json.Decoder(Listing[Lease])


class LeaseUserRecords:
    """The ``UserRecords`` in the sandboxes' namespace. Methods raise as ``ApiServer.request`` does."""

    def __init__(self, api: ApiServer, kind: str = ISSUED) -> None:
        """``kind``: ``ISSUED`` or ``SPENT``."""
        self._api = api
        self._kind = kind
        self._text = labels.DOMAIN + kind
        self._root = leases_path(api)

    @raised_as(Unavailable)
    async def all(self) -> Mapping[str, str]:
        found = await self._list({"labelSelector": f"{PART}={self._kind}"})
        texts = {one.metadata.annotations.get(labels.USER, ""): self._text_of([one]) for one in found}
        return {user: text for user, text in texts.items() if user}

    @raised_as(Unavailable)
    async def read(self, user: str) -> str:
        return self._text_of(await self._list({"fieldSelector": f"metadata.name={self._name(user)}"}))

    @raised_as(Unavailable)
    async def change(self, user: str, change: Callable[[str], str]) -> str:
        """See ``UserRecords``; ``change`` is called up to ``TRIES`` times, as other gateways may write meanwhile.

        Raises ``Unavailable`` after that. Cancelling leaves it unknown whether the text was written.
        """
        name = self._name(user)
        for _ in range(TRIES):
            found = await self._list({"fieldSelector": f"metadata.name={name}"})
            text = change(self._text_of(found))
            try:
                if found:
                    await self._patch(found[0], text)
                else:
                    await self._post(name, user, text)
            except Conflict:
                continue
            return text
        raise Unavailable("too many gateways write at once; try again in a moment.")

    def _name(self, user: str) -> str:
        return f"sshgate-{self._kind}-{labels.user_hash(user)}"

    def _text_of(self, found: list[Lease]) -> str:
        return found[0].metadata.annotations.get(self._text, "") if found else ""

    @property
    def _writing(self) -> str:
        return f"write down {_ABOUT[self._kind]}"

    async def _list(self, query: Mapping[str, str]) -> list[Lease]:
        return (await self._api.list_all(_leases, self._root, query, f"look for {_ABOUT[self._kind]}")).items or []

    async def _patch(self, known: Lease, text: str) -> None:
        version = known.metadata.resource_version
        patch = {"metadata": {"resourceVersion": version, "annotations": {self._text: text}}}
        path = f"{self._root}/{known.metadata.name}"
        await self._api.request("PATCH", path, patch, content=MERGE_PATCH, doing=self._writing)

    async def _post(self, name: str, user: str, text: str) -> None:
        metadata: dict[str, Any] = {
            "name": name,
            "labels": {PART: self._kind, labels.USER: labels.user_hash(user)},
            "annotations": {labels.USER: user, self._text: text},
            **self._api.owner_metadata(),
        }
        await self._api.request("POST", self._root, lease_of(metadata, {}), doing=self._writing)
