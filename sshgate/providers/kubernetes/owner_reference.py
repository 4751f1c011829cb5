"""The object of the installation that owns whatever gateways make: deleting it deletes all of that."""

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
    """An owner reference to the ConfigMap ``name`` in the namespace of the sandboxes; ``None`` without one.

    Not to the gateway's own pod: a rollout of that would end every named sandbox. An installation that lacks it,
    or a role that may not see it, is no obstacle: what is left then is for the reaper, or for its deleted namespace.
    """
    if name is None:
        return None
    try:
        body = await api.request("GET", api.path("configmaps", name), doing="look for its anchor")
    except GateError as error:
        log.info("anchor.missing", config_map=name, reason=str(error))
        return None
    # No `blockOwnerDeletion`: that needs a right on finalizers, and nothing here waits for the deletion.
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": _config_map.decode(body).metadata.uid}
