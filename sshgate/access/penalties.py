"""What sources pay for connections that ended without a login: OpenSSH's PerSourcePenalties. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from sshgate.config.model import Penalties


class Offence(StrEnum):
    """How a connection ended without a login, by the names of its setting."""

    AUTHFAIL = "authfail"
    NOAUTH = "noauth"
    GRACE_EXCEEDED = "grace_exceeded"
    CRASH = "crash"


class Ledger:
    """Adds up what each source owes. From ``min`` on it is refused until it owes nothing any more."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, float] = {}
        self._refused: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<Ledger {len(self._until)} sources>"

    def charge(self, origin: str, offence: Offence, prices: Penalties) -> None:
        """This source pays for one connection more."""
        now = self._now()
        self._forget(now)
        price: float = getattr(prices, offence.value)
        until = min(max(self._until.get(origin, now), now) + price, now + prices.max)
        if origin not in self._until and len(self._until) >= prices.sources:
            # As OpenSSH's "permissive": a stranger with many addresses shuts nobody out.
            self.forgive(min(self._until, key=self._until.__getitem__))
        self._until[origin] = until
        if until - now >= prices.min:
            self._refused[origin] = None

    def wait(self, origin: str) -> int:
        """Whole seconds for which this source is refused; 0: it is not."""
        left = self._until.get(origin, 0.0) - self._now()
        if left <= 0:
            self.forgive(origin)
            return 0
        return int(left) + 1 if origin in self._refused else 0

    def forgive(self, origin: str) -> None:
        """It owes nothing any more."""
        self._until.pop(origin, None)
        self._refused.pop(origin, None)

    def _forget(self, now: float) -> None:
        # A few at a time: a table of many thousands is not searched for every failed login.
        for origin in [one for one, _ in zip(self._until, range(8), strict=False) if self._until[one] <= now]:
            self.forgive(origin)
