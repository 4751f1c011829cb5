"""The creations and deletions that this gateway has begun and the watch has not shown yet. Pure.

The watch lags. A plan that knew only what the watch shows would make, or delete, the same pod again with every pass.
So each request is expected here until the watch shows its effect, the API server refuses it, or it expires. It
expires because a lost watch event, or a request that never arrived, must not block the pool for ever.

Creations are expected by name, which we choose, and deletions by uid: mere counts could not distinguish our pod from
one that another gateway made meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

# Seconds: far longer than a working watch lags, and short enough for a pool to recover after an event was lost.
EXPIRY = 60.0


@dataclass(frozen=True, slots=True)
class Expected:
    """A warm pod that was requested."""

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
        """A creation was issued. If its outcome stays unknown, it is left to expire."""
        self._creates[name] = Expected(name, profile, template, now + EXPIRY)

    def delete(self, uid: str, now: float) -> None:
        """A deletion was issued."""
        self._deletes = {old: until for old, until in self._deletes.items() if until > now}
        self._deletes[uid] = now + EXPIRY

    def observe(self, name: str) -> None:
        """The watch showed the pod, or the API server refused to make it: stop expecting its creation."""
        self._creates.pop(name, None)

    def undelete(self, uid: str) -> None:
        """The pod is gone or being deleted, or its deletion was refused: stop expecting the deletion."""
        self._deletes.pop(uid, None)

    def creates(self, now: float) -> list[Expected]:
        """The expected creations that have not expired."""
        self._creates = {name: one for name, one in self._creates.items() if one.until > now}
        return list(self._creates.values())

    def deleting(self, uid: str, now: float) -> bool:
        """Whether a deletion of this pod by us is under way and has not expired."""
        until = self._deletes.get(uid)
        if until is not None and until <= now:
            del self._deletes[uid]
            return False
        return until is not None
