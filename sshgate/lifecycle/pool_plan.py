"""Keeping the pools full: what to make and what to remove. Pure.

One gateway at a time does this, the leader. For a moment two may: both then make what is missing, the watch
shows both, and the surplus is deleted; nobody is harmed, since a deletion of a warm pod carries its resource
version and so never hits one that was claimed meanwhile.
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

# A pod that neither became ready nor told why by then is replaced.
STUCK = 300.0
# How often a pool that cannot grow is looked at again, spread by a quarter so that pools do not march in step.
RECHECK = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """What one pool shall be. A profile that has no target has size 0."""

    profile: str
    template: str
    size: int
    per_minute: int = 300


@dataclass(slots=True)
class _Pool:
    """One pool as it is."""

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
    """Decides, and notes in the book what it has decided: asked again at once it has nothing more to say."""

    def __init__(self, token: Callable[[], str], jitter: Callable[[], float]) -> None:
        """``token`` makes names unique (a-z0-9, never the same twice); ``jitter`` gives 0 to 1."""
        self._token = token
        self._jitter = jitter
        # By template too: a mended profile need not wait for the pause that the broken one has earned.
        self._paces: dict[tuple[str, str, int, int], Pace] = {}
        self._praised: set[str] = set()
        self._stepped: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Refiller {', '.join(f'{key[0]}: {pace!r}' for key, pace in sorted(self._paces.items())) or 'idle'}>"

    def decide(self, book: PodCache, targets: Sequence[Target], limit: int, now: Now) -> list[Action]:
        """All that is to be done now. ``limit``: sandboxes of every kind that there may be."""
        if not book.synced:
            return []  # what we have not seen is not missing
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
        """The API server would not make it (quota, denied, invalid): the pool pauses, longer each time."""
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
        """Pods that ended before anyone had them, and those that never came up."""
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
        """Stale pods that fresh ones have replaced, and fresh ones beyond the target.

        Stale pods are never handed out, so they are kept for one thing only: a template that turns out to be
        broken and is taken back. Where they stand in the way of the fresh ones (no room under the limit, no
        node with room) they go first, a step at a time.
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
            # They are tried again by the cluster itself; more of them would only queue before the users' pods.
            reason = pool.held[0].record.reason or "held"
            return [Wait(target.profile, f"{len(pool.held)} pods wait: {reason}", self._recheck(now))]
        if waiting:
            return [Wait(target.profile, "a login waits for room on a node", self._recheck(now))]
        # Replacing takes a step more than the size, never twice the size.
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
        """Whether a user's own pod finds no node: the pools must not compete with it."""
        warm = {one.record.uid for one in book.warm(now)}
        waiting = (one.record for one in book.sightings(now) if one.record.stage is Stage.UNSCHEDULABLE)
        return any(record.session is not None and record.uid not in warm for record in waiting)


def evict_for_login(
    book: PodCache, count: int, now: Now, templates: Collection[str] = (), placed: bool = False
) -> list[Delete]:
    """``count`` warm pods that are given up for logins, least useful first; fewer where there are not so many.

    For a cold start that would exceed the limit: call it with ``book.total(now) - limit`` after the session was
    admitted, carry out the deletions, then create; so the limit holds at every moment, but for warm pods that are
    just being made: they cannot be given up before they are seen, and go with the next pass. And for one that no node
    has room for, with ``placed``: only pods that take up room on a node. ``templates``: those in use; pods of
    others go first.
    """
    warm = [one for one in book.warm(now) if one.record.counts and (one.record.node is not None or not placed)]
    ordered = sorted(_least(warm), key=lambda one: bool(templates) and one.record.template in templates)
    deletes = [Delete(one.record, "gave way to a login", True) for one in ordered[: max(0, count)]]
    _note(book, deletes, now)
    return deletes


def _least(pods: list[CachedPod]) -> list[CachedPod]:
    """In the order in which they can be spared: the reverse of the order in which logins take them."""
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
        going=book.going(profile, now),
    )


def _pace_key(target: Target) -> tuple[str, str, int, int]:
    return target.profile, target.template, target.size, target.per_minute


def _is_fresh(record: Record, target: Target) -> bool:
    return record.template == target.template


def _note(book: PodCache, deletes: Sequence[Delete], now: Now) -> None:
    for delete in deletes:
        book.expectations.delete(delete.record.uid, now.mono)
