"""Decides which warm pods to make and which to delete, to keep the pools full. Pure.

Only the leader does this. For a moment there may be two leaders: both then make what is missing, the watch shows both,
and the surplus is deleted. No user is affected, since a deletion of a warm pod carries its resource version and so
never hits one that was claimed meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import merge
from itertools import chain, islice

from sshgate.access.limits import TokenBucket
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.indexes import USEFULNESS, Key, WarmPool
from sshgate.lifecycle.records import Stage
from sshgate.lifecycle.requests import Create, Delete
from sshgate.lifecycle.schema import label_value

# Seconds after which a pod that neither became ready nor reported a reason is replaced.
STUCK = 300.0
# Seconds until a pool that cannot grow is checked again, varied by a quarter so that pools do not act in step.
RECHECK = 60.0
# Seconds for which a pool pauses after its first failure, and at most.
FIRST_PENALTY = 2.0
LONGEST_PENALTY = 300.0
# The same after a creation that was not answered, or by a failure (an admission webhook that is down answers 500).
FIRST_SILENCE = 1.0
LONGEST_SILENCE = 30.0
HELD = (Stage.UNSCHEDULABLE, Stage.BLOCKED)


@dataclass(frozen=True, slots=True)
class Target:
    """The wanted state of one pool: ``size`` pods of ``template``. A profile without a target has size 0."""

    profile: str
    template: str
    size: int
    per_minute: int = 300


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done for this pool before ``until`` (monotonic). Decide again then, or at the next change."""

    profile: str
    reason: str
    until: float


Action = Create | Delete | Wait


class Backoff:
    """A pause after failures, twice as long after each, varied by a quarter so that pools do not act in step."""

    def __init__(self, first: float, longest: float, jitter: Callable[[], float]) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0
        self.until = float("-inf")

    def __repr__(self) -> str:
        return f"<Backoff {self.failures} failures, until {self.until:.1f}>"

    def failed(self, now: float) -> None:
        """Begin a pause. Failures during a pause do not lengthen it."""
        if now >= self.until:
            self.failures += 1
            pause = min(self._longest, self._first * 2 ** min(self.failures - 1, 10))
            self.until = now + pause * (0.75 + self._jitter() / 2)

    def succeeded(self) -> None:
        """End the pause; the next one is short again."""
        self.failures = 0
        self.until = float("-inf")


