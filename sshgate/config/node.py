"""Where a gateway in a pod is reached: at its node, whose ports lead there. The gateway sees its pod's address only."""

from __future__ import annotations

import os

VARIABLE = "SSHGATE_NODE"


def node_address() -> str | None:
    """The node's address, which the manifests put into the environment; ``None``: this is no pod of theirs."""
    return os.environ.get(VARIABLE) or None
