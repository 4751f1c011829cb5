"""What nobody needs any more. Pure.

Three layers, each sufficient without the others: the kubelet ends every claimed pod at its deadline; the leader
deletes what dead gateways left behind (``reap``); the owner reference of all pods is the installation's. On top,
each gateway deletes pods that bear its own mark and belong to none of its sessions (``strays``).

The maximum lifetime is not judged here by times on the pod: the kubelet does that from the pod's own start,
and a pod it has ended is "finished" to us. So a clock that jumps cannot end a sandbox somebody works in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sshgate.lifecycle.actions import Delete, Detach
from sshgate.lifecycle.cache import CachedPod, PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.membership import Membership
from sshgate.lifecycle.records import Record, Stage, State

# The gateway that is alive gets this long to tell its user how a pod ended before the leader removes it.
LAST_WORDS = 30.0
# A claim of ours shows in the watch before the session knows of it; and deletions under way take their time.
STRAY = 10.0
# Clocks of several gateways wrote the times on a pod; nothing is ended for less than they may differ.
LEAST_DETACHED = 10.0


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds that a named sandbox is kept without clients, by profile.

    Of a profile that this gateway does not know (no longer configured, or not here yet) it is kept for what its pod
    says, and ``otherwise`` where that says nothing: a leader never shortens what another gateway has promised.
    """

    detached: Mapping[str, float] = field(default_factory=dict)
    otherwise: float = 600.0

    def kept(self, record: Record) -> float:
        """For how long this one is kept."""
        promised = record.kept_for if record.kept_for is not None else self.otherwise
        return max(self.detached.get(record.profile, promised), LEAST_DETACHED)


def reap(book: PodCache, presence: Membership, rules: Rules, now: Now) -> list[Delete | Detach]:
    """All that the leader is to remove now. Warm pods are the business of ``plan``.

    Deletions are expected by the book at once, so that the next pass does not ask for them again.
    """
    if not book.synced:
        return []
    actions: list[Delete | Detach] = []
    for one in book.sightings(now):
        if one.record.state in (State.CLAIMED, State.DRAINING):
            actions += _named(one, presence, rules, now) if one.record.sandbox else _ephemeral(one, presence, now)
    return _is_attached(book, actions, now)


def orphans(book: PodCache, now: Now) -> list[Delete]:
    """Pods that this very life has claimed and that no session of it uses.

    So ends a claim whose patch arrived after everybody had given up on it, and a sandbox whose deletion failed.
    """
    sessions = book.sessions()
    found = []
    for one in book.sightings(now):
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
        # Without a life nobody can be asked. Nobody but a person with kubectl makes such a pod.
        return [Delete(record, "its gateway is gone", untouched=False)]
    if record.stage is Stage.FINISHED and now.mono - one.stage_since >= LAST_WORDS:
        return [Delete(record, f"ended ({record.reason or 'no reason given'})", untouched=False)]
    return []


def _named(one: CachedPod, presence: Membership, rules: Rules, now: Now) -> list[Delete | Detach]:
    """A named sandbox belongs to its user, not to the gateway that made it, and outlives all of them.

    Every deletion of a live one is ``untouched``: somebody who joins at this moment changes the resource
    version and keeps it. Whoever joins later is shown the deletion and waits (``join``).
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
        # Nobody was ever in it; who comes back has it made anew, from what is configured then.
        return [Delete(record, f"could not start ({record.reason})", untouched=True)]
    if since >= rules.kept(record):
        return [Delete(record, "nobody came back", untouched=True, unless_busy=True)]
    return []


def _is_starting(record: Record, presence: Membership) -> bool:
    """Whether it was never attached to, and its maker, who is alive, is still starting it."""
    never = record.detached_at is None and record.last_seen is None
    return never and record.stage is not Stage.READY and record.life is not None and not presence.dead(record.life)


def _left_at(record: Record) -> float:
    """Since when, by the API server's clock, nobody is there and nothing runs, as far as the pod tells."""
    times = (record.detached_at, record.last_seen, record.claimed_at, record.created)
    return max(time for time in times if time is not None)


def _is_attached(book: PodCache, actions: list[Delete | Detach], now: Now) -> list[Delete | Detach]:
    for action in actions:
        if isinstance(action, Delete):
            book.expectations.delete(action.record.uid, now.mono)
    return actions
