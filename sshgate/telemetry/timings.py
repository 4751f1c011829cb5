"""The waterfall of a login: when each stage was over, from TCP to the program's first byte.

Marks are taken on the monotonic clock where the stage ends, one call each. They feed the histograms of ``metrics``
and the receipts that users can ask for.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from enum import StrEnum


class Stage(StrEnum):
    """The stages, in their order. Each mark says that the stage is over."""

    ACCEPT = "accept"
    """The TCP connection is there: the zero of the waterfall."""
    KEY_EXCHANGE = "key exchange"
    AUTHENTICATION = "authentication"
    REQUEST = "request"
    """The client has said what it wants; what came before was the client's own pace."""
    CLAIM = "claim"
    """The sandbox is ours: a warm one was won, or a cold one was ordered."""
    ENTER = "enter"
    """A launcher in it waits for its line."""
    LAUNCH = "launch"
    """The line was handed over; on a terminal, the program has begun."""
    FIRST_BYTE = "first byte"


# As many as a person looks at.
RECEIPTS_PER_USER = 5
USERS = 200


class Timings:
    """The marks of one session. ``before`` are those of its connection."""

    __slots__ = ("_clock", "how", "session", "times")

    def __init__(
        self,
        session: str = "",
        before: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session
        self.how = "cold"
        """How the sandbox was had: ``warm``, ``cold`` or ``joined`` (it was there already)."""
        self.times: dict[str, float] = dict(before or {})
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Marks {self.session}: {self.line()}>"

    def mark(self, stage: Stage) -> None:
        """``stage`` is over now; only the first time counts."""
        if stage not in self.times:
            self.times[stage] = self._clock()

    def between(self, earlier: Stage, later: Stage) -> float | None:
        """Seconds from one mark to the other; ``None`` where one was not taken."""
        if earlier in self.times and later in self.times:
            return self.times[later] - self.times[earlier]
        return None

    def steps(self) -> list[tuple[Stage, float, float]]:
        """Each stage that is over, with the seconds it took and the seconds since the first mark."""
        taken = [(stage, self.times[stage]) for stage in Stage if stage in self.times]
        return [
            (stage, when - (taken[at - 1][1] if at else when), when - taken[0][1])
            for at, (stage, when) in enumerate(taken)
        ]

    def line(self) -> str:
        """One line: ``key exchange 12 ms, ..., first byte 3 ms: 48 ms after the request (warm)``."""
        parts = [f"{stage} {1000 * took:.0f} ms" for stage, took, _ in self.steps()[1:]]
        waited = self.between(Stage.REQUEST, Stage.FIRST_BYTE)
        end = "" if waited is None else f": {1000 * waited:.0f} ms from request to first byte"
        return f"{', '.join(parts)}{end} ({self.how})"


def since(began: float) -> float:
    """Seconds since this moment of the monotonic clock, as events tell them: to the millisecond."""
    return round(time.monotonic() - began, 3)


class TimingHistory:
    """The last waterfalls of each user, in memory only; the oldest users are forgotten."""

    def __init__(self, per_user: int = RECEIPTS_PER_USER, users: int = USERS) -> None:
        self._per_user = per_user
        self._most = users
        self._users: OrderedDict[str, deque[Timings]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Receipts of {len(self._users)} users>"

    def add(self, user: str, marks: Timings) -> None:
        """Keep the marks of a session that begins; those taken later are seen too."""
        self._users.setdefault(user, deque(maxlen=self._per_user)).append(marks)
        self._users.move_to_end(user)
        if len(self._users) > self._most:
            self._users.popitem(last=False)

    def text(self, user: str) -> str:
        """The waterfalls of this user, newest first, as lines for people."""
        kept = self._users.get(user)
        if not kept:
            return "no session of yours has started since this gateway did.\n"
        return "\n".join(_waterfall(marks) for marks in reversed(kept))


def _waterfall(marks: Timings) -> str:
    lines = [f"session {marks.session} ({marks.how})"]
    steps = marks.steps()
    whole = steps[-1][2] if steps else 0.0
    for stage, took, since in steps:
        before = 40 * (since - took) / whole if whole else 0
        bar = " " * int(before) + "#" * max(1, round(40 * took / whole) if whole else 1)
        lines.append(f"  {stage:<15} {1000 * took:8.1f} ms  {1000 * since:8.1f} ms  {bar[:41]}")
    return "\n".join(lines) + "\n"
