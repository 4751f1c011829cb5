"""Decides what nobody needs any more. Pure.

Three layers, each sufficient without the others: the kubelet ends every claimed pod at its deadline; the leader deletes
what dead gateways left (``reap``); all pods have the installation's object as owner, so deleting that deletes them. In
addition, each gateway deletes pods that bear its own mark and belong to none of its sessions (``orphans``).

The maximum lifetime is not judged here by the times on a pod: the kubelet enforces it from the pod's own start, and
we see such a pod as finished. So a clock that jumps cannot end a sandbox that is in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sshgate.lifecycle.actions import Delete, Detach
from sshgate.lifecycle.cache import CachedPod, PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.membership import Membership
from sshgate.lifecycle.records import Record, Stage, State

# Seconds for which the leader keeps a finished pod, so that its gateway can report to its user how it ended.
LAST_WORDS = 30.0
# Seconds: the watch may show a claim of ours before the session has the answer, and deletions take some time.
STRAY = 10.0
# Seconds: times on a pod were written by several gateways, so a shorter time without clients ends nothing.
LEAST_DETACHED = 10.0


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds for which a named sandbox is kept without clients, by profile.

    For a profile that this gateway does not know (not configured any more, or not yet) the time written on the pod
    counts, and ``otherwise`` where there is none: a leader does not shorten what another gateway has promised.
    """

    detached: Mapping[str, float] = field(default_factory=dict)
    otherwise: float = 600.0

    def kept(self, record: Record) -> float:
        """Seconds for which this sandbox is kept."""
        promised = record.kept_for if record.kept_for is not None else self.otherwise
        return max(self.detached.get(record.profile, promised), LEAST_DETACHED)


def reap(book: PodCache, presence: Membership, rules: Rules, now: Now) -> list[Delete | Detach]:
    """All that the leader is to remove now, except warm pods (``pool_plan``); nothing before the cache is synced.

    The cache expects the returned deletions at once, so that the next pass does not repeat them.
    """
    if not book.synced:
        return []
    actions: list[Delete | Detach] = []
    for one in book.cached_pods(now):
        if one.record.state in (State.CLAIMED, State.DRAINING):
            actions += _named(one, presence, rules, now) if one.record.sandbox else _ephemeral(one, presence, now)
    return _expect_deletions(book, actions, now)


def orphans(book: PodCache, now: Now) -> list[Delete]:
    """Deletions of ephemeral pods that this gateway instance has claimed and none of its sessions uses.

    They come from claims whose patch arrived after the login had given up, and from failed deletions. The cache expects
    the deletions at once.
    """
    sessions = book.sessions()
    found = []
    for one in book.cached_pods(now):
        record = one.record
        ours = record.life == book.life and record.state is State.CLAIMED and record.sandbox is None
        if not ours or now.mono - one.state_since < STRAY:
            continue
        holding = sessions.get(record.session or "")
        if holding is None or (holding.uid is not None and holding.uid != record.uid):
            found.append(Delete(record, "claimed by no session", untouched=False))
            book.expectations.delete(record.uid, now.mono)
    return found


def _ephemeral(one: CachedPod, presence: Membership, now: Now) -> list[Delete | Detach]:
    record = one.record
    if record.life is None or presence.dead(record.life):
        # A claimed pod without an instance id was edited by hand, and no gateway can be asked about it.
        return [Delete(record, "its gateway is gone", untouched=False)]
    if record.stage is Stage.FINISHED and now.mono - one.stage_since >= LAST_WORDS:
        return [Delete(record, f"ended ({record.reason or 'no reason given'})", untouched=False)]
    return []


def _named(one: CachedPod, presence: Membership, rules: Rules, now: Now) -> list[Delete | Detach]:
    """A named sandbox belongs to its user, not to the gateway that made it, and outlives gateways.

    Every deletion of a running one is ``untouched``: a login that joins at this moment changes the resource version,
    and the deletion is refused. A login that joins later observes the deletion and waits (``join``).
    """
    record = one.record
    if record.stage is Stage.FINISHED:
        alone = all(presence.dead(life) for life in record.attached)
        if alone or now.mono - one.stage_since >= LAST_WORDS:
            return [Delete(record, f"ended ({record.reason or 'no reason given'})", untouched=False)]
        return []
    detach: list[Delete | Detach] = [Detach(record, life) for life in sorted(record.attached) if presence.dead(life)]
    if record.attached:
        return detach
    if record.state is State.DRAINING:
        return [Delete(record, "drained", untouched=True)]
    if _is_starting(record, presence):
        return []
    since = now.wall - _left_at(record)
    if record.stage in (Stage.BLOCKED, Stage.UNSCHEDULABLE) and since >= LEAST_DETACHED:
        # It was never used. The next login has it made again, from the configuration of that time.
        return [Delete(record, f"could not start ({record.reason})", untouched=True)]
    if since >= rules.kept(record):
        return [Delete(record, "nobody came back", untouched=True, unless_busy=True)]
    return []


def _is_starting(record: Record, presence: Membership) -> bool:
    """Whether it never had clients, is not ready, and the gateway that makes it lives."""
    never = record.detached_at is None and record.last_seen is None
    return never and record.stage is not Stage.READY and record.life is not None and not presence.dead(record.life)


def _left_at(record: Record) -> float:
    """Since when, by the API server's clock, it has no clients and runs nothing, as far as is written on the pod."""
    times = (record.detached_at, record.last_seen, record.claimed_at, record.created)
    return max(time for time in times if time is not None)


def _expect_deletions(book: PodCache, actions: list[Delete | Detach], now: Now) -> list[Delete | Detach]:
    for action in actions:
        if isinstance(action, Delete):
            book.expectations.delete(action.record.uid, now.mono)
    return actions
