"""Makes OpenTelemetry spans from events.

A connection's span is the root and the parent of its sessions' spans. Below each are the stages of
``telemetry.timings``, and a span for each event that reports how many ``seconds`` something took. Attributes are the
fields of the events, so a trace contains nothing that may not be logged.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Record
from sshgate.telemetry.timings import Stage, Timings

Attributes = Mapping[str, str | int | float | bool]

_ENDS = frozenset(
    {
        Code.CONNECTION_END, Code.CONNECTION_UNAUTHENTICATED, Code.CONNECTION_LIMIT, Code.VERB,
        Code.SESSION_END, Code.SESSION_FAILED, Code.SESSION_CUT, Code.SESSION_BROKEN,
    }
)  # fmt: skip
_ERRORS = frozenset(
    {
        Code.CONNECTION_UNAUTHENTICATED, Code.CONNECTION_LIMIT,
        Code.SESSION_FAILED, Code.SESSION_CUT, Code.SESSION_BROKEN, Code.FORWARD_REFUSED,
    }
)  # fmt: skip
_STAGES: Mapping[Stage, str] = {
    Stage.KEY_EXCHANGE: "ssh.key_exchange",
    Stage.AUTHENTICATION: "ssh.authentication",
    Stage.CLAIM: "sandbox.claim",
    Stage.ENTER: "sandbox.exec",
    Stage.LAUNCH: "program.launch",
    Stage.FIRST_BYTE: "program.first_output",
}
_OF_CONNECTION = (Stage.KEY_EXCHANGE, Stage.AUTHENTICATION)
_OF_START = (Stage.CLAIM, Stage.ENTER, Stage.LAUNCH)
_WITHIN: Mapping[Code, str] = {
    Code.FORWARD_OPEN: "forward.open",
    Code.FORWARD_REFUSED: "forward.open",
    Code.FORWARD_END: "forward",
    Code.FILE_TRANSFER: "file.transfer",
    Code.SANDBOX_END: "sandbox.remove",
}
"""Events about something that has ended, and the name of its span."""
_ATTRIBUTES = {
    "user": "user.name",
    "source": "client.address",
    "status": "process.exit.code",
    "path": "file.path",
    "code": "error.type",
}
"""Fields that have a name in OpenTelemetry's semantic conventions; any other is ``sshgate.FIELD``."""

# Ended spans that are remembered, because a sandbox is removed after its session has ended; thousands of other
# sessions may have ended meanwhile.
ENDED = 4096


@dataclass(slots=True)
class _Branch:
    """The span of a connection or a session, and which child spans it already has."""

    span: Span
    offset: float
    """Seconds from the monotonic clock to the epoch. Fixed per trace, so that setting the clock does not distort it."""
    emitted: set[Stage] = field(default_factory=set)
    started: bool = False


