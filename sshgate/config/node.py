"""The address of the node of a gateway that runs in a pod. Users connect to the node's ports, not to the pod."""

from __future__ import annotations

import os

VARIABLE = "SSHGATE_NODE"


def node_address() -> str | None:
    """Return the node's address, which the manifests set in the environment, or ``None`` outside of such a pod."""
    return os.environ.get(VARIABLE) or None
