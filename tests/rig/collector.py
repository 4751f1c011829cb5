"""A collector of traces: OTLP over HTTP, decoded by the protocol's own messages."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True)
class Span:
    """One span as it came."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    """Nanoseconds since the epoch."""
    end: int
    attributes: dict[str, Any]
    error: str | None
    """The status' text where it is an error."""


@dataclass
class Collector:
    """What has been received on ``port``."""

    port: int
    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """For ``telemetry.traces``."""
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str, **attributes: object) -> list[Span]:
        """The spans with this name and these attributes; ``_`` in their names stands for a dot."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        return [s for s in self.spans if s.name == name and wanted.items() <= s.attributes.items()]

    def below(self, span: Span) -> set[str]:
        """The names of its children."""
        return {s.name for s in self.spans if s.parent == span.id and s.trace == span.trace}


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    """A collector that listens while the body runs, and answers with this HTTP status."""

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            for of_one in ExportTraceServiceRequest.FromString(body).resource_spans:
                collector.resource |= _values(of_one.resource.attributes)
                collector.spans += [_span(sent) for scope in of_one.scope_spans for sent in scope.spans]
            collector.headers.append(dict(self.headers))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        collector = Collector(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _span(sent: Sent) -> Span:
    return Span(
        sent.name,
        sent.trace_id.hex(),
        sent.span_id.hex(),
        sent.parent_span_id.hex(),
        sent.start_time_unix_nano,
        sent.end_time_unix_nano,
        _values(sent.attributes),
        sent.status.message if sent.status.code == Status.STATUS_CODE_ERROR else None,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
