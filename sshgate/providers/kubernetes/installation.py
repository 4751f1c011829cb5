"""What the gateway finds of its installation before the first login: its rights, and the owner of what it creates."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from sshgate.errors import GateError, Unavailable
from sshgate.providers.kubernetes.api.client import ApiServer, decode
from sshgate.providers.kubernetes.api.errors import NotFound
from sshgate.providers.kubernetes.api.objects import Meta, Object

log = structlog.get_logger("sshgate.sandbox.kubernetes")

# For an exec by websocket, API servers check `create` from 1.35 on, `get` before.
NEEDED = {
    "pods": ("create", "get", "list", "watch", "patch", "delete"),
    "pods/exec": ("get", "create"),
    "leases.coordination.k8s.io": ("create", "list", "patch", "update", "delete"),
}
# Needed only if a profile has homes.
NEEDED_FOR_HOMES = {"persistentvolumeclaims": ("create", "get", "list", "patch", "delete")}


class _Answer(Object):
    allowed: bool = False


class _Review(Object):
    status: _Answer


class _ConfigMap(Object):
    metadata: Meta


_review = msgspec.json.Decoder(_Review)
_config_map = msgspec.json.Decoder(_ConfigMap)


async def check_rights(api: ApiServer, homes: bool = False) -> None:
    """Check that the namespace exists and the gateway's role suffices; ``homes`` adds the rights that homes need.

    Raises ``Unavailable`` with what is missing.
    """
    await _check_namespace(api)
    needed = NEEDED | (NEEDED_FOR_HOMES if homes else {})
    rights = [(verb, resource) for resource, uses in needed.items() for verb in uses]
    allowed = await asyncio.gather(*(_allowed(api, *right) for right in rights))
    missing = [" ".join(right) for right, yes in zip(rights, allowed, strict=True) if not yes]
    if missing:
        raise Unavailable(
            f"the gateway's role in the namespace {api.namespace!r} lacks: {', '.join(missing)}; "
            "bind the role of manifests/base to its service account."
        )


async def find_anchor(api: ApiServer) -> None:
    """Look for the ConfigMap ``api.anchor.name`` in the sandboxes' namespace, the owner of what is created from now on.

    Deleting that ConfigMap garbage-collects all objects that gateways have created, except homes.

    The owner is not the gateway's own pod, because a rollout would then end every named sandbox. A missing ConfigMap,
    or a role that may not read it, is only logged: the reaper, or deleting the namespace, cleans up as well.
    """
    name = api.anchor.name
    if name is None:
        return
    try:
        body = await api.request("GET", api.path("configmaps", name), doing="look for its anchor")
        uid = decode(_config_map, body).metadata.uid
    except GateError as error:
        log.info("anchor.missing", config_map=name, reason=str(error))
        if not isinstance(error, Unavailable):
            api.anchor.reference = None
        return
    # Without `blockOwnerDeletion`: it needs a right on finalizers, and nothing waits for the deletion.
    api.anchor.reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}


async def _check_namespace(api: ApiServer) -> None:
    # A role in the namespace usually does not include reading the namespace itself; then skip the check.
    if not await _allowed(api, "get", "namespaces"):
        return
    try:
        await api.request("GET", f"/api/v1/namespaces/{api.namespace}", doing="look at the namespace")
    except NotFound as error:
        raise Unavailable(
            f"the namespace {api.namespace!r} does not exist: create it, or set sandbox.namespace."
        ) from error


async def _allowed(api: ApiServer, verb: str, resource: str) -> bool:
    resource, _, subresource = resource.partition("/")
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
    return bool(decode(_review, await api.request("POST", path, review, doing="ask for its rights")).status.allowed)
