"""The way of spans to a collector, OTLP over HTTP: in a thread of its own, by a queue with a bound.

Whoever ends a span appends to that queue (2048 spans unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise; what does not fit
is lost) and waits for nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from sshgate import __version__
from sshgate.config import Traces

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
    exporter = OTLPSpanExporter(settings.endpoint + PATH, headers=dict(headers))
    made.add_span_processor(BatchSpanProcessor(Quiet(exporter, settings.endpoint)))
    return made


class Quiet(SpanExporter):
    """Says once that a collector takes nothing, and once that it does again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._failing = False

    def __repr__(self) -> str:
        return f"<Quiet {self._endpoint} {'fails' if self._failing else 'works'}>"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("traces are lost: the collector takes none", endpoint=self._endpoint)
        elif self._failing and not failing:
            log.info("the collector takes traces again", endpoint=self._endpoint)
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
