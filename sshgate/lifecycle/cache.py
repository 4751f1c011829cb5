"""What one gateway knows: the pods as the watch told them, and what it has begun itself. Pure.

Three sources tell about a pod, in any order: the watch, lists, and the answers to our own requests. Rules that
make the order harmless:

* An account with a lower resource version than the known one is old and dropped. Where versions cannot be
  compared, a pod's state decides: it only grows (warm, claimed, draining), and deleting never ends. So a watch
  that lags behind our own patch cannot turn a pod we have taken into a warm one again.
* A pod that was seen to be gone stays gone: a late answer to a request does not bring it back. A uid is never
  used again.
* How long a pod has been ready, starting or finished is measured by our own clock from when we saw it; a pod
  that the very first list shows as ready for long is believed, with an allowance for the clocks of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.expectations import Expectations
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.schema import label_value, user_hash

# How far a node's clock, which writes "ready since", may be from the API server's.
SKEW = 10.0
# Uids that are gone are remembered for as long as an answer about them can still be under way.
REMEMBERED = 300.0
# Seconds from the request of a claim on: longer than an API server that works takes to answer and the watch to show it.
RESERVATION_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class CachedPod:
    """A pod, and since when (monotonic) we see it in its stage and in its state."""

    record: Record
    stage_since: float
    state_since: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """A session of this gateway that has, or is about to have, an ephemeral or new sandbox."""

    user: str
    uid: str | None = None


class PodCache:
    """One gateway's knowledge. All calls are synchronous; whoever decides reads and notes in one go."""

    def __init__(self, life: str) -> None:
        self.life = life
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
            f"<Book {states.count(State.WARM)} warm, {states.count(State.CLAIMED)} claimed, {going} going, "
            f"{len(self._sessions)} sessions, {self.expectations!r}>"
        )

    # --- what we are told ---

    def sync(self, records: Iterable[Record], now: Now, version: str = "") -> None:
        """The answer to a list: every pod there was at ``version``. What it does not show is gone.

        But not what an answer to a request of ours told of meanwhile, and which is newer than the list.
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
        """One account of one pod, from the watch or from an answer. False: it was old, nothing changed."""
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
        """The watch told the end of a pod, or an answer said that it does not exist."""
        self._gone = {old: until for old, until in self._gone.items() if until > now.mono}
        self._gone[uid] = now.mono + REMEMBERED
        known = self._pods.pop(uid, None)
        if known is not None:
            self.expectations.observe(known.record.name)
        self.expectations.undelete(uid)
        self._reservations.pop(uid, None)

    # --- what we begin ourselves ---

    def reserve(self, uid: str, session: str | None, now: Now) -> None:
        """The claim of ``session`` on this pod is under way (``None``: was lost): nobody else here tries it.

        For as long as the session waits for an answer, and for ``SPOKEN_FOR`` at least: if the pod is still warm
        then, the claim never arrived, and it is free again. Should it arrive yet, whoever comes second is refused.
        """
        if uid not in self._gone:
            self._reservations[uid] = (now.mono + RESERVATION_SECONDS, session)

    def begin(self, session: str, user: str) -> None:
        """A session was admitted: it counts from now on, whatever the watch shows."""
        self._sessions[session] = Reservation(user)

    def hold(self, session: str, uid: str) -> None:
        """The session has its sandbox. Any other pod that bears its id is a stray."""
        holding = self._sessions.get(session)
        if holding is not None:
            self._sessions[session] = replace(holding, uid=uid)

    def end(self, session: str) -> None:
        """The session is over; its ephemeral sandbox, if any, is to be deleted by whoever calls this."""
        self._sessions.pop(session, None)

    # --- what follows ---

    def sightings(self, now: Now) -> list[CachedPod]:
        """The pods that are there to stay: neither deleting nor about to be deleted by us."""
        return [
            one
            for one in self._pods.values()
            if not one.record.deleting and not self.expectations.deleting(one.record.uid, now.mono)
        ]

    def lives(self) -> set[str]:
        """All lives that stand on pods, as owners or as attached."""
        records = [one.record for one in self._pods.values()]
        return {life for record in records for life in (record.life, *record.attached) if life is not None}

    def get(self, uid: str) -> CachedPod | None:
        return self._pods.get(uid)

    def named(self, pod: str) -> Record | None:
        """The newest pod of this name, deleting or not."""
        found = [one.record for one in self._pods.values() if one.record.name == pod]
        return max(found, key=lambda record: (not record.deleting, record.created), default=None)

    def warm(self, now: Now) -> list[CachedPod]:
        """The warm pods that no claim of ours is after."""
        return [
            one
            for one in self.sightings(now)
            if one.record.state is State.WARM and self._reserved(one.record.uid, now) is None
        ]

    def _reserved(self, uid: str, now: Now) -> tuple[float, str | None] | None:
        reserved = self._reservations.get(uid)
        if reserved is None:
            return None
        until, session = reserved
        return reserved if until > now.mono or session in self._sessions else None

    def going(self, profile: str, now: Now) -> int:
        """Warm pods of a profile that are on their way out."""
        warm = [one.record for one in self._pods.values() if one.record.state is State.WARM]
        return sum(
            record.profile == profile and (record.deleting or self.expectations.deleting(record.uid, now.mono))
            for record in warm
        )

    def sessions(self) -> dict[str, Reservation]:
        """The sessions that have begun and not ended, by the value of the session label."""
        return {label_value(session): holding for session, holding in self._sessions.items()}

    def users(self, now: Now) -> dict[str, str]:
        """Every sandbox in use, in the cluster or about to be, as claim id -> user.

        A session that the watch already shows is counted once: the id on the pod is the session's. Users whose
        name is not on the pod are told by their hash.
        """
        used = {session: holding.user for session, holding in self.sessions().items()}
        for one in self.sightings(now):
            record = one.record
            if record.state is not State.WARM and record.counts:
                used.setdefault(record.session or record.uid, record.user or record.user_hash or "")
        return used

    def owned(self, user: str, now: Now) -> int:
        """Sandboxes of this user, by name or hash: names on pods are cut to what an annotation should hold."""
        names = (user, user_hash(user))
        by_hash = {
            one.record.session or one.record.uid: one.record.user_hash == user_hash(user)
            for one in self.sightings(now)
            if one.record.user_hash is not None
        }
        return sum(by_hash.get(claim, name in names) for claim, name in self.users(now).items())

    def total(self, now: Now) -> int:
        """Sandboxes of every kind: in use, about to be, warm, and warm ones that were asked for.

        A warm pod that a session of ours is claiming is that session's already, and not counted again.
        """
        warm = 0
        for one in self.sightings(now):
            if one.record.state is State.WARM and one.record.counts:
                reserved = self._reserved(one.record.uid, now)
                warm += reserved is None or reserved[1] not in self._sessions
        return len(self.users(now)) + warm + len(self.expectations.creates(now.mono))


def _age(record: Record, now: Now) -> float:
    """How long the first list says that the pod has been in its stage, less what clocks may differ."""
    since = record.ready_since if record.stage is Stage.READY else record.created
    return max(0.0, now.wall - since - SKEW) if since else 0.0


def _newer(known: Record, version: str) -> bool:
    """Whether the pod was written after the list was made; not, where versions cannot be compared."""
    return known.version.isdigit() and version.isdigit() and int(known.version) > int(version)


def _older(update: Record, cached: Record) -> bool:
    if update.version.isdigit() and cached.version.isdigit():
        return int(update.version) < int(cached.version)
    return update.state < cached.state or (cached.deleting and not update.deleting)
