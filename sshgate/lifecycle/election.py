"""Which gateway leads: one keeps the pools full and reaps what dead gateways left. Pure.

The leader's Lease names a life, and that life's own Lease tells whether it is alive, so that leading costs no
request of its own. Two may lead for a moment (one that was stopped and does not know yet): every action of a
leader is idempotent and guarded by preconditions, so that costs requests and harms nobody. So silence is enough to
replace a leader, though not to delete what it holds.
"""

from __future__ import annotations

from sshgate.lifecycle.membership import LEASE_DURATION, Membership

# A leader that has not been able to look for this long may have been replaced.
STALE = LEASE_DURATION / 2


class Election:
    """This gateway's part in it. Times are monotonic."""

    def __init__(self, me: str, presence: Membership) -> None:
        self._me = me
        self._presence = presence
        self._holder: str | None = None
        self._looked: float | None = None

    def __repr__(self) -> str:
        return f"<Election {self._me}, leader {self._holder}>"

    def saw(self, holder: str | None, now: float) -> bool:
        """The leader's Lease was read; whether this gateway is to take it."""
        self._holder = holder
        self._looked = now
        return holder is None or self._presence.absent(holder)

    def won(self, now: float) -> None:
        """The Lease is ours."""
        self._holder = self._me
        self._looked = now

    def leads(self, now: float) -> bool:
        """Whether this gateway leads, as far as it knows."""
        return self._holder == self._me and self._looked is not None and now - self._looked <= STALE

    @property
    def holder(self) -> str | None:
        """The life that leads."""
        return self._holder
