"""What ``PodCache`` answers, found again for each question by walking over all pods: the plain way, to compare with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from sshgate.config.values import matches
from sshgate.lifecycle.cache import NODES_TRIED, REMEMBERED, RESERVATION_SECONDS, SKEW
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.expectations import EXPIRY
from sshgate.lifecycle.indexes import USEFULNESS, CachedPod
from sshgate.lifecycle.membership import Membership, is_mine
from sshgate.lifecycle.reap_plan import ORPHAN_SECONDS, Rules, _ephemeral, _named
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.schema import user_hash


class RecountedCache:
    """Takes the same events as a ``PodCache`` and keeps no index."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.instances: tuple[str, ...] = (instance,)
        self.pods: dict[str, CachedPod] = {}
        self.gone_until: dict[str, float] = {}
        self.reserved: dict[str, tuple[float, str | None]] = {}
        self.sessions: dict[str, tuple[str, str | None]] = {}
        self.creates: dict[str, tuple[str, str, float]] = {}
        self.deletes: dict[str, float] = {}
        self.synced = False

    # --- events ---

    def sync(self, records: list[Record], now: Now) -> None:
        for record in records:
            self.observe(record, now)
        for uid in self.pods.keys() - {record.uid for record in records}:
            self.gone(uid, now)
        self.synced = True

    def observe(self, record: Record, now: Now) -> bool:
        self.creates.pop(record.name, None)
        known = self.pods.get(record.uid)
        if self.gone_until.get(record.uid, 0.0) > now.mono or (
            known is not None and int(record.version) < int(known.record.version)
        ):
            return False
        if record.deleting:
            self.deletes.pop(record.uid, None)
        since = record.ready_since if record.stage is Stage.READY else record.created
        first = known is None and not self.synced
        age = max(0.0, now.wall - since - SKEW) if first and since else 0.0
        self.pods[record.uid] = CachedPod(
            record,
            known.stage_since if known is not None and known.record.stage is record.stage else now.mono - age,
            known.state_since if known is not None and known.record.state is record.state else now.mono,
            known is not None and known.fenced,
        )
        return True

    def gone(self, uid: str, now: Now) -> None:
        self.gone_until[uid] = now.mono + REMEMBERED
        known = self.pods.pop(uid, None)
        if known is not None:
            self.creates.pop(known.record.name, None)
        self.deletes.pop(uid, None)
        self.reserved.pop(uid, None)

    def reserve(self, uid: str, session: str | None, now: Now) -> None:
        if self.gone_until.get(uid, 0.0) <= now.mono:
            self.reserved[uid] = (now.mono + RESERVATION_SECONDS, session)

    def begin(self, session: str, user: str, now: Now) -> None:
        # Real ids are never used again; those of the test do not bring back what an earlier session had reserved.
        self.reserved = {uid: reserved for uid, reserved in self.reserved.items() if self.is_reserved(uid, now)}
        self.sessions[session] = (user, None)

    def create(self, name: str, profile: str, template: str, now: Now) -> None:
        self.creates[name] = (profile, template, now.mono + EXPIRY)

    def delete(self, uid: str, now: Now) -> None:
        self.deletes[uid] = now.mono + EXPIRY

    # --- questions ---

    def visible(self, now: Now) -> list[CachedPod]:
        return [
            one
            for one in self.pods.values()
            if not one.record.deleting and self.deletes.get(one.record.uid, 0.0) <= now.mono
        ]

    def is_reserved(self, uid: str, now: Now) -> bool:
        until, session = self.reserved.get(uid, (0.0, None))
        return until > now.mono or session in self.sessions

    def warm(self, now: Now) -> list[CachedPod]:
        return [
            one
            for one in self.visible(now)
            if one.record.state is State.WARM and not self.is_reserved(one.record.uid, now)
        ]

    def pool(self, now: Now, profile: str, template: str, placed: bool = False) -> list[str]:
        """The uids, the least useful first."""

        def order(record: Record) -> tuple[int, bool, float, str]:
            return USEFULNESS.index(record.stage), record.node is not None, -record.created, record.uid

        found = [one.record for one in self.warm(now)]
        pool = [one for one in found if (one.profile, one.template) == (profile, template)]
        return [one.uid for one in sorted(pool, key=order) if one.node is not None or not placed]

    def creating(self, now: Now) -> Counter[tuple[str, str]]:
        return Counter((profile, template) for profile, template, until in self.creates.values() if until > now.mono)

    def claims(self, now: Now) -> dict[str, tuple[str, str]]:
        """By claim: the hash of its user, and the name."""
        used = {session: (user_hash(user), user) for session, (user, _) in self.sessions.items()}
        found = [one.record for one in self.visible(now) if one.record.state is not State.WARM and one.record.counts]
        owners = [(one.user_hash or user_hash(one.user or ""), one.user or one.user_hash or "", one) for one in found]
        for owner, name, one in sorted(owners, key=lambda owned: (*owned[:2], owned[2].uid)):
            used.setdefault(one.session or one.uid, (owner, name))
        return used

    def total(self, now: Now) -> int:
        counted = [
            one
            for one in self.visible(now)
            if one.record.state is State.WARM
            and one.record.counts
            and self.reserved.get(one.record.uid, (0.0, None))[1] not in self.sessions
        ]
        return len(self.claims(now)) + len(counted) + self.creating(now).total()

    def owned_by_group(self, patterns: tuple[str, ...], now: Now) -> int:
        return sum(matches(name, patterns) for _, name in self.claims(now).values())

    def of_user(self, user: str, now: Now) -> list[Record]:
        found = [one.record for one in self.visible(now) if one.record.state is not State.WARM]
        mine = [one for one in found if one.user_hash == user_hash(user)]
        return sorted(mine, key=lambda one: (one.claimed_at or one.created, one.name, one.uid))

    def login_waits(self, now: Now) -> bool:
        warm = {one.record.uid for one in self.warm(now)}
        waiting = [one.record for one in self.visible(now) if one.record.stage is Stage.UNSCHEDULABLE]
        return any(one.session is not None and one.uid not in warm for one in waiting)

    def parkable(self, now: Now) -> set[str]:
        found = [one.record for one in self.visible(now) if one.record.state is State.WARM]
        usable = [one.uid for one in found if one.usable and one.session is None]
        return {uid for uid in usable if is_mine(uid, self.instance, self.instances)}

    def orphans(self, now: Now) -> set[str]:
        found = set()
        for one in self.visible(now):
            record = one.record
            if record.instance == self.instance and record.state is State.CLAIMED and record.sandbox is None:
                _, uid = self.sessions.get(record.session or "", (None, ""))
                if now.mono - one.state_since >= ORPHAN_SECONDS and uid not in (None, record.uid):
                    found.add(record.uid)
        return found

    def reap(self, membership: Membership, rules: Rules, now: Now) -> Iterator[object]:
        for one in self.visible(now):
            if one.record.state in (State.CLAIMED, State.DRAINING):
                named = one.record.sandbox is not None
                yield from _named(one, membership, rules, now) if named else _ephemeral(one, membership, now)

    def pick(self, template: str, settle: float, now: Now) -> str | None:
        """The uid of the pod to claim first."""
        found = [one for one in self.warm(now) if one.record.usable and one.record.template == template]
        for mine in (True, False):
            ours = [one for one in found if is_mine(one.record.uid, self.instance, self.instances) == mine]
            settled = [one for one in ours if one.fenced or one.stage_since <= now.mono - settle]
            sizes = Counter(one.record.node or "" for one in ours)
            fullest = sorted(sizes, key=lambda node: (-sizes[node], node))[:NODES_TRIED]
            for nodes in (*([node] for node in fullest), list[str](sizes)):
                if uid := _first(settled, nodes):
                    return uid
        return None


def _first(pods: list[CachedPod], nodes: Collection[str]) -> str | None:
    there = [one for one in pods if (one.record.node or "") in nodes]
    keys = sorted((not one.fenced, one.stage_since, one.record.created, one.record.uid) for one in there)
    return keys[0][-1] if keys else None
