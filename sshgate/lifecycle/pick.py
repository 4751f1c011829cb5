"""Which warm sandbox a login tries first. Pure."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection

from sshgate.lifecycle.cache import CachedPod, PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.records import Record


def pick(book: PodCache, template: str, settle: float, lives: Collection[str], now: Now) -> Record | None:
    """The best pod to claim; ``None``: there is none, start cold.

    Only pods of exactly this template that are ready, have an address, and have been ready for ``settle`` seconds by
    this gateway's clock. Each gateway instance in ``lives`` has a slice of the pods (rendezvous hashing), and others
    pick there only when their own slice is empty, so that gateways seldom race. Gateways that see different sets may
    race; the claim's ``test`` decides. Within a slice pods of the node that has most come first, which keeps the nodes
    even, then the oldest.
    """
    eligible = [one for one in book.warm(now) if _eligible(one, template, settle, now)]
    nodes = Counter(one.record.node for one in eligible)

    def order(one: CachedPod) -> tuple[bool, int, float, str]:
        record = one.record
        return not is_mine(record.uid, book.life, lives), -nodes[record.node], record.created, record.uid

    return min(eligible, key=order).record if eligible else None


def is_mine(uid: str, life: str, lives: Collection[str]) -> bool:
    """Whether the pod is in the slice of ``life``. Each pod is in exactly one slice of the same ``lives``."""
    return life == max((*lives, life), key=lambda one: (zlib.crc32(f"{one}/{uid}".encode()), one))


def _eligible(one: CachedPod, template: str, settle: float, now: Now) -> bool:
    return one.record.usable and one.record.template == template and now.mono - one.stage_since >= settle
