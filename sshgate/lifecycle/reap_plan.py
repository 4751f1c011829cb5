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

from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.indexes import CachedPod
from sshgate.lifecycle.membership import Membership
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.requests import Delete, Detach
from sshgate.lifecycle.schema import pod_of

# Seconds for which the leader keeps a finished pod, so that its gateway can report to its user how it ended.
FINISHED_SECONDS = 30.0
# Seconds: the watch may show a claim of ours before the session has the answer, and deletions take some time.
ORPHAN_SECONDS = 10.0
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

    def kept(self, profile: str, promised: float | None) -> float:
        """Seconds for which a sandbox of this profile is kept; ``promised`` is the time on its pod."""
        return max(self.detached.get(profile, self.otherwise if promised is None else promised), LEAST_DETACHED)


def reap(cache: PodCache, membership: Membership, rules: Rules, now: Now) -> list[Delete | Detach]:
    """All that the leader is to remove now, except warm pods (``pool_plan``); nothing before the cache is synced.

    The cache expects the returned deletions at once, so that the next pass does not repeat them.
    """
    if not cache.synced:
        return []
    actions: list[Delete | Detach] = []
    for one in cache.candidates(membership.dead, rules.kept, now):
        if one.record.sandbox is None:
            actions += _ephemeral(one, membership, now)
        else:
            actions += _superseded(cache, one.record, membership) or _named(one, membership, rules, now)
    for action in actions:
        if isinstance(action, Delete):
            cache.expectations.delete(action.record.uid, now.mono)
    return actions


def orphans(cache: PodCache, now: Now) -> list[Delete]:
    """Deletions of ephemeral pods that this gateway instance has claimed and none of its sessions uses.

    They come from claims whose patch arrived after the login had given up, and from failed deletions. The cache expects
    the deletions at once.
    """
    found = cache.unowned(now.mono - ORPHAN_SECONDS, now)
    for record in found:
        cache.expectations.delete(record.uid, now.mono)
    # Untouched: another gateway may find one that was claimed for a name, and give it to its user at this moment.
    return [Delete(record, "claimed by no session", untouched=True) for record in found]


def _ephemeral(one: CachedPod, membership: Membership, now: Now) -> list[Delete | Detach]:
    record = one.record
    if record.instance is None or membership.dead(record.instance):
        # A claimed pod without an instance id was edited by hand, and no gateway can be asked about it.
        return [Delete(record, "its gateway is gone", untouched=record.to_be_named)]
    if record.stage is Stage.FINISHED and now.mono - one.stage_since >= FINISHED_SECONDS:
        return [Delete(record, f"ended ({record.reason or 'no reason given'})", untouched=False)]
    return []


def _superseded(cache: PodCache, record: Record, membership: Membership) -> list[Delete | Detach]:
    """A pod that was made for a name while another gateway took a warm one for it, and whose gateway is gone."""
    if not record.attached or not all(membership.dead(instance) for instance in record.attached):
        return []
    named = record.sandbox is not None and record.name == pod_of(record.user_hash or "", record.sandbox)
    others = cache.same_name(record) if named else []
    # One that was warm bears the name only if it has it (``naming``).
    if any(other.counts and other.name != record.name for other in others):
        return [Delete(record, "another one has its name", untouched=True)]
    return []


def _named(one: CachedPod, membership: Membership, rules: Rules, now: Now) -> list[Delete | Detach]:
    """A named sandbox belongs to its user, not to the gateway that made it, and outlives gateways.

    Every deletion of a running one is ``untouched``: a login that joins at this moment changes the resource version,
    and the deletion is refused. A login that joins later observes the deletion and waits (``join``).
    """
    record = one.record
    if record.stage is Stage.FINISHED:
        alone = all(membership.dead(instance) for instance in record.attached)
        if alone or now.mono - one.stage_since >= FINISHED_SECONDS:
            return [Delete(record, f"ended ({record.reason or 'no reason given'})", untouched=False)]
        return []
    detach: list[Delete | Detach] = [
        Detach(record, instance) for instance in sorted(record.attached) if membership.dead(instance)
    ]
    if record.attached:
        return detach
    if record.state is State.DRAINING:
        return [Delete(record, "drained", untouched=True)]
    if _is_starting(record, membership):
        return []
    since = now.wall - record.left_at
    if record.stage in (Stage.BLOCKED, Stage.UNSCHEDULABLE) and since >= LEAST_DETACHED:
        # It was never used. The next login has it made again, from the configuration of that time.
        return [Delete(record, f"could not start ({record.reason})", untouched=True)]
    if since >= rules.kept(record.profile, record.kept_for):
        return [Delete(record, "nobody came back", untouched=True, unless_busy=True)]
    return []


def _is_starting(record: Record, membership: Membership) -> bool:
    """Whether it never had clients, is not ready, and the gateway that makes it lives."""
    never = record.detached_at is None and record.last_seen is None and record.stage is not Stage.READY
    return never and record.instance is not None and not membership.dead(record.instance)
