"""Lists sandboxes for users and operators: what is written on the pods, their usage, and whether they have a home."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal

from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.providers.kubernetes.api.client import ApiServer
from sshgate.providers.kubernetes.homes import KubernetesHomes
from sshgate.providers.kubernetes.usage import read_usage
from sshgate.sandbox.interfaces import Listed


async def list_sandboxes(
    api: ApiServer, records: Iterable[Record], homes: KubernetesHomes, user: str | None, now: Now
) -> list[Listed]:
    """Describe these sandboxes, in this order. Raises ``Unavailable``; usage is left out where it is not measured.

    ``user``: whose sandboxes these are; ``None``: everybody's. ``now`` is the API server's time.
    """
    usage, at_home = await asyncio.gather(read_usage(api, user), homes.names(user))
    return [_describe(one, usage.get(one.name), one.name in at_home, now) for one in records]


def _describe(record: Record, usage: tuple[float, int] | None, home: bool, now: Now) -> Listed:
    return Listed(
        id=record.name,
        user=record.user or record.user_hash or "",
        name=record.sandbox,
        profile=record.profile,
        state=_state(record),
        age=max(0.0, now.wall - (record.claimed_at or record.created)),
        left=None if record.expires_at is None else max(0.0, record.expires_at - now.wall),
        home=home,
        cpu=usage[0] if usage is not None else None,
        memory=usage[1] if usage is not None else None,
    )


def _state(record: Record) -> Literal["starting", "attached", "detached", "ending"]:
    if record.deleting or record.state is State.DRAINING or record.stage is Stage.FINISHED:
        return "ending"
    if record.stage is not Stage.READY:
        return "starting"
    return "attached" if record.attached or record.sandbox is None else "detached"
