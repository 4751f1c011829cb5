"""Which time counts for what, and the clock of one session. Pure.

Three clocks meet here, and each rule uses the one that cannot lie to it:

* ``mono``, this gateway's monotonic clock, for everything it has watched itself: settle ages, stuck starts,
  silent gateways, idle sessions. It never jumps; it stands still while the machine sleeps.
* ``wall``, the API server's clock, for what has to outlive a gateway and so stands on a pod: claimed-at,
  detached-at, expires-at. ``ClusterTime`` learns it from the ``Date`` of the API server's answers, so that all
  gateways share it, whatever their own clocks say.
* this machine's wall clock, for nothing but the time before the first answer.

What a jump does, therefore:

* of this machine's clock: nothing.
* of the API server's, forwards: named sandboxes that nobody is attached to end early, by the jump at most.
* of the API server's, backwards: they end late, by the jump at most. Ages are never less than 0.
* of a node's: the kubelet's own deadline there is off by the jump. Sessions still end by ``mono``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sshgate.config.model import ProfileLimits

# The Date of an HTTP answer is cut to the second.
_DATE_GRAIN = 1.0

WARNINGS = (300.0, 60.0)
"""Seconds before an end at which a terminal is warned."""


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks, in seconds."""

    wall: float
    mono: float


