"""Which gateway leads: one keeps the pools full and deletes what dead gateways left. Pure.

The leader's Lease names a gateway instance, and that instance's own Lease shows whether it lives, so leading costs no
renewals of its own. For a moment there may be two leaders (one was stopped and does not know yet that it was
replaced). That costs requests and does no harm, because every action of a leader is idempotent and guarded by
preconditions. Therefore a silent leader is replaced at once, although what it holds is not deleted yet.
"""

from __future__ import annotations

from sshgate.lifecycle.membership import LEASE_DURATION, Membership

# Seconds after which a leader that could not read its Lease may have been replaced.
STALE = LEASE_DURATION / 2


class Election:
    """What this gateway knows of the election. Times are monotonic."""

    def __init__(self, me: str, presence: Membership) -> None:
        self._me = me
        self._presence = presence
        self._holder: str | None = None
        self._looked: float | None = None

    def __repr__(self) -> str:
        return f"<Election {self._me}, leader {self._holder}>"

    def observe(self, holder: str | None, now: float) -> bool:
        """The leader's Lease was read and names ``holder``. Returns whether this gateway should take it."""
        self._holder = holder
        self._looked = now
        return holder is None or self._presence.absent(holder)

    def won(self, now: float) -> None:
        """This gateway has taken the Lease."""
        self._holder = self._me
        self._looked = now

    def leads(self, now: float) -> bool:
        """Whether this gateway leads, as far as it knows."""
        return self._holder == self._me and self._looked is not None and now - self._looked <= STALE

    @property
    def holder(self) -> str | None:
        """The gateway instance that leads; ``None`` where none does, or the Lease was not read yet."""
        return self._holder
