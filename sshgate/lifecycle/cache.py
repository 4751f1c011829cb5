"""What one gateway knows: the pods as the watch reported them, and what it has begun itself. Pure.

Three sources report on a pod, in any order: the watch, lists, and the answers to our own requests. These rules make
the order harmless:

* A report with a lower resource version than the cached one is dropped as old. Where versions cannot be compared, the
  pod's state decides: it only advances (warm, claimed, draining), and a deletion is never undone. So a watch that lags
  behind our own patch cannot turn a pod that we have claimed into a warm one again.
* A pod that is gone stays gone: a late answer to a request does not bring it back. A uid is never used again.
* How long a pod has been ready, starting or finished is measured by our own clock from when we observed it. Only the
  ages in the very first list are taken from the cluster, less an allowance for the clocks of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.expectations import Expectations
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.schema import label_value, user_hash

# Seconds by which a node's clock, which writes "ready since", may differ from the API server's.
SKEW = 10.0
# Seconds for which the uid of a deleted pod is remembered: as long as an answer about it can still arrive.
REMEMBERED = 300.0
# Seconds from the request of a claim: longer than a working API server needs to answer and the watch to show it.
RESERVATION_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class CachedPod:
    """A pod, and since when (monotonic) we have observed it in its stage and in its state."""

    record: Record
    stage_since: float
    state_since: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """A session of this gateway that was admitted: it has, or is about to have, a sandbox (``uid``)."""

    user: str
    uid: str | None = None


class PodCache:
    """All that one gateway knows of pods and of its own sessions (client-go: an informer cache with expectations).

    All calls are synchronous, so that a decision and the note of it happen in one turn of the event loop.
    """

    def __init__(self, instance_id: str) -> None:
        self.life = instance_id
        self.expectations = Expectations()
        self.synced = False
        self._pods: dict[str, CachedPod] = {}
        self._gone: dict[str, float] = {}
        self._reservations: dict[str, tuple[float, str | None]] = {}
        self._sessions: dict[str, Reservation] = {}

    def __repr__(self) -> str:
        states = [one.record.state for one in self._pods.values() if not one.record.deleting]
        going = len(self._pods) - len(states)
        return (
            f"<PodCache {states.count(State.WARM)} warm, {states.count(State.CLAIMED)} claimed, {going} going, "
            f"{len(self._sessions)} sessions, {self.expectations!r}>"
        )

    # --- reports of the cluster ---

    def sync(self, records: Iterable[Record], now: Now, version: str = "") -> None:
        """Take the answer to a list: every pod there was at ``version``. Cached pods that it lacks are gone.

        A pod that is newer than the list stays: an answer to a request of ours reported it meanwhile.
        """
        listing = {record.uid: record for record in records}
        first = not self.synced
        self.synced = True
        missing = [uid for uid, one in self._pods.items() if uid not in listing and not _newer(one.record, version)]
        for uid in missing:
            self.gone(uid, now)
        for record in listing.values():
            new = record.uid not in self._pods
            self.observe(record, now)
            if first and new and record.uid in self._pods:
                since = now.mono - _age(record, now)
                self._pods[record.uid] = replace(self._pods[record.uid], stage_since=since)

    def observe(self, record: Record, now: Now) -> bool:
        """Take one report on one pod, from the watch or from an answer. Returns False if it was old and dropped."""
        self.expectations.observe(record.name)
        known = self._pods.get(record.uid)
        if record.uid in self._gone or (known is not None and _older(record, known.record)):
            return False
        if record.deleting:
            self.expectations.undelete(record.uid)
        same_stage = known is not None and known.record.stage is record.stage
        same_state = known is not None and known.record.state is record.state
        self._pods[record.uid] = CachedPod(
            record,
            known.stage_since if known is not None and same_stage else now.mono,
            known.state_since if known is not None and same_state else now.mono,
        )
        return True

    def gone(self, uid: str, now: Now) -> None:
        """The pod does not exist any more, by the watch or by an answer (404)."""
        self._gone = {old: until for old, until in self._gone.items() if until > now.mono}
        self._gone[uid] = now.mono + REMEMBERED
        known = self._pods.pop(uid, None)
        if known is not None:
            self.expectations.observe(known.record.name)
        self.expectations.undelete(uid)
        self._reservations.pop(uid, None)

    # --- what we begin ourselves ---

    def reserve(self, uid: str, session: str | None, now: Now) -> None:
        """Reserve the pod for ``session`` so that no other login here tries it; ``None`` marks a lost claim.

        The reservation lasts until the session ends, and for ``RESERVATION_SECONDS`` at least. If the pod is still
        warm then, the claim never arrived and the pod is free again; should it arrive after all, the API server
        refuses the second claim.
        """
        if uid not in self._gone:
            self._reservations[uid] = (now.mono + RESERVATION_SECONDS, session)

    def begin(self, session: str, user: str) -> None:
        """A session was admitted. It counts towards the limits from now on, whatever the watch shows."""
        self._sessions[session] = Reservation(user)

    def hold(self, session: str, uid: str) -> None:
        """The session has its sandbox. Any other pod that bears the session's id is an orphan from now on."""
        holding = self._sessions.get(session)
        if holding is not None:
            self._sessions[session] = replace(holding, uid=uid)

    def end(self, session: str) -> None:
        """The session is over. The caller deletes its ephemeral sandbox, if there is one."""
        self._sessions.pop(session, None)

    # --- queries ---

    def cached_pods(self, now: Now) -> list[CachedPod]:
        """The pods that are neither being deleted nor about to be deleted by us."""
        return [
            one
            for one in self._pods.values()
            if not one.record.deleting and not self.expectations.deleting(one.record.uid, now.mono)
        ]

    def lives(self) -> set[str]:
        """All gateway instances that are named on pods, as owners or as attached."""
        records = [one.record for one in self._pods.values()]
        return {life for record in records for life in (record.life, *record.attached) if life is not None}

    def get(self, uid: str) -> CachedPod | None:
        """The pod with this uid, also one that is being deleted."""
        return self._pods.get(uid)

    def named(self, pod: str) -> Record | None:
        """The pod of this name; of several one that is not being deleted, and of those the newest."""
        found = [one.record for one in self._pods.values() if one.record.name == pod]
        return max(found, key=lambda record: (not record.deleting, record.created), default=None)

    def warm(self, now: Now) -> list[CachedPod]:
        """The warm pods that are not reserved."""
        return [
            one
            for one in self.cached_pods(now)
            if one.record.state is State.WARM and self._reserved(one.record.uid, now) is None
        ]

    def _reserved(self, uid: str, now: Now) -> tuple[float, str | None] | None:
        reserved = self._reservations.get(uid)
        if reserved is None:
            return None
        until, session = reserved
        return reserved if until > now.mono or session in self._sessions else None

    def deleting(self, profile: str, now: Now) -> int:
        """The number of warm pods of a profile that are being deleted or about to be."""
        warm = [one.record for one in self._pods.values() if one.record.state is State.WARM]
        return sum(
            record.profile == profile and (record.deleting or self.expectations.deleting(record.uid, now.mono))
            for record in warm
        )

    def sessions(self) -> dict[str, Reservation]:
        """The admitted sessions that have not ended, by the value of the session label."""
        return {label_value(session): holding for session, holding in self._sessions.items()}

    def users(self, now: Now) -> dict[str, str]:
        """Every sandbox in use, in the cluster or about to be, as claim id -> user.

        A session whose pod the watch already shows is counted once, because the pod bears the session's id. Where a
        pod lacks the user's name, the hash stands for it.
        """
        used = {session: holding.user for session, holding in self.sessions().items()}
        for one in self.cached_pods(now):
            record = one.record
            if record.state is not State.WARM and record.counts:
                used.setdefault(record.session or record.uid, record.user or record.user_hash or "")
        return used

    def owned(self, user: str, now: Now) -> int:
        """The number of sandboxes of this user. The hash decides where there is one: names on pods may be cut."""
        names = (user, user_hash(user))
        by_hash = {
            one.record.session or one.record.uid: one.record.user_hash == user_hash(user)
            for one in self.cached_pods(now)
            if one.record.user_hash is not None
        }
        return sum(by_hash.get(claim, name in names) for claim, name in self.users(now).items())

    def total(self, now: Now) -> int:
        """The number of sandboxes of every kind: in use, about to be, warm, and warm ones that were requested.

        A warm pod that a session of ours is claiming counts once, as that session's.
        """
        warm = 0
        for one in self.cached_pods(now):
            if one.record.state is State.WARM and one.record.counts:
                reserved = self._reserved(one.record.uid, now)
                warm += reserved is None or reserved[1] not in self._sessions
        return len(self.users(now)) + warm + len(self.expectations.creates(now.mono))


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
