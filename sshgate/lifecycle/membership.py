"""Which gateway instances live, as observed by their Leases, and which one leads. Pure, by the monotonic clock.

Each instance renews a Lease of its own every few seconds. A peer is silent when the **value** of its renewal has not
changed for ``LEASE_DURATION`` seconds on our own clock, whatever time the value shows: clocks of two machines are
never compared. Only time in which we could have observed a renewal counts. While the API server is away, or this
process is stopped, nobody is declared dead; afterwards each peer's silence continues from where it was.

A silent peer may still have users: its process may have been stopped for a moment, or may not reach the API server. So
it is dead only after a second sign: when asked at the address in its Lease (``providers.kubernetes.liveness``), its
process is gone or its event loop hangs. Without an answer either way, it is dead after ``UNANSWERED`` seconds of
silence. An instance that never had a Lease has no address: for it silence is enough.

An instance that ends releases its Lease, and a released Lease is believed at once. A missing Lease proves nothing: a
gateway that lives makes it again with its next renewal.

One instance leads: it keeps the pools full and deletes what dead gateways left. The leader's Lease names it, and its
own Lease shows whether it lives, so leading costs no renewals of its own. For a moment there may be two leaders (one
was stopped and does not know yet that it was replaced). That costs requests and does no harm, because every action of a
leader is idempotent and guarded by preconditions. Therefore a silent leader is replaced at once, although what it holds
is not deleted yet.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Set

RENEW = 5.0
"""Seconds between renewals."""
LEASE_DURATION = 20.0
"""Seconds without a renewal after which a peer is silent."""
UNANSWERED = 90.0
"""Seconds of silence after which a peer that could not be asked is dead: longer than a process is stopped, or a node or
a network away, while users still wait."""
LONGEST_GAP = 5.0
"""Seconds: ``count_time`` is called more often than this; a longer gap between two calls does not count as time."""

# 2^32 divided by the golden ratio: multiplying by it carries each bit into the high ones (Knuth, TAOCP 6.4).
_ODD = 0x9E3779B1
# Seconds after which a leader that could not read its Lease may have been replaced.
STALE = LEASE_DURATION / 2


class Membership:
    """What this gateway has observed of the instances, itself among them. ``me`` is its own id."""

    def __init__(self, me: str) -> None:
        self._me = me
        self.observed_time = 0.0
        """Seconds in which we could have observed a renewal."""
        self._last: float | None = None
        self._values: dict[str, str] = {}
        self._renewals: dict[str, float] = {}
        self._left: set[str] = set()
        self.by_pod_name: Set[str] = frozenset()
        """The instances, of those that have a Lease, that find named sandboxes by their pods' names only."""
        self._vanished: set[str] = set()

    def __repr__(self) -> str:
        alive = len(self.alive())
        return f"<Membership {alive} alive, {len({self._me, *self._renewals}) - alive} silent or gone>"

    def observe(self, instance: str, value: str) -> None:
        """The Lease of ``instance`` was read; ``value`` is any text that changes with each renewal."""
        if self._values.get(instance) != value:
            self._values[instance] = value
            self.answered(instance)

    def answered(self, instance: str) -> None:
        """The instance has shown that it lives: its silence starts again from 0."""
        self._renewals[instance] = self.observed_time
        self._left.discard(instance)
        self._vanished.discard(instance)

    def vanished(self, instance: str) -> None:
        """Its process is gone or hangs, as found at its address: if it is silent as well, it is dead."""
        self._vanished.add(instance)

    def left(self, instance: str) -> None:
        """It has released its Lease. An instance never comes back, so it is dead at once."""
        self._left.add(instance)
        self._renewals.setdefault(instance, self.observed_time)

    def count_time(self, now: float, instances: Iterable[str] = ()) -> None:
        """Count the time since the last call, in which the Leases could be read. ``now`` is monotonic.

        ``instances``: all that are named on pods. The silence of one that is new to us (its pod was read before
        its Lease) starts now.
        """
        if self._last is not None and 0 <= now - self._last <= LONGEST_GAP:
            self.observed_time += now - self._last
        self._last = now
        for instance in instances:
            self._renewals.setdefault(instance, self.observed_time)

    @property
    def all_name_by_lease(self) -> bool:
        """Whether every gateway that may live finds named sandboxes by their Leases; older ones know pods' names."""
        return all(self.dead(instance) for instance in self.by_pod_name)

    def mark_disconnected(self) -> None:
        """The Leases cannot be read: no time counts until ``count_time`` has been called twice again."""
        self._last = None

    def dead(self, instance: str) -> bool:
        """Whether what belongs to it is to be deleted. Never for ourselves, nor for one that we know nothing of."""
        if instance == self._me:
            return False
        if instance in self._left:
            return True
        if instance in self._vanished or instance not in self._values:
            return self.silent(instance)
        return self._silence(instance) > UNANSWERED

    def absent(self, instance: str) -> bool:
        """Whether others do its share of the work. A silent instance may come back and then finds its sandboxes."""
        return instance != self._me and (instance in self._left or self.silent(instance))

    def silent(self, instance: str) -> bool:
        """Whether its Lease has not changed for more than ``LEASE_DURATION`` seconds."""
        return self._silence(instance) > LEASE_DURATION

    def suspects(self) -> list[str]:
        """The instances to ask whether they live: silent, but not known to be dead."""
        return sorted(instance for instance in self._values if self.absent(instance) and not self.dead(instance))

    def alive(self) -> list[str]:
        """The instances that share the pools now, ourselves among them, sorted."""
        return sorted({self._me, *(instance for instance in self._values if not self.absent(instance))})

    def forget(self, but: Set[str]) -> None:
        """Forget the silent instances, except ``but``: those that a Lease or a pod still names.

        If one is named again later, its silence starts from 0.
        """
        for instance in [instance for instance in self._renewals if instance not in but and self.silent(instance)]:
            del self._renewals[instance]
            self._values.pop(instance, None)
            self._left.discard(instance)
            self._vanished.discard(instance)

    def _silence(self, instance: str) -> float:
        renewed = self._renewals.get(instance)
        return 0.0 if renewed is None else self.observed_time - renewed


class Election:
    """What this gateway knows of the election. Times are monotonic."""

    def __init__(self, me: str, membership: Membership) -> None:
        self._me = me
        self._membership = membership
        self._holder: str | None = None
        self._looked: float | None = None

    def observe(self, holder: str | None, now: float) -> bool:
        """The leader's Lease was read and names ``holder``. Returns whether this gateway should take it."""
        self._holder = holder
        self._looked = now
        return holder is None or self._membership.absent(holder)

    def won(self, now: float) -> None:
        """This gateway has taken the Lease."""
        self._holder = self._me
        self._looked = now

    def leads(self, now: float) -> bool:
        """Whether this gateway leads, as far as it knows."""
        return self._holder == self._me and self._looked is not None and now - self._looked <= STALE


def is_mine(uid: str, instance: str, instances: Collection[str]) -> bool:
    """Whether the pod is in the slice of ``instance``. Each pod is in exactly one slice of the same ``instances``.

    This is rendezvous hashing: when an instance comes or goes, only the pods of its own slice change hands.
    """
    pod = zlib.crc32(uid.encode())
    # Without the multiplication the checksum, which is linear, would make some slices several times as large as others.
    return instance == max(
        (*instances, instance), key=lambda one: ((pod ^ zlib.crc32(one.encode())) * _ODD & 0xFFFFFFFF, one)
    )
