"""Which gateways are alive, told by those that listen. Pure, by the monotonic clock.

Each gateway renews a Lease of its own (one object per life) every few seconds. It is silent when the **value** of
its renewal has not changed for ``SILENCE`` seconds of our own clock, whatever times stand in it: clocks of two
machines are never compared. Only time in which we could have heard something counts: while the API server is
away, or this process was stopped, nobody could renew, and nobody may be declared dead for that. After both, every
gateway has its full ``SILENCE`` again only as far as it had not used it up.

Silence alone deletes nothing for long: a process that was stopped for a moment, or that the API server does not let
renew, still has users. The dead need a second sign: nobody answers for that life at the address in its Lease
(``lifesign`` asks there). Where nothing can be asked, or nothing answers, only ``UNANSWERED`` seconds of silence
make dead. A life of which there was never a Lease has no address: its silence is enough.

Who ends releases its Lease, and only that is believed at once. A Lease that is not there proves nothing: a gateway that
lives makes it anew with its next renewal.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

RENEW = 5.0
"""Seconds between renewals."""
LEASE_DURATION = 20.0
UNANSWERED = 90.0
"""A process that was stopped, a node or a network that is away: longer than any of these is while people wait."""
LONGEST_GAP = 5.0
"""``listen`` is to be called more often than this; a longer gap counts as deafness."""


class Membership:
    """What this gateway has heard of the others, and of itself."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._listened = 0.0
        self._last: float | None = None
        self._signs: dict[str, str] = {}
        self._renewals: dict[str, float] = {}
        self._left: set[str] = set()
        self._vanished: set[str] = set()

    def __repr__(self) -> str:
        alive = len(self.alive())
        return f"<Presence {alive} alive, {len({self._me, *self._renewals}) - alive} silent or gone>"

    @property
    def listened(self) -> float:
        """Seconds in which we could have heard something."""
        return self._listened

    def observe(self, life: str, sign: str) -> None:
        """The Lease of ``life`` was read; ``sign`` is its renewal, any text that changes with it."""
        if self._signs.get(life) != sign:
            self._signs[life] = sign
            self.answered(life)

    def answered(self, life: str) -> None:
        """It has answered that it lives: its silence begins anew."""
        self._renewals[life] = self._listened
        self._left.discard(life)
        self._vanished.discard(life)

    def vanished(self, life: str) -> None:
        """Nobody answers for it at its address: with its silence it is dead."""
        self._vanished.add(life)

    def left(self, life: str) -> None:
        """It has released its Lease. Lives never come back, so it is dead at once."""
        self._left.add(life)
        self._renewals.setdefault(life, self._listened)

    def listen(self, now: float, lives: Iterable[str] = ()) -> None:
        """Time has passed while the watch of the Leases worked. ``lives``: all that stand on pods.

        A life nobody has heard of yet, since its pod was seen before its Lease, starts its silence now.
        """
        if self._last is not None and 0 <= now - self._last <= LONGEST_GAP:
            self._listened += now - self._last
        self._last = now
        for life in lives:
            self._renewals.setdefault(life, self._listened)

    def mark_disconnected(self) -> None:
        """The watch is down: time does not count until it is up and ``listen`` is called twice again."""
        self._last = None

    def dead(self, life: str) -> bool:
        """Whether what belongs to it is nobody's. Never for ourselves, nor for one we know nothing of."""
        if life == self._me:
            return False
        if life in self._left:
            return True
        if life in self._vanished or life not in self._signs:
            return self.silent(life)
        return self._silence(life) > UNANSWERED

    def absent(self, life: str) -> bool:
        """Whether others do its share of the work. One that is silent may come back and finds its sandboxes."""
        return life != self._me and (life in self._left or self.silent(life))

    def silent(self, life: str) -> bool:
        """Whether nothing was heard of it for so long that everybody who listens knows how it ended."""
        return self._silence(life) > LEASE_DURATION

    def suspects(self) -> list[str]:
        """Those to be asked whether they live: silent ones nobody has declared dead."""
        return sorted(life for life in self._signs if self.absent(life) and not self.dead(life))

    def alive(self) -> list[str]:
        """The gateways that share the pools now, ourselves among them."""
        return sorted({self._me, *(life for life in self._signs if not self.absent(life))})

    def forget(self, but: Set[str]) -> None:
        """Whose silence is over and who is not among ``but``: all lives of which a Lease or a pod speaks.

        Should one be spoken of again, its silence begins anew.
        """
        for life in [life for life in self._renewals if life not in but and self.silent(life)]:
            del self._renewals[life]
            self._signs.pop(life, None)
            self._left.discard(life)
            self._vanished.discard(life)

    def _silence(self, life: str) -> float:
        heard = self._renewals.get(life)
        return 0.0 if heard is None else self._listened - heard
