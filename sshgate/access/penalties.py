"""Penalties for sources whose connections end without a login, as OpenSSH's PerSourcePenalties. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from sshgate.config.model import Penalties


class Offence(StrEnum):
    """How a connection ended without a login. The values name the fields of ``config.model.Penalties``."""

    AUTHFAIL = "authfail"
    NOAUTH = "noauth"
    GRACE_EXCEEDED = "grace_exceeded"
    CRASH = "crash"


class PenaltyTable:
    """The debt of each source in seconds, which decreases with time.

    A source whose debt reaches ``Penalties.min`` is refused until nothing is left of it. ``now`` is a monotonic
    clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, float] = {}
        self._refused: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<PenaltyTable {len(self._until)} sources>"

    def charge(self, origin: str, offence: Offence, prices: Penalties) -> None:
        """Add the price of one more failed connection to the debt of this source, up to ``prices.max``."""
        now = self._now()
        self._forget(now)
        price: float = getattr(prices, offence.value)
        until = min(max(self._until.get(origin, now), now) + price, now + prices.max)
        if origin not in self._until and len(self._until) >= prices.sources:
            # As OpenSSH's "permissive" overflow mode: forget a source instead of refusing all new ones, so that an
            # attacker with many addresses locks nobody out.
            self.forgive(min(self._until, key=self._until.__getitem__))
        self._until[origin] = until
        if until - now >= prices.min:
            self._refused[origin] = None

    def wait(self, origin: str) -> int:
        """Return for how many whole seconds this source is still refused; 0: it is not."""
        left = self._until.get(origin, 0.0) - self._now()
        if left <= 0:
            self.forgive(origin)
            return 0
        return int(left) + 1 if origin in self._refused else 0

    def forgive(self, origin: str) -> None:
        """Cancel the debt of this source."""
        self._until.pop(origin, None)
        self._refused.pop(origin, None)

    def _forget(self, now: float) -> None:
        # Check only a few entries per call: the table may hold many thousands.
        for origin in [one for one, _ in zip(self._until, range(8), strict=False) if self._until[one] <= now]:
            self.forgive(origin)
