"""The limits on the number of sandboxes and homes, over all gateways, as far as this one knows. Pure.

Within one gateway the limits are exact: a session counts from the moment it is admitted, not from when the watch
shows its pod. Between gateways they can be exceeded by what the others admit during the delay of the watch, some tens
of milliseconds. Where that is not acceptable, use a ResourceQuota on the namespace: it is exact, and its refusal
also reaches the user as a sentence.
"""

from __future__ import annotations

from collections.abc import Collection

from sshgate.access.limits import Starts, admit_sandbox
from sshgate.config.model import Limits
from sshgate.config.values import matches
from sshgate.errors import LimitReached
from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.schema import user_hash


def admit(cache: PodCache, limits: Limits, starts: Starts | None, user: str, session: str, now: Now) -> None:
    """Admit one more sandbox for this user, to be made or claimed. Raises ``LimitReached`` and then counts nothing.

    On success the session counts until ``PodCache.end``. Joining a named sandbox that exists needs no admission.
    Warm sandboxes are not counted here: they are evicted for logins, see ``pool_plan.evict_for_login``. Without
    ``starts`` none is taken: the session has taken one already.
    """
    own, in_use = cache.owned(user, now), cache.in_use(now)
    admit_sandbox(limits, starts, user, own, in_use, lambda group: cache.owned_by_group(group, now), now.mono)
    cache.begin(session, user)


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
        if group.homes is not None and matches(user, group.users):
            used = sum(matches(one, group.users) for one, _ in owners)
            if used >= group.homes:
                raise LimitReached(
                    f"your group {name!r} keeps {used} of {group.homes} homes; delete one of yours with "
                    "`ssh -s USER=NAME@HOST delete-home`, or ask your operator for more."
                )
