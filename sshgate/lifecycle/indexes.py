"""What decisions ask of the pods, kept up to date with each change of one pod. Pure.

So the cost of a decision does not depend on the number of pods: nothing here walks over all of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from sshgate.config.values import matches
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.schema import user_hash

Group = TypeVar("Group", bound=Hashable)
Key = tuple[Any, ...]
"""What a pod is sorted by in its group. The last part is its uid, so that no two keys of a group are equal."""

# Groups of users whose claims are counted along.
MOST_PATTERNS = 1000

Patterns = tuple[str, ...]
"""The shell patterns of the users of a group."""

USEFULNESS = (Stage.FINISHED, Stage.BLOCKED, Stage.UNSCHEDULABLE, Stage.STARTING, Stage.READY)
"""The stages of a warm pod, the least useful first."""
_RANK = {stage: rank for rank, stage in enumerate(USEFULNESS)}


class Index(Generic[Group]):
    """Pods in groups, sorted by key within each. A group exists as long as it has a pod.

    A change takes O(log n) comparisons, and one memmove of at most 8 bytes for each pod of the group: 4 µs for 10,000.
    """

    __slots__ = ("_changed", "_groups")

    def __init__(self, changed: Callable[[Key], None] | None = None) -> None:
        """``changed`` is called with each key that was added or removed."""
        self._groups: dict[Group, list[Key]] = {}
        self._changed = changed

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def __getitem__(self, group: Group) -> Sequence[Key]:
        """The keys of a group in order; not a copy."""
        return self._groups.get(group, ())

    def add(self, group: Group, key: Key) -> None:
        """Add a pod to a group."""
        insort(self._groups.setdefault(group, []), key)
        if self._changed is not None:
            self._changed(key)

    def remove(self, group: Group, key: Key) -> None:
        """Remove a pod that is in the group."""
        keys = self._groups[group]
        del keys[bisect_left(keys, key)]
        if not keys:
            del self._groups[group]
        if self._changed is not None:
            self._changed(key)

    def until(self, group: Group, limit: float) -> Sequence[Key]:
        """The keys whose first part, a time, is at most ``limit``."""
        keys = self[group]
        return keys[: bisect_right(keys, limit, key=itemgetter(0))]


class Ranked(Index[tuple[Group, str]]):
    """Groups that are ranked by their size: ``ranks[outer]`` has ``(-size, inner)`` of each group (outer, inner)."""

    __slots__ = ("ranks",)

    def __init__(self) -> None:
        super().__init__()
        self.ranks: Index[Group] = Index()

    def add(self, group: tuple[Group, str], key: Key) -> None:
        self._resize(group, 1)
        super().add(group, key)

    def remove(self, group: tuple[Group, str], key: Key) -> None:
        self._resize(group, -1)
        super().remove(group, key)

    def _resize(self, group: tuple[Group, str], by: int) -> None:
        (outer, inner), size = group, len(self[group])
        if size:
            self.ranks.remove(outer, (-size, inner))
        if size + by:
            self.ranks.add(outer, (-size - by, inner))


class WarmPool:
    """The warm pods of one profile and template that are not reserved, as they are now."""

    __slots__ = ("_keys", "profile", "template")

    def __init__(self, profile: str, template: str, keys: Sequence[Key]) -> None:
        self.profile = profile
        self.template = template
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def count(self, *stages: Stage) -> int:
        """The number of pods in these stages."""
        spans = (self._span(stage, placed=False) for stage in stages)
        return sum(end - start for start, end in spans)

    def least(self, stages: Iterable[Stage] = USEFULNESS, placed: bool = False) -> Iterator[Key]:
        """The keys of the pods in these stages, the least useful first. ``placed``: only of those on a node.

        Of one stage those without a node come first, then the newest: roughly the reverse of the order in which logins
        take them. The pods must not change meanwhile.
        """
        for stage in stages:
            for place in range(*self._span(stage, placed)):
                yield self._keys[place]

    def _span(self, stage: Stage, placed: bool) -> tuple[int, int]:
        rank = _RANK[stage]
        return bisect_left(self._keys, (rank, placed)), bisect_left(self._keys, (rank + 1,))


class Claims(Index[str]):
    """The sandboxes in use, by the id of their claim, and how many there are of each user and of groups of users.

    The keys of a claim are its session, and the pods that bear its id: ``(order, hash of the user, user, uid)``.
    Together they count once, for the user of the first.
    """

    __slots__ = ("_matching", "_names", "owned")

    def __init__(self) -> None:
        super().__init__()
        self.owned: Counter[str] = Counter()
        """The number of claims of each user, by the user's hash."""
        self._names: Counter[str] = Counter()
        self._matching: dict[Patterns, int] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, group: str, key: Key) -> None:
        self._count(group, -1)
        super().add(group, key)
        self._count(group, 1)

    def remove(self, group: str, key: Key) -> None:
        self._count(group, -1)
        super().remove(group, key)
        self._count(group, 1)

    def matching(self, patterns: Patterns) -> int:
        """The number of claims of users whose name matches one of the patterns; counted along from the first call."""
        if patterns not in self._matching:
            if len(self._matching) >= MOST_PATTERNS:
                self._matching.clear()  # of groups that are configured no longer, most likely
            self._matching[patterns] = sum(self._names[name] for name in self._names if matches(name, patterns))
        return self._matching[patterns]

    def _count(self, claim: str, by: int) -> None:
        keys = self[claim]
        if keys:
            _, owner, name, _ = keys[0]
            _add(self.owned, owner, by)
            _add(self._names, name, by)
            for patterns in self._matching:
                self._matching[patterns] += by * matches(name, patterns)


