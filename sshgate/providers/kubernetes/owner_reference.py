"""The ConfigMap of the installation that owns all objects gateways create: deleting it garbage-collects them."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog

from sshgate.errors import GateError
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.api.objects import Meta, Object

log = structlog.get_logger("sshgate.sandbox.kubernetes")


class _ConfigMap(Object):
    metadata: Meta


_config_map = msgspec.json.Decoder(_ConfigMap)


async def find_anchor(api: ApiServer, name: str | None) -> dict[str, Any] | None:
    """An owner reference to the ConfigMap ``name`` in the sandboxes' namespace; ``None`` if it cannot be read.

    The owner is not the gateway's own pod, because a rollout would then end every named sandbox. A missing ConfigMap,
    or a role that may not read it, is only logged: the reaper, or deleting the namespace, cleans up as well.
    """
    if name is None:
        return None
    try:
        body = await api.request("GET", api.path("configmaps", name), doing="look for its anchor")
    except GateError as error:
        log.info("anchor.missing", config_map=name, reason=str(error))
        return None
    # Without `blockOwnerDeletion`: it needs a right on finalizers, and nothing waits for the deletion.
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": _config_map.decode(body).metadata.uid}
