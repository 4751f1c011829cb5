"""Decides which warm pods to make and which to delete, to keep the pools full. Pure.

Only the leader does this. For a moment there may be two leaders: both then make what is missing, the watch shows both,
and the surplus is deleted. No user is affected, since a deletion of a warm pod carries its resource version and so
never hits one that was claimed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sshgate.lifecycle.actions import Action, Create, Delete, Wait
from sshgate.lifecycle.cache import CachedPod, PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.pace import Pace
from sshgate.lifecycle.records import Record, Stage
from sshgate.lifecycle.schema import label_value

# Seconds after which a pod that neither became ready nor reported a reason is replaced.
STUCK = 300.0
# Seconds until a pool that cannot grow is checked again, varied by a quarter so that pools do not act in step.
RECHECK = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """The wanted state of one pool: ``size`` pods of ``template``. A profile without a target has size 0."""

    profile: str
    template: str
    size: int
    per_minute: int = 300


@dataclass(slots=True)
class _Pool:
    """The actual state of one pool; ``stale`` pods are of another template than the target's."""

    fresh: list[CachedPod]
    stale: list[CachedPod]
    expected: int
    going: int

    @property
    def ready(self) -> int:
        return sum(one.record.stage is Stage.READY for one in self.fresh)

    @property
    def held(self) -> list[CachedPod]:
        return [one for one in self.fresh if one.record.stage in (Stage.UNSCHEDULABLE, Stage.BLOCKED)]

    @property
    def coming(self) -> int:
        return self.expected + sum(one.record.stage is Stage.STARTING for one in self.fresh)


