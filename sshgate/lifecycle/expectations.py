"""What this gateway has begun and the watch has not shown yet. Pure.

The watch lags. A plan that knew only what the watch shows would make the same pod twice and delete the same
pod twice, and a burst of passes would do so many times. So whatever is issued is expected here, until the
watch shows it, the API server refuses it, or it expires; the last, because a watch that lost an event, or a
request that never arrived, must not hold the pool down for ever.

Creations are expected by name, which we choose, and deletions by uid: counts alone could not tell our pod
from one that another gateway made meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

# Far longer than any watch lags while it works, short enough for a pool to come back after it did not.
EXPIRY = 60.0


@dataclass(frozen=True, slots=True)
class Expected:
    """A warm pod that was asked for."""

    name: str
    profile: str
    template: str
    until: float


class Expectations:
    """Creations and deletions that are under way. Times are monotonic."""

    def __init__(self) -> None:
        self._creates: dict[str, Expected] = {}
        self._deletes: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Expectations {len(self._creates)} creates, {len(self._deletes)} deletes>"

    def create(self, name: str, profile: str, template: str, now: float) -> None:
        """A creation is issued. One whose outcome stays unknown is left here to expire."""
        self._creates[name] = Expected(name, profile, template, now + EXPIRY)

    def delete(self, uid: str, now: float) -> None:
        """A deletion is issued."""
        self._deletes = {old: until for old, until in self._deletes.items() if until > now}
        self._deletes[uid] = now + EXPIRY

    def observe(self, name: str) -> None:
        """The watch showed the pod, or the API server refused to make it."""
        self._creates.pop(name, None)

    def undelete(self, uid: str) -> None:
        """The pod is gone, or its deletion was refused."""
        self._deletes.pop(uid, None)

    def creates(self, now: float) -> list[Expected]:
        """Those that have not expired."""
        self._creates = {name: one for name, one in self._creates.items() if one.until > now}
        return list(self._creates.values())

    def deleting(self, uid: str, now: float) -> bool:
        """Whether the pod is on its way out by our own doing."""
        until = self._deletes.get(uid)
        if until is not None and until <= now:
            del self._deletes[uid]
            return False
        return until is not None
