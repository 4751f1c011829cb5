"""Which warm sandbox a login tries first. Pure."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection

from sshgate.lifecycle.cache import CachedPod, PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.records import Record


def pick(book: PodCache, template: str, settle: float, lives: Collection[str], now: Now) -> Record | None:
    """The best pod to try; ``None``: there is none, start cold.

    Only pods that are ready, have an address, are made from exactly this template and have been ready for
    ``settle`` seconds as seen by this gateway. ``lives`` are the gateways that are alive: each has a slice of
    the pods (rendezvous hash) in which the others do not pick unless their own is empty, so that gateways
    seldom race. That they may see different sets costs a race, which the claim's ``test`` decides.
    Within a slice: the node with most of them first, which keeps nodes even, then the oldest.
    """
    eligible = [one for one in book.warm(now) if _eligible(one, template, settle, now)]
    nodes = Counter(one.record.node for one in eligible)

    def order(one: CachedPod) -> tuple[bool, int, float, str]:
        record = one.record
        return not is_mine(record.uid, book.life, lives), -nodes[record.node], record.created, record.uid

    return min(eligible, key=order).record if eligible else None


def is_mine(uid: str, life: str, lives: Collection[str]) -> bool:
    """Whether the pod is in the slice of ``life``: each pod is in exactly one, whoever asks."""
    return life == max((*lives, life), key=lambda one: (zlib.crc32(f"{one}/{uid}".encode()), one))


def _eligible(one: CachedPod, template: str, settle: float, now: Now) -> bool:
    return one.record.usable and one.record.template == template and now.mono - one.stage_since >= settle