class Refiller:
    """Decides for all pools, and notes in the cache what it has decided, so that the next pass does not repeat it."""

    def __init__(self, token: Callable[[], str], jitter: Callable[[], float]) -> None:
        """``token`` returns a unique part for a pod's name (a-z0-9); ``jitter`` returns a random number from 0 to 1."""
        self._token = token
        self._jitter = jitter
        # The key includes the template, so that a repaired profile does not inherit the pause of the broken one.
        self._paces: dict[tuple[str, str, int, int], Pace] = {}
        self._praised: set[str] = set()
        self._stepped: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Refiller {', '.join(f'{key[0]}: {pace!r}' for key, pace in sorted(self._paces.items())) or 'idle'}>"

    def decide(self, book: PodCache, targets: Sequence[Target], limit: int, now: Now) -> list[Action]:
        """All that is to be done now; nothing before the cache is synced.

        Args:
            book: the cache. The returned creations and deletions are expected in it.
            limit: the number of sandboxes of every kind that may exist.
        """
        if not book.synced:
            return []  # pods that were not listed yet are not missing
        templates = {target.template for target in targets}
        actions: list[Action] = list(evict_for_login(book, book.total(now) - limit, now, templates))
        known = {label_value(target.profile) for target in targets}
        removed = sorted({one.record.profile for one in book.warm(now)} - known)
        waiting = self._somebody_waits(book, now)
        for target in (*targets, *(Target(profile, "", 0) for profile in removed)):
            actions += self._pool(book, target, limit, waiting, now)
        self._forget(book, targets)
        return actions

    def refused(self, action: Create, book: PodCache, now: Now) -> None:
        """The API server refused a creation (quota, denied, invalid): pause the pool, each time for longer."""
        book.expectations.observe(action.name)
        for key, pace in self._paces.items():
            if key[0] == action.profile:
                pace.failed(now.mono)

    def _pool(self, book: PodCache, target: Target, limit: int, waiting: bool, now: Now) -> list[Action]:
        pace = self._pace(target, now)
        actions = self._broken(book, target, pace, now)
        pool = _pool(book, target, now)
        self._record_success(pool, pace)
        step = max(1, -(-target.size // 4))
        deletes = self._unwanted(book, target, pool, step, limit, now)
        _note(book, deletes, now)
        actions += deletes
        going = {delete.record.uid for delete in deletes}
        pool.fresh = [one for one in pool.fresh if one.record.uid not in going]
        pool.stale = [one for one in pool.stale if one.record.uid not in going]
        return actions + self._make(book, target, pool, step, limit, waiting, pace, now)

    def _broken(self, book: PodCache, target: Target, pace: Pace, now: Now) -> list[Action]:
        """Delete pods that ended before they were claimed, and those that did not start in time."""
        deletes = []
        for one in _warm(book, target, now):
            record, age = one.record, now.mono - one.stage_since
            if record.stage is Stage.FINISHED:
                deletes.append(Delete(record, f"ended before it was used ({record.reason or 'no reason given'})", True))
            elif record.stage is Stage.STARTING and age >= STUCK:
                deletes.append(Delete(record, f"did not start within {STUCK:g} s", True))
        if any(_is_fresh(delete.record, target) for delete in deletes):
            pace.failed(now.mono)
        _note(book, deletes, now)
        return list(deletes)

    def _unwanted(self, book: PodCache, target: Target, pool: _Pool, step: int, limit: int, now: Now) -> list[Delete]:
        """Delete stale pods that fresh ones have replaced, and fresh ones beyond the target.

        Stale pods are never handed out. They are kept only in case the new template is broken and reverted. Where they
        leave no room for fresh ones (under the limit, or on the nodes) they are deleted first, a step at a time.
        """
        surplus = max(0, len(pool.fresh) + pool.expected - target.size)
        deletes = [Delete(one.record, "more than the pool shall hold", True) for one in _least(pool.fresh)[:surplus]]
        replaced = len(pool.stale) - max(0, target.size - pool.ready)
        if replaced <= 0 and pool.stale and not pool.coming and not pool.going:
            full = limit - book.total(now) <= 0 and len(pool.fresh) < target.size
            due = now.mono - self._stepped.get(target.profile, now.mono - RECHECK) >= RECHECK
            if full or (due and any(one.record.stage is Stage.UNSCHEDULABLE for one in pool.held)):
                self._stepped[target.profile] = now.mono
                replaced = step
        stale = _least(pool.stale)[: max(0, replaced)]
        return deletes + [Delete(one.record, "made from an older template", True) for one in stale]

    def _make(
        self, book: PodCache, target: Target, pool: _Pool, step: int, limit: int, waiting: bool, pace: Pace, now: Now
    ) -> list[Action]:
        have = len(pool.fresh) + pool.expected
        missing = target.size - have
        if missing <= 0:
            return []
        if pool.held:
            # The cluster itself keeps trying these; more of them would only queue ahead of the users' pods.
            reason = pool.held[0].record.reason or "held"
            return [Wait(target.profile, f"{len(pool.held)} pods wait: {reason}", self._recheck(now))]
        if waiting:
            return [Wait(target.profile, "a login waits for room on a node", self._recheck(now))]
        # While stale pods are replaced, the pool exceeds its size by one step at most.
        wanted = min(missing, target.size + step - have - len(pool.stale))
        room = limit - book.total(now)
        made = pace.take(max(0, min(wanted, room)), now.mono)
        creates = [
            Create(f"sshgate-warm-{label_value(target.profile)}-{self._token()}", target.profile, target.template)
            for _ in range(made)
        ]
        for create in creates:
            book.expectations.create(create.name, label_value(create.profile), create.template, now.mono)
        actions: list[Action] = list(creates)
        if made < missing:
            if room < missing:
                actions.append(Wait(target.profile, f"all {limit} sandboxes are taken", self._recheck(now)))
            elif made < wanted:
                actions.append(Wait(target.profile, "not so fast", pace.when(now.mono)))
        return actions

    def _pace(self, target: Target, now: Now) -> Pace:
        key = _pace_key(target)
        if key not in self._paces:
            self._paces[key] = Pace(target.per_minute, target.size, now.mono)
        return self._paces[key]

    def _record_success(self, pool: _Pool, pace: Pace) -> None:
        ready = {one.record.uid for one in pool.fresh if one.record.stage is Stage.READY}
        if ready - self._praised:
            pace.succeeded()
        self._praised |= ready

    def _forget(self, book: PodCache, targets: Sequence[Target]) -> None:
        keys = {_pace_key(target) for target in targets}
        self._paces = {key: pace for key, pace in self._paces.items() if key in keys}
        self._praised = {uid for uid in self._praised if book.get(uid) is not None}

    def _recheck(self, now: Now) -> float:
        return now.mono + RECHECK * (0.75 + self._jitter() / 2)

    @staticmethod
    def _somebody_waits(book: PodCache, now: Now) -> bool:
        """Whether a claimed pod waits for a node: the pools must not compete with it."""
        warm = {one.record.uid for one in book.warm(now)}
        waiting = (one.record for one in book.cached_pods(now) if one.record.stage is Stage.UNSCHEDULABLE)
        return any(record.session is not None and record.uid not in warm for record in waiting)


def evict_for_login(
    book: PodCache, count: int, now: Now, templates: Collection[str] = (), placed: bool = False
) -> list[Delete]:
    """Deletions of up to ``count`` warm pods to make room for logins, the least useful first.

    For a cold start that would exceed the limit: after the session was admitted, call it with
    ``book.total(now) - limit``, carry out the deletions, then create. So the limit always holds, except for warm pods
    that are just being made: they can be evicted only once the watch shows them, in the next pass.

    Args:
        templates: those in use; pods of other templates are evicted first.
        placed: only pods that are on a node, for a pod that no node has room for.
    """
    warm = [one for one in book.warm(now) if one.record.counts and (one.record.node is not None or not placed)]
    ordered = sorted(_least(warm), key=lambda one: bool(templates) and one.record.template in templates)
    deletes = [Delete(one.record, "gave way to a login", True) for one in ordered[: max(0, count)]]
    _note(book, deletes, now)
    return deletes


def _least(pods: list[CachedPod]) -> list[CachedPod]:
    """Sort by usefulness, the least useful first: roughly the reverse of the order in which logins take them."""
    order = (Stage.FINISHED, Stage.BLOCKED, Stage.UNSCHEDULABLE, Stage.STARTING, Stage.READY)
    return sorted(pods, key=lambda one: (order.index(one.record.stage), -one.record.created, one.record.uid))


def _warm(book: PodCache, target: Target, now: Now) -> list[CachedPod]:
    profile = label_value(target.profile)
    return [one for one in book.warm(now) if one.record.profile == profile]


def _pool(book: PodCache, target: Target, now: Now) -> _Pool:
    warm, profile = _warm(book, target, now), label_value(target.profile)
    return _Pool(
        fresh=[one for one in warm if _is_fresh(one.record, target)],
        stale=[one for one in warm if not _is_fresh(one.record, target)],
        expected=sum(
            one.profile == profile and one.template == target.template for one in book.expectations.creates(now.mono)
        ),
        going=book.deleting(profile, now),
    )


def _pace_key(target: Target) -> tuple[str, str, int, int]:
    return target.profile, target.template, target.size, target.per_minute


def _is_fresh(record: Record, target: Target) -> bool:
    return record.template == target.template


def _note(book: PodCache, deletes: Sequence[Delete], now: Now) -> None:
    for delete in deletes:
        book.expectations.delete(delete.record.uid, now.mono)
