"""Audit events: what happened, to whom, by which key, from where, in which sandbox, and how it ended.

Whoever has something to tell holds a ``Trail``, which already knows the connection, the user and the session, and
calls ``tell`` with a code. Never told: keystrokes, output, commands' texts (their length is), environment, secrets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from sshgate.telemetry.codes import LEVELS, Code
from sshgate.telemetry.timings import Timings

Value = str | int | float | bool | None
"""What a field may hold; ``None`` leaves the field out."""

# Longer texts come from somebody who wants to fill the log.
LONGEST_TEXT = 512

log = structlog.get_logger("sshgate.events")


@dataclass(frozen=True, slots=True)
class Record:
    """One event. ``fields`` hold printable text only; ``error`` is a defect's exception, for the log alone.

    ``marks`` are those of the session or connection so far, for traces alone.
    """

    code: Code
    at: float
    """Seconds since the epoch."""
    level: int
    fields: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    error: BaseException | None = None
    marks: Timings | None = None


Sink = Callable[[Record], None]


class Tracer(Protocol):
    """Makes traces of events."""

    def observe(self, record: Record) -> Mapping[str, str]:
        """Told before any sink; the fields to add, so that log and trace find each other."""

    def first_byte(self, marks: Timings) -> None:
        """A session's program has said something for the first time."""


class Events:
    """Hands every event to all its sinks, at once and in order. A sink that fails takes nothing else down."""

    def __init__(self, *sinks: Sink, clock: Callable[[], float] = time.time) -> None:
        self._sinks = list(sinks)
        self._clock = clock
        self.tracer: Tracer | None = None

    def __repr__(self) -> str:
        return f"<Events to {len(self._sinks)} sinks>"

    def add(self, sink: Sink) -> None:
        """From now on ``sink`` is told too."""
        self._sinks.append(sink)

    def context(self, **fields: Value) -> EventContext:
        """The trail of something that goes on, with the fields that all its events share."""
        return EventContext(self, fields)

    def emit(
        self, code: Code, /, *, level: int | None = None, error: BaseException | None = None, **fields: Value
    ) -> None:
        """Something happened. Texts are made printable here, so callers need not think of it. Never raises.

        ``level`` is for an event whose gravity depends on the case; else the code decides.
        """
        self.dispatch(code, fields, level, error)

    def dispatch(
        self,
        code: Code,
        fields: Mapping[str, Value],
        level: int | None = None,
        error: BaseException | None = None,
        marks: Timings | None = None,
    ) -> None:
        """``tell`` with the fields as a mapping, and with ``marks``."""
        printable = {name: _printable(value) for name, value in fields.items() if value is not None}
        record = Record(code, self._clock(), LEVELS.get(code, 20) if level is None else level, printable, error, marks)
        if self.tracer is not None:
            try:
                record = replace(record, fields={**printable, **self.tracer.observe(record)})
            except Exception:
                log.exception("event.untraced", code=code.value)
        for sink in self._sinks:
            try:
                sink(record)
            except Exception:
                log.exception("event.undelivered", code=code.value)


class EventContext:
    """Tells events with the fields that were bound to it: ``connection``, ``user``, ``session``, ``sandbox``..."""

    def __init__(self, events: Events, fields: Mapping[str, Value], marks: Timings | None = None) -> None:
        self._events = events
        self._marks = marks
        self.fields = fields

    def __repr__(self) -> str:
        return f"<Trail {' '.join(f'{name}={value}' for name, value in self.fields.items())}>"

    def with_fields(self, **fields: Value) -> EventContext:
        """A trail with more fields, or other values for some."""
        return EventContext(self._events, {**self.fields, **fields}, self._marks)

    def with_timings(self, marks: Timings) -> EventContext:
        """A trail whose events bear these marks, as they are when told."""
        return EventContext(self._events, self.fields, marks)

    def emit(
        self, code: Code, /, *, level: int | None = None, error: BaseException | None = None, **fields: Value
    ) -> None:
        """As ``Events.tell``, with the fields of this trail."""
        self._events.dispatch(code, {**self.fields, **fields}, level, error, self._marks)


def to_log(record: Record) -> None:
    """The sink that writes to the gateway's log stream."""
    more: dict[str, object] = {} if record.error is None else {"exc_info": record.error}
    log.log(record.level, record.code.value, **record.fields, **more)


def _printable(value: str | int | float | bool) -> str | int | float | bool:
    """User-chosen text must not move the cursor of whoever reads it, nor pretend to be another line."""
    if not isinstance(value, str):
        return value
    text = value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "..."
    return text if text.isprintable() else text.encode("unicode_escape", "surrogatepass").decode("ascii")