class ClusterTime:
    """The API server's time, told from this machine's monotonic clock.

    Each answer says that the server's clock showed ``Date`` at some moment between sending and receiving, so
    the difference of the clocks lies in an interval; the intersection of all of them is soon far narrower than
    a second. When it becomes empty the server's clock was set, and the newest answer alone counts.
    """

    def __init__(self, now: Now) -> None:
        """``now.wall`` is this machine's own clock, which counts until the first answer."""
        self._low = self._high = now.wall - now.mono
        self._reading = False
        self.jumps = 0
        """How often the server's clock was found to have been set."""

    def __repr__(self) -> str:
        known = f"±{(self._high - self._low) / 2:.3f} s" if self._reading else "not heard yet"
        return f"<ClusterTime {known}, {self.jumps} jumps>"

    def record(self, date: float, sent: float, received: float) -> None:
        """An answer carried ``Date: date`` (POSIX seconds); sent and received by the monotonic clock."""
        low, high = date - received, date + _DATE_GRAIN - sent
        if not self._reading:
            self._low, self._high, self._reading = low, high, True
        elif low > self._high or high < self._low:
            self._low, self._high = low, high
            self.jumps += 1
        else:
            self._low, self._high = max(low, self._low), min(high, self._high)

    def at(self, mono: float) -> Now:
        """The moment that the monotonic clock shows."""
        return Now(mono + (self._low + self._high) / 2, mono)


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the terminal that ``minutes`` are left until ``reason``.

    ``unless_busy``: look first whether a program other than the shell runs; if so call ``busy`` instead.
    """

    minutes: int
    reason: str
    unless_busy: bool


@dataclass(frozen=True, slots=True)
class End:
    """The session is over; ``reason`` completes the sentence "this session ended: ..."."""

    reason: str
    unless_busy: bool


@dataclass(frozen=True, slots=True)
class _Limit:
    reason: str
    ends: float
    length: float
    warned: bool
    """Whether there is somebody to warn."""
    unless_busy: bool


class SessionClock:
    """Idle, detached and lifetime of one session, by the monotonic clock.

    Only sessions with a terminal can be idle: on pipes the command itself is a running program, and running
    programs count as activity. Ask ``next_event`` after each change, sleep until ``when``, ask again; an event
    is due when its ``when`` is not after ``now``. ``told`` says that a due warning has been carried out.
    Nothing is called for each chunk: ``active`` may be called as rarely as once before every look at the clock.
    """

    def __init__(
        self,
        limits: ProfileLimits,
        now: float,
        terminal: bool,
        lifetime: float | None = None,
        running_keeps: bool = False,
    ) -> None:
        """``lifetime``: seconds left of a sandbox that was there before; ``None``: all of ``max_lifetime``.

        ``running_keeps``: a program left running keeps it while nobody is there, as in a named sandbox.
        """
        self._limits = limits
        self._terminal = terminal
        self._running_keeps = running_keeps
        self._lifetime = limits.max_lifetime if lifetime is None else max(0.0, lifetime)
        self._started = now
        self._now = now
        self._active = now
        self._detached: float | None = None
        self._warned: dict[str, float] = {}

    def __repr__(self) -> str:
        left = span(self._started + self._lifetime - self._now)
        if self._detached is not None:
            return f"<SessionClock detached {span(self._now - self._detached)}, {left} left>"
        return f"<SessionClock idle {span(self._now - self._active)}, {left} left>"

    def active(self, now: float) -> None:
        """Bytes went either way at ``now``. Never moves the clock back."""
        self._active = max(self._active, self._tick(now))

    def busy(self, now: float) -> None:
        """A program other than the shell was seen running: as good as bytes."""
        self.active(now)
        if self._detached is not None:
            self._detached = max(self._detached, now)

    def detached(self, now: float) -> None:
        """The client has gone, the session stays. A second call changes nothing."""
        if self._detached is None:
            self._detached = self._tick(now)

    def attached(self, now: float) -> None:
        """A client is there again, which is activity."""
        self._detached = None
        self.active(now)

    def next_event(self, now: float) -> tuple[float, Warn | End] | None:
        """The first thing that will have to be done, and when; ``None``: nothing ever (no limit is set).

        Of several overdue warnings only the last is given, with the minutes that are really left.
        """
        now = self._tick(now)
        events = [self._event(limit, now) for limit in self._limits_now()]
        return min(events, key=lambda event: event[0]) if events else None

    def warning_sent(self, warning: Warn, now: float) -> None:
        """The warning was given; the next one is a later one."""
        now = self._tick(now)
        for limit in self._limits_now():
            if limit.reason == warning.reason:
                due = [lead for lead in WARNINGS if limit.ends - lead <= now]
                self._warned[limit.reason] = limit.ends - min(due, default=WARNINGS[0])

    def _limits_now(self) -> list[_Limit]:
        here = self._detached is None and self._terminal
        length = self._limits.max_lifetime
        found = [_Limit("its time is over", self._started + self._lifetime, length, here, unless_busy=False)]
        if self._detached is not None:
            # Nobody is there to be idle.
            ends = self._detached + self._limits.detached
            looked = self._running_keeps
            found.append(_Limit("nobody came back", ends, self._limits.detached, warned=False, unless_busy=looked))
        elif self._terminal and self._limits.idle > 0:
            ends = self._active + self._limits.idle
            found.append(_Limit("it was idle", ends, self._limits.idle, warned=True, unless_busy=True))
        return found

    def _event(self, limit: _Limit, now: float) -> tuple[float, Warn | End]:
        if limit.warned:
            # A warning at the very start of a short limit would tell nothing.
            leads = [lead for lead in WARNINGS if lead < limit.length]
            warned = self._warned.get(limit.reason, -math.inf)
            ahead = [lead for lead in leads if limit.ends - lead > warned]
            overdue = [lead for lead in ahead if limit.ends - lead <= now]
            if now < limit.ends and ahead:
                lead = min(overdue) if overdue else max(ahead)
                minutes = math.ceil((limit.ends - max(now, limit.ends - lead)) / 60)
                return limit.ends - lead, Warn(minutes, limit.reason, limit.unless_busy)
        return limit.ends, End(limit.reason, limit.unless_busy)

    def _tick(self, now: float) -> float:
        """Time that seems to go back stands still."""
        self._now = max(self._now, now)
        return self._now


def span(seconds: float) -> str:
    """``45s``, ``12m``, ``7h05m``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
