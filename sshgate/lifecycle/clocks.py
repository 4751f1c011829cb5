"""Which clock counts for what, and the clock of one session. Pure.

There are three clocks, and each rule uses the one that is reliable for it:

* ``mono``, this gateway's monotonic clock, for everything that it observes itself: settle ages, stuck starts, silent
  gateways, idle sessions. It never jumps; it stands still while the machine sleeps.
* ``wall``, the API server's clock, for what has to outlive a gateway and is therefore written on a pod: claimed-at,
  detached-at, expires-at. ``ClusterTime`` derives it from the ``Date`` header of the API server's answers, so that
  all gateways share it whatever their own clocks show.
* this machine's wall clock, only until the first answer.

So these are the effects of a clock that is set:

* this machine's clock: none.
* the API server's, forwards: named sandboxes without clients end early, by the jump at most.
* the API server's, backwards: they end late, by the jump at most. Ages are never less than 0.
* a node's: the kubelet's own deadline there is off by the jump. Sessions still end by ``mono``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sshgate.config.model import ProfileLimits

# Seconds: the Date of an HTTP answer is rounded down to the second.
_DATE_GRAIN = 1.0

WARNINGS = (300.0, 60.0)
"""Seconds before an end at which the user of a terminal is warned."""


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks: ``wall`` in POSIX seconds of the API server, ``mono`` in seconds of this machine."""

    wall: float
    mono: float


class ClusterTime:
    """The API server's time, computed from this machine's monotonic clock.

    The server's clock showed an answer's ``Date`` at some moment between sending and receiving, so each answer bounds
    the difference of the clocks by an interval. The intersection of all of them is soon far narrower than a second.
    When it becomes empty the server's clock was set, and only the newest answer counts.
    """

    def __init__(self, now: Now) -> None:
        """``now.wall`` is this machine's own clock, which counts until the first answer."""
        self._low = self._high = now.wall - now.mono
        self._reading = False
        self.jumps = 0
        """How often the server's clock was found to have been set."""

    def __repr__(self) -> str:
        known = f"±{(self._high - self._low) / 2:.3f} s" if self._reading else "no answer yet"
        return f"<ClusterTime {known}, {self.jumps} jumps>"

    def observe(self, date: float, sent: float, received: float) -> None:
        """Take an answer's ``date`` (POSIX seconds), requested at ``sent`` and received at ``received`` (monotonic)."""
        low, high = date - received, date + _DATE_GRAIN - sent
        if not self._reading:
            self._low, self._high, self._reading = low, high, True
        elif low > self._high or high < self._low:
            self._low, self._high = low, high
            self.jumps += 1
        else:
            self._low, self._high = max(low, self._low), min(high, self._high)

    def at(self, mono: float) -> Now:
        """The moment at which the monotonic clock shows ``mono``."""
        return Now(mono + (self._low + self._high) / 2, mono)


# Between two looks whether a program runs, at least: each is an exec.
LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Warn:
    """Warn the user that ``minutes`` are left until the session ends for ``reason``.

    ``unless_busy``: look first whether a program other than the shell runs; if so, call ``SessionClock.busy`` instead.
    """

    minutes: int
    reason: str
    unless_busy: bool


@dataclass(frozen=True, slots=True)
class End:
    """The session is over; ``reason`` completes "this session ended: ...". ``unless_busy`` as for ``Warn``."""

    reason: str
    unless_busy: bool


@dataclass(frozen=True, slots=True)
class _Limit:
    clock: str
    reason: str
    ends: float
    length: float
    warned: bool
    """Whether there is a terminal to warn before the end."""
    unless_busy: bool


class SessionClock:
    """The idle, detached and lifetime limits of one session, by the monotonic clock.

    Only sessions with a terminal can be idle: on pipes the command itself is a running program, and running programs
    count as activity. Call ``next_event`` after each change, sleep until its time, and call it again; an event is due
    when its time is not after ``now``. After a due warning was sent, call ``warning_sent``. Activity need not be
    reported for each chunk of bytes: ``active`` once before each ``next_event`` is enough.
    """

    def __init__(
        self,
        limits: ProfileLimits,
        now: float,
        terminal: bool,
        lifetime: float | None = None,
        running_keeps: bool = False,
    ) -> None:
        """Start the clock at ``now``.

        Args:
            lifetime: seconds left of a sandbox that existed before; ``None``: all of ``limits.max_lifetime``.
            running_keeps: whether a running program keeps a detached session, as in a named sandbox.
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
        """Bytes went in either direction at ``now``. An older time than the last one changes nothing."""
        self._active = max(self._active, self._tick(now))

    def busy(self, now: float) -> None:
        """A program other than the shell was found running, which counts as activity."""
        self.active(now)
        if self._detached is not None:
            # With ``detached: 0`` the next look would be due at once, and so on without an end.
            self._detached = max(self._detached, now + max(0.0, LOOK_AGAIN_SECONDS - self._limits.detached))

    def detached(self, now: float) -> None:
        """The client has disconnected and the session stays. A second call changes nothing."""
        if self._detached is None:
            self._detached = self._tick(now)

    def attached(self, now: float) -> None:
        """A client is attached again, which counts as activity."""
        self._detached = None
        self.active(now)

    def next_event(self, now: float) -> tuple[float, Warn | End]:
        """The next warning or end, and the monotonic time at which it is due.

        Of several overdue warnings only the last is returned, with the minutes that are really left.
        """
        now = self._tick(now)
        return min((self._event(limit, now) for limit in self._limits_now()), key=lambda event: event[0])

    def warning_sent(self, warning: Warn, now: float) -> None:
        """The warning was sent, so that it and earlier ones of this limit are not returned again."""
        now = self._tick(now)
        for limit in self._limits_now():
            if limit.reason == warning.reason:
                due = [lead for lead in WARNINGS if limit.ends - lead <= now]
                self._warned[limit.reason] = limit.ends - min(due, default=WARNINGS[0])

    def ends(self) -> dict[str, float]:
        """When each clock that runs now ends the session: ``lifetime``, and ``idle`` or ``detached``.

        A program that runs then may put off the last two.
        """
        return {limit.clock: limit.ends for limit in self._limits_now()}

    def _limits_now(self) -> list[_Limit]:
        here = self._detached is None and self._terminal
        length = self._limits.max_lifetime
        ends = self._started + self._lifetime
        found = [_Limit("lifetime", "its time is over", ends, length, here, unless_busy=False)]
        if self._detached is not None:
            # A session without a client cannot be idle.
            ends = self._detached + self._limits.detached
            looked = self._running_keeps
            length = self._limits.detached
            found.append(_Limit("detached", "nobody came back", ends, length, warned=False, unless_busy=looked))
        elif self._terminal and self._limits.idle > 0:
            ends = self._active + self._limits.idle
            found.append(_Limit("idle", "it was idle", ends, self._limits.idle, warned=True, unless_busy=True))
        return found

    def _event(self, limit: _Limit, now: float) -> tuple[float, Warn | End]:
        if limit.warned:
            # No warning at the very start of a limit that is shorter than its lead.
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
        """The latest time so far: a clock that goes back stands still instead."""
        self._now = max(self._now, now)
        return self._now


def span(seconds: float) -> str:
    """A duration for people: ``45s``, ``12m``, ``7h05m``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
