"""Prometheus metrics of one gateway, in a registry of its own.

Counters follow from events (``observe``), so that the audit log and the metrics add up. Gauges are read when somebody
scrapes (``reads``), so that nobody has to keep them. Two things are told directly: marks, and API requests.
No label holds a name that users choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from sshgate import __version__
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Record
from sshgate.telemetry.timings import Stage, Timings

# From a warm login's few milliseconds to a cold start that pulls its image.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0)
API_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# What a session may have asked for; a subsystem's name is the client's choice.
ASKS = ("shell", "exec", "sftp")
# The codes of errors.py that a session can fail with.
FAILURES = ("internal", "denied", "limit", "request", "no_sandbox", "start", "missing", "unavailable", "cancelled")

log = structlog.get_logger("sshgate.metrics")

Reading = Callable[[], Mapping[tuple[str, ...], float]]
"""The values of a gauge now, by the values of its labels; ``{(): 3}`` where it has none. Must not block."""


class Carried(Protocol):
    """What counts the bytes of one session, as ``bridge.Traffic`` does."""

    up: int
    down: int


class Metrics:
    """Everything under ``/metrics``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._readings: dict[str, tuple[str, tuple[str, ...], Reading]] = {}
        self._carrying: dict[int, Carried] = {}
        self._up = self._down = 0
        self._events = self._counter("sshgate_events", "Audit events by code.", "event")
        self._logins = self._counter(
            "sshgate_logins", "Connections by how far they came: accepted, refused, left, limit.", "outcome"
        )
        self._sessions = self._counter("sshgate_sessions_ended", "Sessions by what was asked and its end.", "asks",
                                       "outcome")  # fmt: skip
        self._failures = self._counter("sshgate_session_failures", "Sessions that could not be served.", "code")
        self._claims = self._counter("sshgate_claims", "Sandboxes given to sessions: warm, cold, joined.", "how")
        self._lost = self._counter("sshgate_claims_lost", "Claims of a warm sandbox that another gateway won.")
        self._reaped = self._counter("sshgate_reaped", "Sandboxes removed because nobody held them.")
        self._forwards = self._counter("sshgate_forwards_ended", "Forwarded connections and listeners.", "outcome")
        self._web = self._counter("sshgate_web_logins", "Logins at the browser's door.", "outcome")
        self._sockets = Gauge("sshgate_web_sockets", "Open sockets of browsers.", registry=self.registry)
        self._requests = self._counter("sshgate_api_requests", "Requests to the API server.", "verb", "outcome")
        self._latency = self._histogram("sshgate_api_seconds", "Their time to an answer.", API_SECONDS, "verb")
        self._prompt = self._histogram(
            "sshgate_prompt_seconds", "From a terminal's request for a shell to its first byte.", SECONDS, "how"
        )
        self._stages = self._histogram("sshgate_stage_seconds", "Time of each stage of a login.", SECONDS, "stage")
        # At 0 from the beginning: Prometheus' rate() and increase() do not see the step with which a series begins.
        _begin(self._logins, "accepted", "refused", "left", "limit")
        _begin(self._failures, *FAILURES)
        _begin(self._claims, "warm", "cold", "joined")
        self.reads("sshgate_info", "The version that runs.", ("version",), lambda: {(__version__,): 1.0})
        self.registry.register(_AtScrape(self))

    def __repr__(self) -> str:
        return f"<Metrics {len(self._carrying)} sessions carried, {len(self._readings)} readings>"

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)

    # --- what the parts of the gateway call ---

    def reads(self, name: str, says: str, labels: tuple[str, ...], reading: Reading) -> None:
        """A gauge that is read at every scrape. Registering a name again replaces it."""
        self._readings[name] = (says, labels, reading)

    @contextmanager
    def carrying(self, traffic: Carried) -> Iterator[None]:
        """Count the bytes of a session: while it runs at every scrape, and once more at its end."""
        self._carrying[id(traffic)] = traffic
        try:
            yield
        finally:
            del self._carrying[id(traffic)]
            self._up += traffic.up
            self._down += traffic.down

    def first_byte(self, marks: Timings, prompt: bool) -> None:
        """A session's program has said something for the first time. ``prompt``: it is a shell on a terminal."""
        waited = marks.between(Stage.REQUEST, Stage.FIRST_BYTE)
        if prompt and waited is not None:
            self._prompt.labels(marks.how).observe(waited)
        for stage, took, since in marks.steps():
            # How long a client takes to ask is its own business, and only a first session has those before it.
            if since and stage is not Stage.REQUEST:
                self._stages.labels(stage.replace(" ", "_")).observe(took)

    def api_request(self, verb: str, outcome: str, seconds: float) -> None:
        """One request to the API server: ``verb`` as RBAC has it, ``outcome`` its status or what went wrong."""
        self._requests.labels(verb, outcome).inc()
        self._latency.labels(verb).observe(seconds)

    def observe(self, record: Record) -> None:
        """Count what an event tells; a sink of ``events.Events``."""
        fields = record.fields
        self._events.labels(record.code.value).inc()
        match record.code:
            case Code.LOGIN:
                self._logins.labels("accepted").inc()
            case Code.CONNECTION_LIMIT:
                self._logins.labels("limit").inc()
            case Code.CONNECTION_UNAUTHENTICATED:
                self._logins.labels("refused" if fields.get("failures") else "left").inc()
            case Code.SESSION_END | Code.SESSION_CUT | Code.SESSION_BROKEN:
                self._sessions.labels(_asks(fields.get("asks")), _outcome(record)).inc()
            case Code.SESSION_FAILED:
                self._sessions.labels(_asks(fields.get("asks")), "failed").inc()
                self._failures.labels(str(fields.get("code", "internal"))).inc()
            case Code.CLAIM:
                self._claims.labels(str(fields.get("how", "cold"))).inc()
            case Code.CLAIM_LOST:
                self._lost.inc()
            case Code.REAPED:
                self._reaped.inc()
            case Code.FORWARD_END:
                self._forwards.labels("ended").inc()
            case Code.FORWARD_REFUSED:
                self._forwards.labels("refused").inc()
            case Code.WEB_LOGIN:
                self._web.labels("accepted").inc()
            case Code.WEB_OPEN:
                self._sockets.inc()
            case Code.WEB_END:
                self._sockets.dec()
            case Code.WEB_REFUSED:
                self._web.labels("refused").inc()

    # --- how they are kept ---

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, labels, registry=self.registry)

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, says, labels, buckets=buckets, registry=self.registry)

    def at_scrape(self) -> Iterator[Metric]:
        """What is read only now."""
        carried = CounterMetricFamily("sshgate_bytes", "Bytes of sessions, in: from clients.", labels=["direction"])
        running = list(self._carrying.values())
        carried.add_metric(["in"], self._up + sum(traffic.up for traffic in running))
        carried.add_metric(["out"], self._down + sum(traffic.down for traffic in running))
        yield carried
        for name, (says, labels, reading) in self._readings.items():
            gauge = GaugeMetricFamily(name, says, labels=labels)
            try:
                for values, number in reading().items():
                    gauge.add_metric(values, number)
            except Exception:  # a defect of one part must not blind the operator to all others
                log.exception("metric.unreadable", name=name)
            yield gauge


class _AtScrape:
    """The collector that prometheus_client asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.at_scrape()


def _begin(counter: Counter, *values: str) -> None:
    for value in values:
        counter.labels(value)


def _asks(value: object) -> str:
    return str(value) if value in ASKS else "other"


def _outcome(record: Record) -> str:
    if record.code is Code.SESSION_CUT:
        return "cut"
    if record.code is Code.SESSION_BROKEN:
        return "broken"
    return str(record.fields.get("outcome", "left"))