class Spans:
    """An ``events.Tracer`` that makes spans. Call ``end`` when there will be no more events."""

    def __init__(self, tracer: Tracer, pods: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """``pods``: sandboxes are Kubernetes pods. ``clock`` must be the clock of the ``Timings``."""
        self._tracer = tracer
        self._names = _ATTRIBUTES | ({"sandbox": "k8s.pod.name"} if pods else {})
        self._clock = clock
        self._open: dict[str, _Branch] = {}
        self._ended: OrderedDict[str, _Branch] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Spans {len(self._open)} open, {len(self._ended)} remembered>"

    def observe(self, record: Record) -> Mapping[str, str]:
        """Add the event to its trace; return the trace and span id for the log, nothing if it is not sampled."""
        if record.code is Code.CONNECTION_UNAUTHENTICATED and not record.fields.get("failures"):
            return {}  # most likely a balancer's health check
        branch = self._branch(record)
        if branch is None:
            return {}
        if record.code in _WITHIN:
            self._within(branch, record)
        else:
            self._along(branch, record)
        context = branch.span.get_span_context()
        if not context.trace_flags.sampled:
            return {}
        return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}

    def first_byte(self, timings: Timings) -> None:
        """Emit the spans of the session's start now, however long the session goes on."""
        branch = self._open.get(timings.session)
        if branch is not None:
            self._stages(branch, timings)

    def end(self) -> None:
        """End all open spans."""
        for branch in self._open.values():
            branch.span.end()
        self._open.clear()

    def _branch(self, record: Record) -> _Branch | None:
        """Return the branch of the event's session or connection; start its span at the first event with timings."""
        connection, session = (str(record.fields.get(name, "")) for name in ("connection", "session"))
        above = self._known(connection)
        known = self._known(session) if session else above
        if known is not None or record.timings is None:
            return known or above
        began = record.timings.times[Stage.REQUEST if session else Stage.ACCEPT]
        offset = above.offset if above is not None else record.at - self._clock()
        span = self._tracer.start_span(
            "session" if session else "ssh.connection",
            _below(above),
            SpanKind.INTERNAL if above is not None else SpanKind.SERVER,
            start_time=_nanoseconds(began + offset),
        )
        branch = _Branch(span, offset, emitted=set(_OF_CONNECTION) if session else set())
        self._open[session or connection] = branch
        return branch

    def _known(self, name: str) -> _Branch | None:
        return self._open.get(name) or self._ended.get(name)

    def _along(self, branch: _Branch, record: Record) -> None:
        """Apply an event about the connection or session itself."""
        attributes = self._attributes(record)
        branch.span.set_attributes(attributes)
        branch.started = branch.started or record.code is Code.SESSION_START
        if record.timings is not None:
            self._stages(branch, record.timings, attributes if record.code is Code.CLAIM else None)
        if record.code in _ENDS:
            self._broken_off(branch, record)
            _failed(branch.span, record)
            branch.span.end(_nanoseconds(self._clock() + branch.offset))
            self._over(str(record.fields.get("session") or record.fields.get("connection")))

    def _over(self, name: str) -> None:
        branch = self._open.pop(name, None)
        if branch is not None:
            self._ended[name] = branch
            if len(self._ended) > ENDED:
                self._ended.popitem(last=False)

    def _within(self, branch: _Branch, record: Record) -> None:
        """Add a child span for something that ends with this event."""
        now = self._clock()
        took = record.fields.get("seconds")
        if isinstance(took, float):
            began = now - took
        elif record.timings is not None and Stage.LAUNCH in record.timings.times:
            began = record.timings.times[Stage.LAUNCH]
        else:
            return
        self._child(branch, _WITHIN[record.code], began, now, self._attributes(record), record)

    def _stages(self, branch: _Branch, timings: Timings, attributes: Attributes | None = None) -> None:
        """Add a child span for each stage that has ended and has none yet."""
        first = min(timings.times.values(), default=0.0)
        for stage, took, since in timings.steps():
            if stage in _STAGES and stage not in branch.emitted:
                branch.emitted.add(stage)
                self._child(branch, _STAGES[stage], first + since - took, first + since, attributes)

    def _broken_off(self, branch: _Branch, record: Record) -> None:
        """Add a child span for the stage in which a login or a start failed."""
        stages = _OF_START if branch.started else _OF_CONNECTION
        if record.timings is None or not (branch.started or record.code is Code.CONNECTION_UNAUTHENTICATED):
            return
        stage = next((stage for stage in stages if stage not in record.timings.times), None)
        if stage is not None:
            self._child(branch, _STAGES[stage], max(record.timings.times.values()), self._clock(), None, record)

    def _child(
        self,
        branch: _Branch,
        name: str,
        began: float,
        ended: float,
        attributes: Attributes | None,
        record: Record | None = None,
    ) -> None:
        start, end = (_nanoseconds(when + branch.offset) for when in (began, ended))
        span = self._tracer.start_span(name, _below(branch), attributes=attributes, start_time=start)
        if record is not None:
            _failed(span, record)
        span.end(end)

    def _attributes(self, record: Record) -> Attributes:
        return {self._names.get(name, f"sshgate.{name}"): value for name, value in record.fields.items()}


def _failed(span: Span, record: Record) -> None:
    if record.code in _ERRORS or record.fields.get("outcome") == "lost":
        span.set_status(StatusCode.ERROR, record.code.value)
        span.set_attribute("error.type", record.fields.get("code", record.code.value))


def _below(branch: _Branch | None) -> Context | None:
    return trace.set_span_in_context(branch.span) if branch is not None else Context()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
