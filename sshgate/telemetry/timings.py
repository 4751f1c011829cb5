"""The timings of a login: when each stage ended, from TCP to the program's first output.

Each stage is marked once, on the monotonic clock, where it ends. The timings feed the histograms of ``metrics``, the
traces, and the report that users can request.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum


class Stage(StrEnum):
    """The stages of a login, in order. A mark is the moment when its stage ended."""

    ACCEPT = "accept"
    """The TCP connection was accepted: time zero."""
    KEY_EXCHANGE = "key exchange"
    AUTHENTICATION = "authentication"
    REQUEST = "request"
    """The client's request has arrived; the time since authentication was the client's own."""
    CLAIM = "claim"
    """The login has its sandbox: a warm one was claimed, or a cold one was ordered."""
    ENTER = "enter"
    """A launcher in the sandbox waits for its command line."""
    LAUNCH = "launch"
    """The command line was sent to the launcher; on a terminal, the program has started."""
    FIRST_BYTE = "first byte"


# Sessions kept per user, and users.
RECEIPTS_PER_USER = 5
USERS = 200


class Timings:
    """The timings of one session, or of a connection before its first session.

    ``times`` maps each stage that has ended to its time on ``clock``. ``before`` are the times of the connection.
    """

    __slots__ = ("_clock", "how", "session", "times")

    def __init__(
        self, session: str = "", before: Mapping[str, float] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.session = session
        self.how = "cold"
        """How the session got its sandbox: ``warm``, ``cold`` or ``joined`` (it existed already)."""
        self.times: dict[str, float] = dict(before or {})
        self._clock = clock

    def mark(self, stage: Stage) -> None:
        """Record that ``stage`` has ended now. Only the first call for a stage counts."""
        if stage not in self.times:
            self.times[stage] = self._clock()

    def between(self, earlier: Stage, later: Stage) -> float | None:
        """Return the seconds between the ends of two stages; ``None`` if one of them has not ended."""
        if earlier in self.times and later in self.times:
            return self.times[later] - self.times[earlier]
        return None

    def steps(self) -> list[tuple[Stage, float, float]]:
        """Return each stage that has ended, with its duration and its end since the first mark, in seconds."""
        taken = [(stage, self.times[stage]) for stage in Stage if stage in self.times]
        return [
            (stage, when - (taken[at - 1][1] if at else when), when - taken[0][1])
            for at, (stage, when) in enumerate(taken)
        ]

    def line(self) -> str:
        """Format as ``key exchange 12 ms, ..., first byte 3 ms: 48 ms from request to first byte (warm)``."""
        parts = [f"{stage} {1000 * took:.0f} ms" for stage, took, _ in self.steps()[1:]]
        waited = self.between(Stage.REQUEST, Stage.FIRST_BYTE)
        end = "" if waited is None else f": {1000 * waited:.0f} ms from request to first byte"
        return f"{', '.join(parts)}{end} ({self.how})"


def since(began: float) -> float:
    """Return the seconds since a moment of the monotonic clock, rounded to milliseconds as events report them."""
    return round(time.monotonic() - began, 3)


class TimingHistory:
    """The last timings of each user, in memory only. Beyond ``USERS`` the one idle for longest is dropped."""

    def __init__(self) -> None:
        self._users: OrderedDict[str, deque[Timings]] = OrderedDict()

    def add(self, user: str, timings: Timings) -> None:
        """Keep the timings of a session that begins. Stages marked later appear in ``text`` too."""
        self._users.setdefault(user, deque(maxlen=RECEIPTS_PER_USER)).append(timings)
        self._users.move_to_end(user)
        if len(self._users) > USERS:
            self._users.popitem(last=False)

    def of(self, user: str) -> list[tuple[float, str]]:
        """Return the begin of each session of this user, in monotonic seconds, and its timings as readable text."""
        return [(min(one.times.values(), default=0.0), _waterfall(one)) for one in self._users.get(user, ())]

    def text(self, user: str, more: Iterable[tuple[float, str]] = ()) -> str:
        """Return the timings of this user's last sessions as readable text, newest first. ``more``: as from ``of``."""
        kept = sorted([*self.of(user), *more], reverse=True)[:RECEIPTS_PER_USER]
        return "\n".join(text for _, text in kept) or "no session of yours has started since this gateway did.\n"


def _waterfall(timings: Timings) -> str:
    lines = [f"session {timings.session} ({timings.how})"]
    steps = timings.steps()
    whole = steps[-1][2] if steps else 0.0
    for stage, took, since in steps:
        before = 40 * (since - took) / whole if whole else 0
        bar = " " * int(before) + "#" * max(1, round(40 * took / whole) if whole else 1)
        lines.append(f"  {stage:<15} {1000 * took:8.1f} ms  {1000 * since:8.1f} ms  {bar[:41]}")
    return "\n".join(lines) + "\n"