@dataclass(frozen=True, slots=True)
class CachedPod:
    """A pod, and since when (monotonic) we have observed it in its stage and in its state."""

    record: Record
    stage_since: float
    state_since: float
    fenced: bool = False
    """Whether we have found that the network policy is in force in it."""


class Standing(NamedTuple):
    """What this gateway knows of a pod beside its record."""

    visible: bool  # it is not being deleted, and we are not about to delete it
    reserved: bool  # a login here is claiming it, or has tried in vain
    counted: bool  # the session that is claiming it counts instead of it
    mine: bool  # it is in this gateway's slice of the warm pods
    unowned: bool  # this gateway instance has claimed it, and none of its sessions uses it


Entry = tuple[Index[Any], Any, Key]


class PodIndexes:
    """All indexes of the pods. Except for those before ``leaving`` they hold only visible pods, see ``Standing``."""

    def __init__(self, parkable_changed: Callable[[Key], None]) -> None:
        self._entries: dict[str, tuple[Entry, ...]] = {}
        # By the pod's name: those that are not being deleted first, of these the newest.
        self.by_name: Index[str] = Index()
        # Named sandboxes by the hash of the user and the name, in the same order.
        self.by_sandbox: Index[tuple[str | None, str]] = Index()
        self.by_instance: Index[str] = Index()  # by each gateway instance that is named on a pod
        # Warm pods.
        self.leaving: Index[str] = Index()  # by profile: those that are not visible
        self.spare: Index[None] = Index()  # those that count towards the limits
        self.parkable: Index[str] = Index(parkable_changed)  # by profile: usable ones of our slice, also reserved ones
        self.pools: Index[tuple[str, str]] = Index()  # by profile and template: unreserved, the least useful first
        self.starting: Index[str] = Index()  # by profile: unreserved ones that start, by since when
        self.ready: Index[tuple[str, bool]] = (
            Index()
        )  # by template and whether it is in our slice: fenced ones first, by since when
        self.ready_on: Ranked[tuple[str, bool]] = Ranked()  # the same by node as well
        # Claimed pods.
        self.by_user: Index[str] = Index()  # by the hash of the user, by when they were claimed
        self.claims = Claims()
        self.ephemeral: Index[str | None] = Index()  # by gateway instance: no named sandboxes
        self.unowned: Index[None] = Index()  # by since when they are claimed, see ``Standing``
        # By profile and the promised time: named sandboxes without clients, by the wall time when they were left.
        self.detached: Index[tuple[str, float | None]] = Index()
        self.ending: Index[None] = Index()  # those that have ended, are drained, or could not start
        # Pods in any state.
        self.phases: Index[tuple[str, str]] = Index()  # by profile and ``Record.phase``
        self.by_session: Index[str] = Index()  # by the label of the session
        self.attached: Index[str] = Index()  # by gateway instance: the named sandboxes that it is attached to
        self.waiting: Index[None] = Index()  # those of logins, for which no node has room

    def update(self, uid: str, one: CachedPod | None, standing: Standing | None) -> None:
        """Take note of a change of the pod, or of what is known of it; ``None``: it is gone."""
        old = self._entries.get(uid, ())
        new = tuple(self._all(one, standing)) if one is not None and standing is not None else ()
        for entry in old:
            if entry not in new:
                entry[0].remove(*entry[1:])
        for entry in new:
            if entry not in old:
                entry[0].add(*entry[1:])
        if new:
            self._entries[uid] = new
        else:
            self._entries.pop(uid, None)

    def _all(self, one: CachedPod, standing: Standing) -> Iterator[Entry]:
        record, plain = one.record, (one.record.uid,)
        order = (record.deleting, -record.created, record.uid)
        yield self.by_name, record.name, order
        if record.sandbox is not None:
            yield self.by_sandbox, (record.user_hash, record.sandbox), order
        for instance in {record.instance, *record.attached}:
            if instance is not None:
                yield self.by_instance, instance, plain
        if not standing.visible:
            if record.state is State.WARM:
                yield self.leaving, record.profile, plain
            return
        yield self.phases, (record.profile, record.phase), plain
        if record.session is not None:
            yield self.by_session, record.session, plain
            if record.stage is Stage.UNSCHEDULABLE and (record.state is not State.WARM or standing.reserved):
                yield self.waiting, None, plain
        if record.sandbox is not None:
            for instance in record.attached:
                yield self.attached, instance, plain
        if record.state is State.WARM:
            yield from self._warm(one, standing)
        else:
            yield from self._claimed(one, standing)

    def _warm(self, one: CachedPod, standing: Standing) -> Iterator[Entry]:
        record, uid = one.record, one.record.uid
        if record.counts and not standing.counted:
            yield self.spare, None, (uid,)
        if record.usable and record.session is None and standing.mine:
            yield self.parkable, record.profile, (uid,)
        if standing.reserved:
            return
        key = (_RANK[record.stage], record.node is not None, -record.created, uid)
        yield self.pools, (record.profile, record.template), key
        if record.stage is Stage.STARTING:
            yield self.starting, record.profile, (one.stage_since, uid)
        if record.usable:
            group, since = (record.template, standing.mine), (not one.fenced, one.stage_since, record.created, uid)
            yield self.ready, group, since
            yield self.ready_on, (group, record.node or ""), since

    def _claimed(self, one: CachedPod, standing: Standing) -> Iterator[Entry]:
        record, uid = one.record, one.record.uid
        if record.user_hash is not None:
            yield self.by_user, record.user_hash, (*record.claim_order(), uid)
        if record.counts:
            owner, name = record.user_hash or user_hash(record.user or ""), record.user or record.user_hash or ""
            yield self.claims, record.session or uid, (1, owner, name, uid)
        if record.state is State.UNKNOWN:
            return
        held = record.stage in (Stage.BLOCKED, Stage.UNSCHEDULABLE) or record.state is State.DRAINING
        if record.sandbox is None:
            yield self.ephemeral, record.instance, (uid,)
            if standing.unowned:
                yield self.unowned, None, (one.state_since, uid)
        elif not record.attached and record.stage is not Stage.FINISHED and not held:
            yield self.detached, (record.profile, record.kept_for), (record.left_at, uid)
        if record.stage is Stage.FINISHED or (record.sandbox is not None and not record.attached and held):
            yield self.ending, None, (uid,)


def _add(counter: Counter[str], item: str, by: int) -> None:
    counter[item] += by
    if not counter[item]:
        del counter[item]
