"""The limits on the number of sandboxes and homes, over all gateways, as far as this one knows. Pure.

Within one gateway the limits are exact: a session counts from the moment it is admitted, not from when the watch
shows its pod. Between gateways they can be exceeded by what the others admit during the delay of the watch, some tens
of milliseconds. Where that is not acceptable, use a ResourceQuota on the namespace: it is exact, and its refusal
also reaches the user as a sentence.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from sshgate.config.model import Limits
from sshgate.errors import LimitReached
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.pace import TokenBucket
from sshgate.lifecycle.schema import user_hash


class Starts:
    """Limits the starts per minute of each user in this gateway."""

    def __init__(self, per_minute: int | None) -> None:
        """``per_minute``: ``None`` means no limit."""
        self._per_minute = per_minute
        self._buckets: dict[str, TokenBucket] = {}

    def __repr__(self) -> str:
        return f"<Starts {len(self._buckets)} users, {self._per_minute or 'any number'} per minute>"

    def take(self, user: str, now: float) -> float:
        """Take one start. Returns 0.0, or the seconds until the next one if none is left. ``now`` is monotonic."""
        if self._per_minute is None:
            return 0.0
        self._buckets = {name: one for name, one in self._buckets.items() if name == user or not one.full(now)}
        bucket = self._buckets.get(user)
        if bucket is None:
            bucket = self._buckets[user] = TokenBucket(self._per_minute / 60, self._per_minute, now)
        return 0.0 if bucket.take(1, now) else max(0.0, bucket.when(now) - now)


def admit(book: PodCache, limits: Limits, starts: Starts, user: str, session: str, now: Now) -> None:
    """Admit one more sandbox for this user, to be made or claimed. Raises ``LimitReached`` and then counts nothing.

    On success the session counts until ``PodCache.end``. Joining a named sandbox that exists needs no admission.
    Warm sandboxes are not counted here: they are evicted for logins, see ``pool_plan.evict_for_login``.
    """
    owned = book.owned(user, now)
    if owned >= limits.sandboxes_per_user:
        raise LimitReached(
            f"you have {owned} of {limits.sandboxes_per_user} sandboxes; end a session, or a named sandbox with "
            "`ssh -s USER=NAME@HOST end`, and try again, or ask your operator for more (limits.sandboxes_per_user)."
        )
    users = book.users(now)
    for name, group in limits.groups.items():
        if any(fnmatchcase(user, pattern) for pattern in group.users):
            used = sum(any(fnmatchcase(one, pattern) for pattern in group.users) for one in users.values())
            if used >= group.sandboxes:
                raise LimitReached(
                    f"your group {name!r} has {used} of {group.sandboxes} sandboxes; try again when one has ended, "
                    f"or ask your operator for more (limits.groups.{name})."
                )
    if len(users) >= limits.sandboxes:
        raise LimitReached(
            f"all {limits.sandboxes} sandboxes are in use; try again later, or ask your operator for more "
            "(limits.sandboxes)."
        )
    wait = starts.take(user, now.mono)
    if wait:
        raise LimitReached(
            f"you have started {limits.starts_per_minute} sandboxes within a minute; try again in {wait:.0f} s."
            if wait >= 1
            else f"you have started {limits.starts_per_minute} sandboxes within a minute; try again in a moment."
        )
    book.begin(session, user)


def admit_home(limits: Limits, user: str, owners: Collection[tuple[str, str]]) -> None:
    """Admit one more home for this user. Raises ``LimitReached``.

    ``owners`` has one item for each home that exists: its owner's name, as written on it, and the owner's hash.
    """
    own = sum(hashed == user_hash(user) for _, hashed in owners)
    if own >= limits.homes_per_user:
        raise LimitReached(
            f"you keep {own} of {limits.homes_per_user} homes; `ssh -s USER@HOST homes` lists them: delete one with "
            "`ssh -s USER=NAME@HOST delete-home` and try again."
        )
    for name, group in limits.groups.items():
        if group.homes is not None and any(fnmatchcase(user, pattern) for pattern in group.users):
            used = sum(any(fnmatchcase(one, pattern) for pattern in group.users) for one, _ in owners)
            if used >= group.homes:
                raise LimitReached(
                    f"your group {name!r} keeps {used} of {group.homes} homes; delete one of yours with "
                    "`ssh -s USER=NAME@HOST delete-home`, or ask your operator for more."
                )
