"""Whether the gateway's role in the cluster suffices, asked before the first login."""

from __future__ import annotations

import asyncio

import msgspec

from sshgate.errors import Unavailable
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.errors import NotFound
from sshgate.providers.kubernetes.api.objects import Object

# From 1.35 the API server checks `create` for an exec by websocket; before, `get`.
NEEDED = (
    ("create", "pods", ""),
    ("get", "pods", ""),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("patch", "pods", ""),
    ("delete", "pods", ""),
    ("get", "pods", "exec"),
    ("create", "pods", "exec"),
    ("create", "leases.coordination.k8s.io", ""),
    ("list", "leases.coordination.k8s.io", ""),
    ("patch", "leases.coordination.k8s.io", ""),
    ("update", "leases.coordination.k8s.io", ""),
    ("delete", "leases.coordination.k8s.io", ""),
)
# Only where a profile has homes.
NEEDED_FOR_HOMES = (
    ("create", "persistentvolumeclaims", ""),
    ("get", "persistentvolumeclaims", ""),
    ("list", "persistentvolumeclaims", ""),
    ("delete", "persistentvolumeclaims", ""),
)


class _Answer(Object):
    allowed: bool = False


class _Review(Object):
    status: _Answer


_review = msgspec.json.Decoder(_Review)


async def check_rights(api: ApiServer, homes: bool = False) -> None:
    """Raises ``Unavailable`` with what is missing: the namespace, or rights of the gateway's role in it."""
    await _check_namespace(api)
    needed = (*NEEDED, *(NEEDED_FOR_HOMES if homes else ()))
    allowed = await asyncio.gather(*(_allowed(api, *right) for right in needed))
    missing = [
        f"{verb} {resource}{'/' + sub if sub else ''}"
        for (verb, resource, sub), yes in zip(needed, allowed, strict=True)
        if not yes
    ]
    if missing:
        raise Unavailable(
            f"the gateway's role in the namespace {api.namespace!r} lacks: {', '.join(missing)}; "
            "bind the role of manifests/base to its service account."
        )


async def _check_namespace(api: ApiServer) -> None:
    # A role in the namespace need not allow to look at the namespace itself; who is not allowed to does not ask for it.
    if not await _allowed(api, "get", "namespaces", ""):
        return
    try:
        await api.request("GET", f"/api/v1/namespaces/{api.namespace}", doing="look at the namespace")
    except NotFound as error:
        raise Unavailable(
            f"the namespace {api.namespace!r} does not exist: create it, or set sandbox.namespace."
        ) from error


async def _allowed(api: ApiServer, verb: str, resource: str, subresource: str) -> bool:
    resource, _, group = resource.partition(".")
    attributes = {
        "namespace": api.namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource,
    }  # fmt: skip
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool(_review.decode(await api.request("POST", path, review, doing="ask for its rights")).status.allowed)