class Pace:
    """How fast one pool may be refilled: a token bucket, and a growing pause after failures.

    Without the pause, a pool whose pods fail at once would make and delete pods as fast as the bucket allows, for ever.
    Each failure doubles the pause, up to five minutes; a pod that becomes ready ends it.
    """

    def __init__(self, per_minute: int, size: int, now: float, jitter: Callable[[], float]) -> None:
        # A quarter of the pool at once: refilling an empty pool leaves room for logins that start cold.
        self.bucket = TokenBucket(max(1, per_minute) / 60, max(1, -(-size // 4)), now)
        self.pods = Backoff(FIRST_PENALTY, LONGEST_PENALTY, jitter)
        """After a pod that failed or was refused."""
        self.answers = Backoff(FIRST_SILENCE, LONGEST_SILENCE, jitter)
        """After a creation without an answer. Then one request at a time finds out whether there is one again."""
        self.failed_at = now
        self.unanswered: dict[str, Create] = {}
        """The creations to request again, with the same names, since they may have been carried out."""
        self.silence = ""
        """Why there was no answer."""

    def __repr__(self) -> str:
        return f"<Pace {self.bucket!r}, {self.pods!r}, {self.answers!r}>"

    def take(self, wanted: int, now: float) -> int:
        """Take up to ``wanted`` creations; returns how many pods may be made now."""
        return 0 if now < self.pods.until else self.bucket.take(wanted, now)

    def when(self, now: float) -> float:
        """The time from which the next pod may be made."""
        return max(self.pods.until, self.bucket.when(now))

    def failed(self, now: float) -> None:
        """A pod of the pool failed or was refused: begin a pause."""
        self.failed_at = now
        self.pods.failed(now)

    def again(self, expected: Collection[str], now: float) -> list[Create]:
        """Take the creations that are to be requested again now. Those that are not ``expected`` are forgotten."""
        self.unanswered = {name: one for name, one in self.unanswered.items() if name in expected}
        due = list(self.unanswered.values())
        if self.answers.failures:
            due = due[:1] if now >= self.answers.until else []
            if due:
                self.answers.failed(now)  # until its answer
        for one in due:
            del self.unanswered[one.name]
        return due


class Refiller:
    """Decides for all pools, and notes in the cache what it has decided, so that the next pass does not repeat it."""

    def __init__(self, token: Callable[[], str], jitter: Callable[[], float]) -> None:
        """``token`` returns a unique part for a pod's name (a-z0-9); ``jitter`` returns a random number from 0 to 1."""
        self._token = token
        self._jitter = jitter
        # The key includes the template, so that a repaired profile does not inherit the pause of the broken one.
        self._paces: dict[tuple[str, str, int, int], Pace] = {}
        self._stepped: dict[str, float] = {}

    def decide(self, cache: PodCache, targets: Sequence[Target], limit: int, now: Now) -> list[Action]:
        """All that is to be done now; nothing before the cache is synced.

        Args:
            cache: The returned creations and deletions are expected in it.
            limit: the number of sandboxes of every kind that may exist.
        """
        if not cache.synced:
            return []  # pods that were not listed yet are not missing
        templates = {target.template for target in targets}
        actions: list[Action] = list(evict_for_login(cache, cache.total(now) - limit, now, templates))
        pools = defaultdict[str, list[WarmPool]](list)
        for pool in cache.pools(now):
            pools[pool.profile].append(pool)
        removed = sorted(pools.keys() - {label_value(target.profile) for target in targets})
        for target in (*targets, *(Target(profile, "", 0) for profile in removed)):
            actions += self._pool(cache, target, pools[label_value(target.profile)], limit, now)
        keys = {_pace_key(target) for target in targets}
        self._paces = {key: pace for key, pace in self._paces.items() if key in keys}
        return actions

    def answered(self, action: Create) -> None:
        """The API server has made the pod: what was not answered is requested again at once."""
        pace = self._pace_of(action)
        if pace is not None:
            pace.answers.succeeded()

    def unanswered(self, action: Create, reason: str, now: Now) -> None:
        """Whether the API server has made the pod is unknown: request it again, each time after a longer pause."""
        pace = self._pace_of(action)
        if pace is not None:
            pace.unanswered[action.name] = action
            pace.silence = reason
            pace.answers.failed(now.mono)

    def refused(self, action: Create, cache: PodCache, now: Now) -> None:
        """The API server refused a creation (quota, denied, invalid): pause the pool, each time for longer."""
        cache.expectations.observe(action.name)
        for key, pace in self._paces.items():
            if key[0] == action.profile:
                pace.failed(now.mono)
                pace.answers.succeeded()

    def _pace_of(self, action: Create) -> Pace | None:
        found = (pace for key, pace in self._paces.items() if key[:2] == (action.profile, action.template))
        return next(found, None)

    def _pool(self, cache: PodCache, target: Target, pools: Sequence[WarmPool], limit: int, now: Now) -> list[Action]:
        pace = self._paces.setdefault(_pace_key(target), Pace(target.per_minute, target.size, now.mono, self._jitter))
        broken = _delete_broken(cache, target, pools, now)
        if any(delete.record.template == target.template for delete in broken):
            pace.failed(now.mono)
        if cache.newest_ready(target.template) > pace.failed_at:
            pace.pods.succeeded()
        fresh = next((pool for pool in pools if pool.template == target.template), WarmPool("", "", ()))
        stale = [pool for pool in pools if pool is not fresh]
        unwanted = self._delete_unwanted(cache, target, fresh, stale, limit, now)
        makes = partial(self._make, cache, target, fresh, stale, limit, pace, now)
        return [*broken, *unwanted, *self._request(cache, target, fresh, pace, now, makes)]

    def _request(
        self, cache: PodCache, target: Target, fresh: WarmPool, pace: Pace, now: Now,
        make: Callable[[int], list[Action]],
    ) -> list[Action]:  # fmt: skip
        """Repeat what was not answered, and make what is missing; while there are no answers, one request at a time."""
        expected = cache.expectations.creating(label_value(target.profile), target.template)
        if not expected and len(fresh) >= target.size:
            pace.answers.succeeded()  # the watch has shown all
        again = pace.again(cache.expectations.creates, now.mono)
        if not pace.answers.failures:
            return [*again, *make(target.size)]
        actions: list[Action] = list(again)
        if not again and now.mono >= pace.answers.until:
            actions = make(1)
            if any(isinstance(one, Create) for one in actions):
                pace.answers.failed(now.mono)  # until its answer
        until = pace.answers.until if pace.answers.until > now.mono else self._recheck(now)
        return [*actions, Wait(target.profile, pace.silence, until)]

    def _delete_unwanted(
        self, cache: PodCache, target: Target, fresh: WarmPool, stale: Sequence[WarmPool], limit: int, now: Now
    ) -> list[Delete]:
        """Delete stale pods that fresh ones have replaced, and fresh ones beyond the target.

        Stale pods are never handed out. They are kept only in case the new template is broken and reverted. Where they
        leave no room for fresh ones (under the limit, or on the nodes) they are deleted first, a step at a time.
        """
        profile = label_value(target.profile)
        expected, old = cache.expectations.creating(profile, target.template), sum(map(len, stale))
        replaced = old - max(0, target.size - fresh.count(Stage.READY))
        moving = expected or fresh.count(Stage.STARTING) or cache.leaving(profile)
        if replaced <= 0 and old and not moving:
            full = limit - cache.total(now) <= 0 and len(fresh) < target.size
            due = now.mono - self._stepped.get(target.profile, now.mono - RECHECK) >= RECHECK
            if full or (due and fresh.count(Stage.UNSCHEDULABLE)):
                self._stepped[target.profile] = now.mono
                replaced = _step(target)
        surplus = len(fresh) + expected - target.size
        deletes = _delete(cache, fresh.least(), surplus, "more than the pool's size", now)
        outdated = merge(*(pool.least() for pool in stale))
        return deletes + _delete(cache, outdated, replaced, "made from an older template", now)

    def _make(
        self, cache: PodCache, target: Target, fresh: WarmPool, stale: Sequence[WarmPool], limit: int, pace: Pace,
        now: Now, most: int,
    ) -> list[Action]:  # fmt: skip
        profile = label_value(target.profile)
        have = len(fresh) + cache.expectations.creating(profile, target.template)
        missing = target.size - have
        if missing <= 0:
            return []
        held = fresh.count(*HELD)
        if held:
            # The cluster itself keeps trying these; more of them would only queue ahead of the users' pods.
            record = cache.record(next(fresh.least(HELD)))
            return [Wait(target.profile, f"{held} pods wait: {record.reason or 'held'}", self._recheck(now))]
        if cache.login_waits(now):
            return [Wait(target.profile, "a login waits for room on a node", self._recheck(now))]
        # While stale pods are replaced, the pool exceeds its size by one step at most.
        wanted = min(missing, target.size + _step(target) - have - sum(map(len, stale)))
        room = limit - cache.total(now)
        made = pace.take(max(0, min(wanted, room, most)), now.mono)
        creates = [
            Create(f"sshgate-warm-{profile}-{self._token()}", target.profile, target.template) for _ in range(made)
        ]
        for create in creates:
            cache.expectations.create(create.name, profile, create.template, now.mono)
        actions: list[Action] = list(creates)
        if made < missing:
            if room < missing:
                actions.append(Wait(target.profile, f"all {limit} sandboxes are taken", self._recheck(now)))
            elif made < wanted:
                actions.append(Wait(target.profile, "not so fast", pace.when(now.mono)))
        return actions

    def _recheck(self, now: Now) -> float:
        return now.mono + RECHECK * (0.75 + self._jitter() / 2)


def evict_for_login(
    cache: PodCache, count: int, now: Now, templates: Collection[str] = (), placed: bool = False
) -> list[Delete]:
    """Deletions of up to ``count`` warm pods to make room for logins, the least useful first.

    For a cold start that would exceed the limit: after the session was admitted, call it with
    ``cache.total(now) - limit``, carry out the deletions, then create. So the limit always holds, except for warm pods
    that are just being made: they can be evicted only once the watch shows them, in the next pass.

    Args:
        templates: those in use; pods of other templates are evicted first.
        placed: only pods that are on a node, for a pod that no node has room for.
    """
    if count <= 0:
        return []
    stale: list[Iterator[Key]] = []
    fresh: list[Iterator[Key]] = []
    for pool in cache.pools(now):
        # Pods that have ended take no room.
        (fresh if pool.template in templates else stale).append(pool.least(USEFULNESS[1:], placed))
    return _delete(cache, chain(merge(*stale), merge(*fresh)), count, "gave way to a login", now)


def _delete_broken(cache: PodCache, target: Target, pools: Iterable[WarmPool], now: Now) -> list[Delete]:
    """Delete pods that ended before they were claimed, and those that did not start in time."""
    ended = [cache.record(key) for pool in pools for key in pool.least((Stage.FINISHED,))]
    stuck = cache.starting(label_value(target.profile), now.mono - STUCK)
    deletes = [Delete(one, f"ended before it was used ({one.reason or 'no reason given'})", True) for one in ended]
    deletes += [Delete(one, f"did not start within {STUCK:g} s", True) for one in stuck]
    for delete in deletes:
        cache.expectations.delete(delete.record.uid, now.mono)
    return deletes


def _delete(cache: PodCache, keys: Iterable[Key], count: int, reason: str, now: Now) -> list[Delete]:
    """Delete the first ``count`` pods, which the cache then expects."""
    records = [cache.record(key) for key in islice(keys, max(0, count))]
    for record in records:
        cache.expectations.delete(record.uid, now.mono)
    return [Delete(record, reason, untouched=True) for record in records]


def _step(target: Target) -> int:
    """How many pods of a pool are replaced at a time."""
    return max(1, -(-target.size // 4))


def _pace_key(target: Target) -> tuple[str, str, int, int]:
    return target.profile, target.template, target.size, target.per_minute
