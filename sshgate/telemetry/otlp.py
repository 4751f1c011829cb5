"""The way of spans to a collector, OTLP over HTTP: in a thread of its own, by a queue with a bound.

Whoever ends a span appends to that queue (2048 spans unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise; what does not fit
is lost) and waits for nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from sshgate import __version__
from sshgate.config.model import Traces

PATH = "/v1/traces"

log = structlog.get_logger("sshgate.traces")


def provider(settings: Traces, headers: Mapping[str, str]) -> TracerProvider:
    """Makes spans that go to the collector. ``shutdown`` sends what waits, and blocks meanwhile."""
    # It tells of every batch that failed, with what servers said.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "sshgate"),
            "service.version": __version__,
            "host.name": socket.gethostname(),
        }
    )
    made = TracerProvider(ParentBased(TraceIdRatioBased(settings.sample)), resource, shutdown_on_exit=False)
    session = requests.Session()
    exporter = OTLPSpanExporter(settings.endpoint + PATH, headers=dict(headers), session=session)
    quiet = Quiet(exporter, settings.endpoint)
    # The exporter tells that it failed, and not how.
    session.hooks["response"].append(quiet.answered)
    made.add_span_processor(BatchSpanProcessor(quiet))
    return made


class Quiet(SpanExporter):
    """Says once why a collector takes nothing, and once that it does again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._status: int | None = None
        self._failing: str | None = None

    def __repr__(self) -> str:
        return f"<Quiet {self._endpoint} {'works' if self._failing is None else 'fails'}>"

    def answered(self, response: requests.Response, *_: object, **__: object) -> None:
        """The collector has answered, well or not: requests' hook."""
        self._status = response.status_code

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._status = None
        result = self._exporter.export(spans)
        failing = None if result is SpanExportResult.SUCCESS else self._why()
        if failing is not None and failing != self._failing:
            log.warning(f"traces are lost: {failing}", endpoint=self._endpoint)
        elif self._failing is not None and failing is None:
            log.info("the collector takes traces again", endpoint=self._endpoint)
        self._failing = failing
        return result

    def _why(self) -> str:
        if self._status is None:
            return "the collector cannot be reached, or does not answer"
        return f"the collector refuses them with status {self._status}"

    def shutdown(self) -> None:
        self._exporter.shutdown()
