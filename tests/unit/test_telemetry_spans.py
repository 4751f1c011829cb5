"""Spans of events: where each belongs, and how much is kept of what is over."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Record
from sshgate.telemetry.spans import ENDED, Spans
from sshgate.telemetry.timings import Stage, Timings


class Traced:
    """Events whose spans stay here. ``now`` is what the marks' clock and the calendar's show."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self.now = 100.0
        self.set_by = 1_000_000.0
        self.records: list[Record] = []
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider.get_tracer("test"), pods=True, clock=lambda: self.now)
        self.events = Events(self.records.append, clock=lambda: self.now + self.set_by)
        self.events.tracer = self.spans

    def marks(self, session: str, stage: Stage) -> Timings:
        marks = Timings(session, clock=lambda: self.now)
        marks.mark(stage)
        return marks

    def connection(self, name: str) -> None:
        context = self.events.context(connection=name).with_timings(self.marks("", Stage.ACCEPT))
        context.emit(Code.LOGIN, method="publickey")
        context.emit(Code.CONNECTION_END)

    def finished(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


def test_little_is_kept_of_connections_that_are_over() -> None:
    traced = Traced()
    for number in range(ENDED + 10):
        traced.connection(f"c{number}")
    assert repr(traced.spans) == f"<Spans 0 open, {ENDED} remembered>"


def test_a_browsers_session_is_a_root_and_a_sandbox_goes_after_its_session() -> None:
    traced = Traced()
    context = traced.events.context(user="dev", session="s1")
    marked = context.with_timings(traced.marks("s1", Stage.REQUEST))
    marked.emit(Code.SESSION_START)
    traced.now += 5
    marked.emit(Code.SESSION_END, outcome="exited", status=0)
    traced.now += 2
    context.emit(Code.SANDBOX_END, sandbox="pod-1", seconds=1.5)
    (session,), (removal,) = traced.finished("session"), traced.finished("sandbox.remove")
    assert session.parent is None
    assert removal.parent == session.context
    assert removal.attributes is not None
    assert removal.attributes["k8s.pod.name"] == "pod-1"
    assert removal.start_time == (session.end_time or 0) + 500_000_000


def test_a_calendar_that_is_set_bends_no_span() -> None:
    traced = Traced()
    context = traced.events.context(connection="c1").with_timings(traced.marks("", Stage.ACCEPT))
    context.emit(Code.LOGIN)
    traced.set_by -= 86_400
    traced.now += 3
    context.emit(Code.CONNECTION_END)
    (span,) = traced.finished("ssh.connection")
    assert (span.end_time or 0) - (span.start_time or 0) == 3_000_000_000


def test_a_start_that_fails_shows_the_stage_it_failed_in() -> None:
    traced = Traced()
    context = traced.events.context(session="s1").with_timings(traced.marks("s1", Stage.REQUEST))
    context.emit(Code.SESSION_START)
    traced.now += 4
    context.emit(Code.SESSION_FAILED, code="unavailable", reason="no node has room")
    (claim,) = traced.finished("sandbox.claim")
    assert (claim.status.status_code, claim.status.description) == (StatusCode.ERROR, "session.failed")
    assert claim.attributes is not None
    assert claim.attributes["error.type"] == "unavailable"
    assert (claim.end_time or 0) - (claim.start_time or 0) == 4_000_000_000


@pytest.mark.parametrize(("sampler", "shown"), [(ALWAYS_ON, True), (ALWAYS_OFF, False)])
def test_only_a_trace_that_is_sampled_stands_in_the_log(sampler: Sampler, shown: bool) -> None:
    traced = Traced(sampler)
    traced.connection("c1")
    assert ["trace_id" in record.fields for record in traced.records] == [shown, shown]
    assert len(traced.finished("ssh.connection")) == shown


def test_what_belongs_to_nobody_known_is_recorded_without_a_trace() -> None:
    traced = Traced()
    traced.events.emit(Code.REAPED, sandbox="pod-1", reason="orphan")
    traced.events.emit(Code.SANDBOX_END, sandbox="pod-2", session="gone", seconds=1.0)
    assert [record.fields.get("trace_id") for record in traced.records] == [None, None]
