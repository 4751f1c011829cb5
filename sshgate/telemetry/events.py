"""Audit events: what happened, to whom, with which key, from where, in which sandbox, and how it ended.

Code that emits events holds an ``EventContext``, which already has the connection, the user and the session, and calls
``emit`` with a code. Events never contain keystrokes, output, command texts (only their length), environment, secrets.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from sshgate.telemetry.codes import LEVELS, Code
from sshgate.telemetry.rate_limit import MINUTE, RateLimit
from sshgate.telemetry.timings import Timings

Value = str | int | float | bool | None
"""What a field may hold; ``None`` leaves the field out."""

# Characters kept of a text. Clients choose some of the texts and must not be able to fill the log.
LONGEST_TEXT = 512

# Events of one code that strangers may cause within a minute: from one network, and in all.
EACH = 30
TOTAL = 600

log = structlog.get_logger("sshgate.events")


@dataclass(frozen=True, slots=True)
class Record:
    """One event, as sinks receive it."""

    code: Code
    at: float
    """Seconds since the epoch."""
    level: int
    """The level of the log line, as in ``logging``."""
    fields: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """All text in it is printable."""
    error: BaseException | None = None
    """The exception behind a defect; for the log only."""
    timings: Timings | None = None
    """The timings of the session or connection so far; for traces only."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """Somebody who has not logged in. Events that strangers cause are rate limited, so that nobody can fill a disk."""

    network: str
    """Their network; see ``access.connections.network_of``."""
    each: int = EACH
    """How many events of a code are passed on within a minute for this network."""


Sink = Callable[[Record], None]


class Tracer(Protocol):
    """Turns events into traces. Methods are called on the event loop and must not block."""

    def observe(self, record: Record) -> Mapping[str, str]:
        """Add the event to its trace, and return fields to add to the event, such as the trace id.

        Called before the sinks. If this raises, the exception is logged and the event goes on without these fields.
        """

    def first_byte(self, timings: Timings) -> None:
        """Record that the session with these timings has sent its first output."""


class Events:
    """Passes events to all sinks, synchronously and in order.

    Of the events of strangers, those beyond the rate limits are only counted, and reported within a minute. An
    exception in a sink is logged and does not reach the emitter or the other sinks. ``tracer`` is ``None`` while traces
    are off.

    Args:
        counter: a sink that gets the omitted events too.
        clock: gives seconds since the epoch.
    """

    def __init__(self, *sinks: Sink, counter: Sink | None = None, clock: Callable[[], float] = time.time) -> None:
        self._sinks = list(sinks)
        self._counter = counter
        self._clock = clock
        self._limits: dict[Code, RateLimit] = {}
        self._omitted: Counter[Code] = Counter()
        self.tracer: Tracer | None = None
        self.others: Callable[[Code, str], None] | None = None
        """Called with the code and the network of each event of a stranger that is passed on, for other workers."""
        self.emit = EventContext(self, {}).emit
        """Emits an event that shares no fields with others."""

    def add(self, sink: Sink) -> None:
        """Add a sink for later events."""
        self._sinks.append(sink)

    def context(self, **fields: Value) -> EventContext:
        """Return a context for something that goes on, with the fields that all its events share."""
        return EventContext(self, fields)

    def dispatch(
        self,
        code: Code,
        fields: Mapping[str, Value],
        level: int | None,
        error: BaseException | None,
        timings: Timings | None,
        stranger: Stranger | None,
    ) -> None:
        """Emit an event with all its fields in a mapping; see ``EventContext.emit``. ``timings``: of its session."""
        printable = {name: _printable(value) for name, value in fields.items() if value is not None}
        record = Record(
            code, self._clock(), LEVELS.get(code, 20) if level is None else level, printable, error, timings
        )
        if self.tracer is not None:
            try:
                record = replace(record, fields={**printable, **self.tracer.observe(record)})
            except Exception:
                log.exception("event.untraced", code=code.value)
        sinks = [] if stranger is not None and self._omits(code, stranger) else self._sinks
        for sink in filter(None, (self._counter, *sinks)):
            try:
                sink(record)
            except Exception:
                log.exception("event.undelivered", code=code.value)

    def _omits(self, code: Code, stranger: Stranger) -> bool:
        if self._limit(code).due(stranger.network, stranger.each):
            if self.others is not None:
                self.others(code, stranger.network)
            return False
        if not self._omitted:
            asyncio.get_running_loop().call_later(MINUTE, self.report_omitted)
        self._omitted[code] += 1
        return True

    def _limit(self, code: Code) -> RateLimit:
        return self._limits.setdefault(code, RateLimit(total=TOTAL))

    def passed_elsewhere(self, code: Code, network: str) -> None:
        """Another worker of this gateway has passed on an event of a stranger: it counts here as well."""
        self._limit(code).count(network)

    def report_omitted(self) -> None:
        """Emit how many events were omitted since the last report, by code."""
        omitted, self._omitted = self._omitted, Counter()
        for code, count in omitted.items():
            self.emit(Code.EVENTS_OMITTED, code=code.value, count=count)


class EventContext:
    """Emits events that share fields such as ``connection``, ``user``, ``session`` or ``sandbox``. Immutable."""

    def __init__(self, events: Events, fields: Mapping[str, Value], timings: Timings | None = None) -> None:
        self._events = events
        self._timings = timings
        self.fields = fields

    def with_fields(self, **fields: Value) -> EventContext:
        """Return a context with additional fields, or new values for existing ones."""
        return EventContext(self._events, {**self.fields, **fields}, self._timings)

    def with_timings(self, timings: Timings) -> EventContext:
        """Return a context whose events carry these timings, with the stages reached when the event is emitted."""
        return EventContext(self._events, self.fields, timings)

    def emit(
        self,
        code: Code,
        /,
        *,
        level: int | None = None,
        error: BaseException | None = None,
        stranger: Stranger | None = None,
        **fields: Value,
    ) -> None:
        """Emit an event. Never raises. Texts are made printable and shortened here, so callers pass them as they are.

        Args:
            level: overrides the log level that ``codes.LEVELS`` gives to the code.
            error: an exception whose traceback goes to the log.
            stranger: who has caused it, if nobody has logged in.
            fields: more fields besides those of this context; those that are ``None`` are left out.
        """
        self._events.dispatch(code, {**self.fields, **fields}, level, error, self._timings, stranger)


def to_log(record: Record) -> None:
    """Sink that writes each event to the gateway's log."""
    more: dict[str, object] = {} if record.error is None else {"exc_info": record.error}
    log.log(record.level, record.code.value, **record.fields, **more)


def _printable(value: str | int | float | bool) -> str | int | float | bool:
    """Shorten and escape a text. One chosen by a user must not control the reader's terminal or fake a log line."""
    if not isinstance(value, str):
        return value
    text = value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "..."
    return escape(text)


def escape(text: str) -> str:
    """Escape a text that is not printable as it is: it could control its reader's terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
