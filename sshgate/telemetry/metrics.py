"""Prometheus metrics of one gateway, in its own registry.

Counters are derived from events (``observe``), so that the audit log and the metrics agree. Gauges are read at each
scrape (``reads``), so nothing has to keep them up to date. Only timings, API requests and the bytes of sessions are
reported directly. No label holds a name that users choose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import add

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from sshgate import __version__
from sshgate.stream.bridge import Traffic
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Record
from sshgate.telemetry.timings import Stage, Timings

# Histogram buckets, from a warm login of a few milliseconds to a cold start that pulls its image.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0)
API_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Values of the label `asks`. A client may choose any subsystem name, so all others count as `other`.
ASKS = ("shell", "exec", "sftp")
# The error codes (errors.py) with which a session can fail.
FAILURES = ("internal", "denied", "limit", "request", "no_sandbox", "start", "missing", "unavailable", "cancelled")
# Kinds of tokens of models, as the event has them.
TOKENS = ("input", "cache_read", "cache_write", "output")
# Stages that a connection passes once, and those of each of its sessions. Between them the client takes its time.
CONNECTION_STAGES = (Stage.KEY_EXCHANGE, Stage.AUTHENTICATION)
SESSION_STAGES = (Stage.CLAIM, Stage.ENTER, Stage.LAUNCH, Stage.FIRST_BYTE)

# Kinds of metrics that only grow, and the metrics of several workers that are not added up.
COUNTED = ("counter", "histogram")
SMALLEST = ("sshgate_draining", "process_start_time_seconds")
LARGEST = ("sshgate_info", "sshgate_sandboxes", "process_open_fds", "process_max_fds")

log = structlog.get_logger("sshgate.metrics")

Reading = Callable[[], Mapping[tuple[str, ...], float]]
"""Returns the current values of a gauge by the values of its labels; ``{(): 3}`` without labels. Must not block."""


class _Family(msgspec.Struct, array_like=True):
    """A metric with all its series, as one worker has them."""

    name: str
    about: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]

    @classmethod
    def of(cls, metric: Metric) -> _Family:
        return cls(
            metric.name, metric.documentation, metric.type, [(one[0], one[1], float(one[2])) for one in metric.samples]
        )

    def metric(self) -> Metric:
        made = Metric(self.name, self.about, self.kind)
        for name, labels, value in self.samples:
            made.add_sample(name, labels, value)
        return made


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Family]).decode


class Metrics:
    """All metrics under ``/metrics``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._carried: list[_Family] = []
        ProcessCollector(registry=self.registry)
        self._readings: dict[str, tuple[str, tuple[str, ...], Reading]] = {}
        self._carrying: dict[int, Traffic] = {}
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
        self._models = self._counter("sshgate_model_requests", "Requests to models.", "provider", "outcome")
        self._tokens = self._counter("sshgate_model_tokens", "Tokens of models.", "provider", "kind")
        self._usd = self._counter("sshgate_model_usd", "What models have cost, by the prices in use.", "provider")
        self._egress = self._counter("sshgate_egress", "Connections that sandboxes asked for by name.", "outcome")
        self._web = self._counter("sshgate_web_logins", "Logins of browsers.", "outcome")
        self._sockets = Gauge("sshgate_web_sockets", "Open sockets of browsers.", registry=self.registry)
        self._requests = self._counter("sshgate_api_requests", "Requests to the API server.", "verb", "outcome")
        self._latency = self._histogram("sshgate_api_seconds", "Their time to an answer.", API_SECONDS, "verb")
        self._prompt = self._histogram(
            "sshgate_prompt_seconds", "From a terminal's request for a shell to its first byte.", SECONDS, "how"
        )
        self._stages = self._histogram("sshgate_stage_seconds", "Time of each stage of a login.", SECONDS, "stage")
        # The events that only count something, with the labels of its counter.
        self._counted: dict[Code, tuple[Counter, tuple[str, ...]]] = {
            Code.CONNECTION_LIMIT: (self._logins, ("limit",)), Code.CLAIM_LOST: (self._lost, ()),
            Code.REAPED: (self._reaped, ()), Code.FORWARD_END: (self._forwards, ("ended",)),
            Code.FORWARD_REFUSED: (self._forwards, ("refused",)), Code.EGRESS_ALLOWED: (self._egress, ("allowed",)),
            Code.EGRESS_REFUSED: (self._egress, ("refused",)), Code.WEB_LOGIN: (self._web, ("accepted",)),
            Code.WEB_REFUSED: (self._web, ("refused",)),
        }  # fmt: skip
        # Start these series at 0: Prometheus' rate() and increase() miss the first value of a series.
        _begin(self._logins, "accepted", "refused", "left", "limit")
        _begin(self._failures, *FAILURES)
        _begin(self._claims, "warm", "cold", "joined")
        self.reads("sshgate_info", "The version that runs.", ("version",), lambda: {(__version__,): 1.0})
        self.registry.register(self)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def snapshot(self) -> bytes:
        """Return all metrics as they are now, for ``summed``. Counters go on from those of ``carry_on``."""
        now = [_Family.of(one) for one in self.registry.collect()]
        return _encode(_add([self._carried, now]) if self._carried else now)

    def carry_on(self, snapshot: bytes) -> None:
        """Count on from the last snapshot of this worker's predecessor, so that no sum of counters goes back."""
        self._carried = [one for one in _decode(snapshot) if one.kind in COUNTED]

    # --- called by the parts of the gateway ---

    def reads(self, name: str, about: str, labels: tuple[str, ...], reading: Reading) -> None:
        """Register a gauge that is read at every scrape. Registering a name again replaces it.

        Args:
            name: the metric's name.
            about: its help text.
            labels: the names of its labels.
            reading: returns its values. If it raises, the exception is logged and the gauge has no values.
        """
        self._readings[name] = (about, labels, reading)

    @contextmanager
    def carrying(self, traffic: Traffic) -> Iterator[None]:
        """Count the bytes of a session while the body runs, and add the final numbers to the total at its end."""
        self._carrying[id(traffic)] = traffic
        try:
            yield
        finally:
            del self._carrying[id(traffic)]
            self._up += traffic.up
            self._down += traffic.down

    def first_byte(self, timings: Timings, prompt: bool) -> None:
        """Record the timings of a session that has sent its first output. ``prompt``: a shell on a terminal."""
        waited = timings.between(Stage.REQUEST, Stage.FIRST_BYTE)
        if prompt and waited is not None:
            self._prompt.labels(timings.how).observe(waited)
        self._record_stages(timings, SESSION_STAGES)

    def _record_stages(self, timings: Timings, wanted: Collection[Stage]) -> None:
        for stage, took, since in timings.steps():
            if since and stage in wanted:
                self._stages.labels(stage.replace(" ", "_")).observe(took)

    def api_request(self, verb: str, outcome: str, seconds: float) -> None:
        """Count one request to the API server, with its RBAC verb, its outcome and its duration in seconds."""
        self._requests.labels(verb, outcome).inc()
        self._latency.labels(verb).observe(seconds)

    def observe(self, record: Record) -> None:
        """Update the counters for an event; a sink of ``events.Events``."""
        fields = record.fields
        self._events.labels(record.code.value).inc()
        match record.code:
            case Code.LOGIN:
                self._logins.labels("accepted").inc()
                if record.timings is not None:
                    self._record_stages(record.timings, CONNECTION_STAGES)
            case Code.CONNECTION_UNAUTHENTICATED:
                self._logins.labels("refused" if fields.get("failures") else "left").inc()
            case Code.SESSION_END | Code.SESSION_CUT | Code.SESSION_BROKEN:
                self._sessions.labels(_asks(fields.get("asks")), _outcome(record)).inc()
            case Code.SESSION_FAILED:
                self._sessions.labels(_asks(fields.get("asks")), "failed").inc()
                self._failures.labels(str(fields.get("code", "internal"))).inc()
            case Code.CLAIM:
                self._claims.labels(str(fields.get("how", "cold"))).inc()
            case Code.MODEL_REQUEST:
                self._model_request(fields)
            case Code.MODEL_REFUSED:
                self._models.labels(str(fields.get("provider", "none")), "refused").inc()
            case Code.WEB_OPEN:
                self._sockets.inc()
            case Code.WEB_END:
                self._sockets.dec()
            case code if code in self._counted:
                counter, labels = self._counted[code]
                (counter.labels(*labels) if labels else counter).inc()

    def _model_request(self, fields: Mapping[str, str | int | float | bool]) -> None:
        provider = str(fields.get("provider", "none"))
        failed, whole = int(fields.get("status", 0)) >= 400, bool(fields.get("whole"))
        self._models.labels(provider, "failed" if failed else "answered" if whole else "broken").inc()
        for kind in TOKENS:
            self._tokens.labels(provider, kind).inc(int(fields.get(f"{kind}_tokens", 0)))
        self._usd.labels(provider).inc(float(fields.get("usd", 0.0)))

    # --- internals ---

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, about, labels, buckets=buckets, registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that are read at the scrape, for prometheus_client."""
        carried = CounterMetricFamily("sshgate_bytes", "Bytes of sessions, in: from clients.", labels=["direction"])
        running = list(self._carrying.values())
        carried.add_metric(["in"], self._up + sum(traffic.up for traffic in running))
        carried.add_metric(["out"], self._down + sum(traffic.down for traffic in running))
        yield carried
        for name, (about, labels, reading) in self._readings.items():
            gauge = GaugeMetricFamily(name, about, labels=labels)
            try:
                for values, number in reading().items():
                    gauge.add_metric(values, number)
            except Exception:  # a defect in one gauge must not hide all other metrics
                log.exception("metric.unreadable", name=name)
            yield gauge


def summed(snapshots: Iterable[tuple[bytes, bool]]) -> bytes:
    """Return the metrics of several workers as those of one gateway, in Prometheus' text format.

    Args:
        snapshots: Of each worker, and whether it runs; one that has ended counts by its counters only.
    """
    families = [
        [one for one in _decode(snapshot) if runs or one.kind in COUNTED] for snapshot, runs in snapshots if snapshot
    ]
    return generate_latest(_Summed(_add(families)))


def _add(workers: Iterable[list[_Family]]) -> list[_Family]:
    added: dict[str, tuple[_Family, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for families in workers:
        for family in families:
            values = added.setdefault(family.name, (family, {}))[1]
            for name, labels, value in family.samples:
                key = name, tuple(labels.items())
                join = min if name in SMALLEST or name.endswith("_created") else max if name in LARGEST else add
                values[key] = join(values[key], value) if key in values else value
    return [
        _Family(
            one.name, one.about, one.kind, [(name, dict(labels), value) for (name, labels), value in values.items()]
        )
        for one, values in added.values()
    ]


class _Summed(list[_Family]):
    """Collector for prometheus_client that yields metrics that were summed."""

    def collect(self) -> Iterator[Metric]:
        return (one.metric() for one in self)


def _begin(counter: Counter, *values: str) -> None:
    for value in values:
        counter.labels(value)


def _asks(value: object) -> str:
    return str(value) if value in ASKS else "other"


def _outcome(record: Record) -> str:
    known = {Code.SESSION_CUT: "cut", Code.SESSION_BROKEN: "broken"}
    return known.get(record.code) or str(record.fields.get("outcome", "left"))
