"""Exports spans to a collector by OTLP over HTTP, from a separate thread behind a bounded queue.

Ending a span only appends it to the queue and never waits. The queue holds 2048 spans unless OTEL_BSP_MAX_QUEUE_SIZE
is set; spans that do not fit are dropped.
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
    """Return a provider whose spans are sent to the collector. Its ``shutdown`` blocks while it sends the queue."""
    # OpenTelemetry logs every failed batch, with the server's response. `Quiet` logs a change once instead.
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
    quiet = LoggedExporter(exporter, settings.endpoint)
    # The exporter returns only that it failed. The hook records the HTTP status.
    session.hooks["response"].append(quiet.answered)
    made.add_span_processor(BatchSpanProcessor(quiet))
    return made


class LoggedExporter(SpanExporter):
    """Wraps an exporter. Logs once why exports fail, and once when they succeed again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._status: int | None = None
        self._failing: str | None = None

    def answered(self, response: requests.Response, *_: object, **__: object) -> None:
        """Response hook of ``requests``: remember the status of the collector's answer."""
        self._status = response.status_code

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch. Called in the exporting thread."""
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
        """Shut the wrapped exporter down."""
        self._exporter.shutdown()
