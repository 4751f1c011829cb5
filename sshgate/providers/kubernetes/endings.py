"""Finds named sandboxes that an operator has ended, from what the watch shows. Pure."""

from __future__ import annotations

from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes.api.objects import Pod


def ended_by(old: Pod | None, new: Pod | None) -> str | None:
    """The operator who ended this named sandbox, for the first change that shows its deletion; else ``None``.

    ``old`` and ``new`` are the pod before and after the change; ``new`` is ``None`` if it was deleted.
    """
    if old is None or old.metadata.deletion_timestamp is not None or labels.NAME not in old.metadata.labels:
        return None
    if new is not None and new.metadata.deletion_timestamp is None:
        return None
    return (new or old).metadata.annotations.get(labels.ENDED_BY)
