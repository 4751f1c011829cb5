"""The creations and deletions that this gateway has begun and the watch has not shown yet. Pure.

The watch lags. A plan that knew only what the watch shows would make, or delete, the same pod again with every pass.
So each request is expected here until the watch shows its effect, the API server refuses it, or it expires. It
expires because a lost watch event, or a request that never arrived, must not block the pool for ever.

Creations are expected by name, which we choose, and deletions by uid: mere counts could not distinguish our pod from
one that another gateway made meanwhile.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Set

# Seconds: far longer than a working watch lags, and short enough for a pool to recover after an event was lost.
EXPIRY = 60.0


class Expiring(OrderedDict[str, float]):
    """Items, and the monotonic time until which each is remembered. All are remembered for equally long."""

    def put(self, item: str, until: float) -> None:
        """Remember an item until then, whether or not it is remembered already."""
        self[item] = until
        self.move_to_end(item)

    def pop_expired(self, now: float) -> list[str]:
        """Forget the items whose time is over, and return them."""
        expired = []
        while self and next(iter(self.values())) <= now:
            expired.append(self.popitem(last=False)[0])
        return expired


class Expectations:
    """Creations and deletions that are under way. Times are monotonic."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        """``changed`` is called with the uid of each pod whose deletion is expected from now on, or no longer."""
        self._changed = changed
        self._creates: dict[str, tuple[str, str]] = {}
        self._creates_until = Expiring()
        self._pools: Counter[tuple[str, str]] = Counter()
        self._deletes = Expiring()

    def __repr__(self) -> str:
        return f"<Expectations {len(self._creates)} creates, {len(self._deletes)} deletes>"

    def create(self, name: str, profile: str, template: str, now: float) -> None:
        """A creation was issued. If its outcome stays unknown, it is left to expire."""
        self.expire(now)
        self.observe(name)
        self._creates[name] = (profile, template)
        self._creates_until.put(name, now + EXPIRY)
        self._pools[profile, template] += 1

    def delete(self, uid: str, now: float) -> None:
        """A deletion was issued."""
        self.expire(now)
        self._deletes.put(uid, now + EXPIRY)
        self._changed(uid)

    def observe(self, name: str) -> None:
        """The watch showed the pod, or the API server refused to make it: stop expecting its creation."""
        pool = self._creates.pop(name, None)
        self._creates_until.pop(name, None)
        if pool is not None:
            self._pools[pool] -= 1
            if not self._pools[pool]:
                del self._pools[pool]

    def undelete(self, uid: str) -> None:
        """The pod is gone or being deleted, or its deletion was refused: stop expecting the deletion."""
        if self._deletes.pop(uid, None) is not None:
            self._changed(uid)

    def expire(self, now: float) -> None:
        """Stop expecting what was issued too long ago."""
        for name in self._creates_until.pop_expired(now):
            self.observe(name)
        for uid in self._deletes.pop_expired(now):
            self._changed(uid)

    @property
    def creates(self) -> Set[str]:
        """The names of the pods whose creation is expected."""
        return self._creates.keys()

    def creating(self, profile: str, template: str) -> int:
        """The number of expected creations of this profile and template."""
        return self._pools[profile, template]

    def deleting(self, uid: str) -> bool:
        """Whether a deletion of this pod by us is under way."""
        return uid in self._deletes
