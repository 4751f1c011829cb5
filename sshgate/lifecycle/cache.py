"""What one gateway knows: the pods as the watch reported them, and what it has begun itself. Pure.

Three sources report on a pod, in any order: the watch, lists, and the answers to our own requests. These rules make
the order harmless:

* A report with a lower resource version than the cached one is dropped as old. Where versions cannot be compared, the
  pod's state decides: it only advances (warm, claimed, draining), and a deletion is never undone. So a watch that lags
  behind our own patch cannot turn a pod that we have claimed into a warm one again.
* A pod that is gone stays gone: a late answer to a request does not bring it back. A uid is never used again.
* How long a pod has been ready, starting or finished is measured by our own clock from when we observed it. Only the
  ages in the very first list are taken from the cluster, less an allowance for the clocks of nodes.

Everything that decisions ask for is kept in indexes, which each change of a pod updates. So a login, an event of the
watch and a pass of the pools cost the same with ten thousand pods as with ten.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from dataclasses import dataclass, replace

from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.expectations import Expectations, Expiring
from sshgate.lifecycle.indexes import CachedPod, Index, Key, Patterns, PodIndexes, Standing, WarmPool
from sshgate.lifecycle.membership import is_mine
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.schema import label_value, user_hash

# Seconds by which a node's clock, which writes "ready since", may differ from the API server's.
SKEW = 10.0
# Seconds for which the uid of a deleted pod is remembered: as long as an answer about it can still arrive.
REMEMBERED = 300.0
# Seconds from the request of a claim: longer than a working API server needs to answer and the watch to show it.
RESERVATION_SECONDS = 15.0
# Pods that are given to another slice in one turn of the event loop: half a millisecond.
SHARED_AT_ONCE = 20
# Nodes that a claim looks at, fullest first, for a pod that has settled.
NODES_TRIED = 8


@dataclass(frozen=True, slots=True)
class Reservation:
    """A session of this gateway that was admitted: it has, or is about to have, a sandbox (``uid``)."""

    user: str
    uid: str | None = None


class PodCache:
    """All that one gateway knows of pods and of its own sessions (client-go: an indexed informer cache).

    All calls are synchronous, so that a decision and the note of it happen in one turn of the event loop. A pod is
    visible in the queries unless it is being deleted or we are about to delete it.
    """

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.expectations = Expectations(self._update)
        self.synced = False
        self.parkable_changed: Callable[[str], None] = lambda _: None
        """Called with the uid of a pod when ``parkable`` may answer differently."""
        self._pods: dict[str, CachedPod] = {}
        self._indexes = PodIndexes(lambda key: self.parkable_changed(key[-1]))
        self._gone = Expiring()
        self._sessions: dict[str, Reservation] = {}
        self._reserved: dict[str, str | None] = {}
        self._reserved_until = Expiring()
        self._reserved_by: Index[str] = Index()
        self._instances: tuple[str, ...] = (instance,)
        self._to_share: list[str] = []

    def __repr__(self) -> str:
        visible = sum(len(self._indexes.phases[group]) for group in self._indexes.phases)
        claimed = sum(len(self._indexes.phases[group]) for group in self._indexes.phases if group[1] == "claimed")
        return (
            f"<PodCache {visible - claimed} warm, {claimed} claimed, {len(self._pods) - visible} going, "
            f"{len(self._sessions)} sessions, {self.expectations!r}>"
        )

    # --- reports of the cluster ---

    def sync(self, records: Iterable[Record], now: Now, version: str = "") -> None:
        """Take the answer to a list: every pod there was at ``version``. Cached pods that it lacks are gone.

        A pod that is newer than the list stays: an answer to a request of ours reported it meanwhile.
        """
        listing = list(records)
        for record in listing:
            self.observe(record, now)
        self.prune({record.uid for record in listing}, now, version)

    def prune(self, uids: Set[str], now: Now, version: str) -> None:
        """A list at ``version`` had these pods, and each was observed: now forget the others, as ``sync`` does."""
        self.synced = True
        for uid in [uid for uid, one in self._pods.items() if uid not in uids and not _newer(one.record, version)]:
            self.gone(uid, now)

    def observe(self, record: Record, now: Now) -> bool:
        """Take one report on one pod, from the watch or from an answer. Returns False if it was old and dropped."""
        self._current(now)
        self.expectations.observe(record.name)
        known = self._pods.get(record.uid)
        if record.uid in self._gone or (known is not None and _older(record, known.record)):
            return False
        if known is None:
            # Before the first list is complete, only the pod's own times show for how long it has been ready.
            age = 0.0 if self.synced else _age(record, now)
            self._pods[record.uid] = CachedPod(record, now.mono - age, now.mono)
        elif record == known.record:
            return True
        else:
            self._pods[record.uid] = CachedPod(
                record,
                known.stage_since if known.record.stage is record.stage else now.mono,
                known.state_since if known.record.state is record.state else now.mono,
                known.fenced,
            )
        if record.deleting:
            self.expectations.undelete(record.uid)
        self._update(record.uid)
        return True

    def fence(self, uid: str) -> None:
        """A launcher has found that the network policy is in force in the pod: it need not settle."""
        known = self._pods.get(uid)
        if known is not None:
            self._pods[uid] = replace(known, fenced=True)
            self._update(uid)

    def gone(self, uid: str, now: Now) -> None:
        """The pod does not exist any more, by the watch or by an answer (404)."""
        self._current(now)
        self._gone.put(uid, now.mono + REMEMBERED)
        known = self._pods.pop(uid, None)
        if known is not None:
            self.expectations.observe(known.record.name)
        self.expectations.undelete(uid)
        self._release(uid)

    # --- what we begin ourselves ---

    def reserve(self, uid: str, session: str | None, now: Now) -> None:
        """Reserve the pod for ``session`` so that no other login here tries it; ``None`` marks a lost claim.

        The reservation lasts until the session ends, and for ``RESERVATION_SECONDS`` at least. If the pod is still
        warm then, the claim never arrived and the pod is free again; should it arrive after all, the API server
        refuses the second claim.
        """
        self._current(now)
        if uid in self._gone:
            return
        if uid in self._reserved:
            self._release(uid)
        self._reserved[uid] = label = None if session is None else label_value(session)
        self._reserved_until.put(uid, now.mono + RESERVATION_SECONDS)
        if label is not None:
            self._reserved_by.add(label, (uid,))
        self._update(uid)

    def begin(self, session: str, user: str) -> None:
        """A session was admitted. It counts towards the limits from now on, whatever the watch shows."""
        self.end(session)
        label = label_value(session)
        self._sessions[label] = Reservation(user)
        self._indexes.claims.add(label, _session_key(user))
        self._update_session(label)

    def hold(self, session: str, uid: str) -> None:
        """The session has its sandbox. Any other pod that bears the session's id is an orphan from now on."""
        label = label_value(session)
        known = self._sessions.get(label)
        if known is not None:
            self._sessions[label] = replace(known, uid=uid)
            self._update_session(label)

    def end(self, session: str) -> None:
        """The session is over. The caller deletes its ephemeral sandbox, if there is one."""
        label = label_value(session)
        known = self._sessions.pop(label, None)
        if known is not None:
            self._indexes.claims.remove(label, _session_key(known.user))
            self._update_session(label)

    # --- queries ---

    def record(self, key: Key) -> Record:
        """The pod of a key of an index."""
        return self._pods[key[-1]].record

    def pod(self, uid: str) -> Record | None:
        """The pod with this uid."""
        one = self._pods.get(uid)
        return None if one is None else one.record

    def is_gone(self, uid: str) -> bool:
        """Whether the pod existed and does not any more."""
        return uid in self._gone

    def sandboxes(self, user: str, name: str) -> list[Record]:
        """The pods that bear this name of this user, those that are not being deleted first, of these the newest."""
        return self._records(self._indexes.by_sandbox[user_hash(user), label_value(name)])

    def same_name(self, record: Record) -> list[Record]:
        """The pods that bear the same name of the same user as this one, itself among them."""
        name = record.sandbox
        return [] if name is None else self._records(self._indexes.by_sandbox[record.user_hash, name])

    def named(self, pod: str) -> Record | None:
        """The pod of this name; of several one that is not being deleted, and of those the newest."""
        keys = self._indexes.by_name[pod]
        return self.record(keys[0]) if keys else None

    def instances(self) -> Collection[str]:
        """All gateway instances that are named on pods, as owners or as attached."""
        return tuple(self._indexes.by_instance)

    def claimed(self, now: Now) -> list[Record]:
        """All visible pods that are not warm, oldest claim first. This walks over all pods: for operators only."""
        self._current(now)
        claimed = [one.record for one in self._pods.values() if one.record.state is not State.WARM]
        return sorted(filter(self._is_visible, claimed), key=Record.claim_order)

    def warm(self, now: Now) -> list[CachedPod]:
        """All warm pods that are not reserved. This walks over them: for the end of a gateway only."""
        return [self._pods[key[-1]] for pool in self._current(now).pools for key in self._indexes.pools[pool]]

    def counts(self, now: Now) -> dict[tuple[str, ...], int]:
        """The number of visible pods by profile and ``Record.phase``."""
        phases = self._current(now).phases
        return {group: len(phases[group]) for group in phases}

    def total(self, now: Now) -> int:
        """The number of sandboxes of every kind: in use, about to be, warm, and warm ones that were requested.

        A warm pod that a session of ours is claiming counts once, as that session's.
        """
        return len(self._current(now).claims) + len(self._indexes.spare[None]) + len(self.expectations.creates)

    # In use, or about to be: the sessions here that were admitted, and the pods of all gateways that are not warm. A
    # session whose pod the watch already shows counts once, because the pod bears the session's id.

    def in_use(self, now: Now) -> int:
        """The number of sandboxes in use."""
        return len(self._current(now).claims)

    def owned(self, user: str, now: Now) -> int:
        """The number of sandboxes in use of this user. The hash decides: names on pods may be cut."""
        return self._current(now).claims.owned[user_hash(user)]

    def owned_by_group(self, patterns: Patterns, now: Now) -> int:
        """The number of sandboxes in use of the users whose name matches one of the patterns."""
        return self._current(now).claims.matching(patterns)

    def of_user(self, user: str, now: Now) -> list[Record]:
        """The visible pods that are claimed for this user, by the label with the user's hash; oldest claim first."""
        return self._records(self._current(now).by_user[user_hash(user)])

    def of_session(self, session: str, now: Now) -> list[Record]:
        """The visible pods that bear this session's id."""
        return self._records(self._current(now).by_session[label_value(session)])

    def attached(self, instance: str, now: Now) -> list[Record]:
        """The visible named sandboxes to which this gateway instance is attached."""
        return self._records(self._current(now).attached[instance])

    def knows_session(self, label: str | None) -> bool:
        """Whether this is the label of an admitted session that has not ended."""
        return label in self._sessions

    # --- queries about warm pods ---

    def share(self, instances: Sequence[str]) -> bool:
        """The gateway instances that share the warm pods: each has a slice of its own, see ``is_mine``.

        After a change a few pods go over to their new slice with each call; returns whether all have.
        """
        instances = tuple(instances)
        if instances != self._instances:
            self._instances = instances
            ready = (key[-1] for group in self._indexes.ready for key in self._indexes.ready[group])
            self._to_share = [*ready, *self._reserved]
        for uid in self._to_share[-SHARED_AT_ONCE:]:
            self._update(uid)
        del self._to_share[-SHARED_AT_ONCE:]
        return not self._to_share

    def settled(self, template: str, mine: bool, since: float, now: Now, chance: int | None = None) -> Record | None:
        """The warm pod to claim first, or the one that ``chance`` hits: of this template, in our slice or not.

        It is fenced, or ready at ``since`` (monotonic) already. It is on the node that has most of them, which keeps
        the nodes even; there it is a fenced one if possible, and has been ready longest. Where the ``NODES_TRIED``
        fullest nodes have none, it is the first of all in this order.
        """
        ready = self._current(now).ready[template, mine]
        # Sorts after all that are fenced or have settled.
        limit = (True, since, math.inf)
        if not ready or ready[0] > limit:
            return None
        if chance is not None:
            return self.record(ready[chance % bisect_left(ready, limit)])
        on = self._indexes.ready_on
        firsts = (on[(template, mine), node][0] for _, node in on.ranks[template, mine][:NODES_TRIED])
        key = next((key for key in firsts if key <= limit), ready[0])
        return self.record(key)

    def newest_ready(self, template: str) -> float:
        """Since when (monotonic) the pod of this template is ready that became so last; unreserved ones only."""
        newest = [-math.inf]
        for keys in (self._indexes.ready[template, mine] for mine in (True, False)):
            # The last of those that are fenced, and of those that are not.
            newest += [keys[end - 1][1] for end in (bisect_left(keys, (True,)), len(keys)) if end]
        return max(newest)

    def pools(self, now: Now) -> list[WarmPool]:
        """The pools that have a warm pod which is not reserved."""
        pools = self._current(now).pools
        return [WarmPool(*group, pools[group]) for group in pools]

    def starting(self, profile: str, since: float) -> list[Record]:
        """The unreserved warm pods of a profile that have been starting since then (monotonic) or longer."""
        return self._records(self._indexes.starting.until(profile, since))

    def leaving(self, profile: str) -> int:
        """The number of warm pods of a profile that are being deleted or about to be."""
        return len(self._indexes.leaving[profile])

    def login_waits(self, now: Now) -> bool:
        """Whether a pod that a login has, or is claiming, waits for a node."""
        return bool(self._current(now).waiting[None])

    def parkable(self, uid: str) -> Record | None:
        """The pod, if launchers can be parked in it: it is warm, in our slice, and programs can run in it."""
        one = self._pods.get(uid)
        if one is None or one.record.state is not State.WARM or one.record.session is not None:
            return None
        standing = self._standing(one.record)
        return one.record if standing.visible and standing.mine else None

    def all_parkable(self) -> list[str]:
        """The uids of all that ``parkable`` accepts."""
        parkable = self._indexes.parkable
        return [key[-1] for profile in parkable for key in parkable[profile]]

    # --- queries about claimed pods, for ``reap_plan`` ---

    def unowned(self, since: float, now: Now) -> list[Record]:
        """The ephemeral pods that this instance has claimed by then (monotonic) and none of its sessions uses."""
        return self._records(self._current(now).unowned.until(None, since))

    def candidates(
        self, dead: Callable[[str], bool], kept: Callable[[str, float | None], float], now: Now
    ) -> list[CachedPod]:
        """The claimed pods that may have to go: of dead gateway instances, or ended, or left for long.

        Args:
            dead: whether a gateway instance is dead.
            kept: seconds for which a named sandbox is kept, by its profile and the time promised on its pod.
        """
        indexes = self._current(now)
        keys = [*indexes.ending[None]]
        for instance in indexes.ephemeral:
            if instance is None or dead(instance):
                keys += indexes.ephemeral[instance]
        for instance in indexes.attached:
            if dead(instance):
                keys += indexes.attached[instance]
        for profile, promised in indexes.detached:
            # A little more than are due: the caller's own rule decides.
            keys += indexes.detached.until((profile, promised), now.wall - kept(profile, promised) + 1.0)
        found = (self._pods[uid] for uid in dict.fromkeys(key[-1] for key in keys))
        return [one for one in found if one.record.state in (State.CLAIMED, State.DRAINING)]

    # --- the indexes ---

    def _update(self, uid: str) -> None:
        one = self._pods.get(uid)
        self._indexes.update(uid, one, None if one is None else self._standing(one.record))

    def _update_session(self, session: str) -> None:
        """Update the pods on which the session bears, by its label."""
        for (uid,) in (*self._indexes.by_session[session], *self._reserved_by[session]):
            overdue = self._reserved.get(uid) == session and uid not in self._reserved_until
            if overdue and session not in self._sessions:
                self._release(uid)
            self._update(uid)

    def _standing(self, record: Record) -> Standing:
        uid, reservation = record.uid, self._sessions.get(record.session or "")
        ours = record.instance == self.instance and record.state is State.CLAIMED and record.sandbox is None
        return Standing(
            visible=self._is_visible(record),
            reserved=uid in self._reserved,
            counted=self._reserved.get(uid) in self._sessions,
            mine=record.state is State.WARM and record.usable and is_mine(uid, self.instance, self._instances),
            unowned=ours and (reservation is None or (reservation.uid is not None and reservation.uid != uid)),
        )

    def _is_visible(self, record: Record) -> bool:
        return not record.deleting and not self.expectations.deleting(record.uid)

    def _current(self, now: Now) -> PodIndexes:
        """Forget what was expected or reserved too long ago. Returns the indexes, for a query that depends on it."""
        self._gone.pop_expired(now.mono)
        self.expectations.expire(now.mono)
        for uid in self._reserved_until.pop_expired(now.mono):
            if self._reserved[uid] not in self._sessions:
                self._release(uid)
        return self._indexes

    def _release(self, uid: str) -> None:
        self._reserved_until.pop(uid, None)
        session = self._reserved.pop(uid, None)
        if session is not None:
            self._reserved_by.remove(session, (uid,))
        self._update(uid)

    def _records(self, keys: Iterable[Key]) -> list[Record]:
        return [self.record(key) for key in keys]


def _session_key(user: str) -> Key:
    """The key of a session in ``Claims``: before those of the pods that bear its id."""
    return 0, user_hash(user), user, ""


def _age(record: Record, now: Now) -> float:
    """Seconds for which the pod has been in its stage by the times on it, less what clocks may differ."""
    since = record.ready_since if record.stage is Stage.READY else record.created
    return max(0.0, now.wall - since - SKEW) if since else 0.0


def _newer(known: Record, version: str) -> bool:
    """Whether the pod was written after the list was made; False where versions cannot be compared."""
    return known.version.isdigit() and version.isdigit() and int(known.version) > int(version)


def _older(update: Record, cached: Record) -> bool:
    if update.version.isdigit() and cached.version.isdigit():
        return int(update.version) < int(cached.version)
    return update.state < cached.state or (cached.deleting and not update.deleting)
