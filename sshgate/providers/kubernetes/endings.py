"""Ends of named sandboxes that no gateway has asked for: whom the watch shows to have ended one. Pure."""

from __future__ import annotations

from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes.api.objects import Pod


def ended_by(old: Pod | None, new: Pod | None) -> str | None:
    """The operator who ended this named sandbox, at the first account that shows it going; else ``None``."""
    if old is None or old.metadata.deletion_timestamp is not None or labels.NAME not in old.metadata.labels:
        return None
    if new is not None and new.metadata.deletion_timestamp is None:
        return None
    return (new or old).metadata.annotations.get(labels.ENDED_BY)
