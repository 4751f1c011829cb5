"""The dashboard and the alert rules: valid PromQL, and no metric or label that `/metrics` does not have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import sshgate.telemetry
from sshgate import errors
from sshgate.config.model import Config, Limits, Profile, SandboxPlace
from sshgate.server.core import Core
from sshgate.server.frontends import Frontends
from sshgate.telemetry import Telemetry
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Value
from sshgate.telemetry.metrics import FAILURES, Metrics, summed
from sshgate.telemetry.timings import Stage, Timings

MONITORING = Path(__file__).resolve().parents[2] / "manifests" / "monitoring"
# Set by whoever scrapes, not by us; `le` by every histogram.
FROM_PROMETHEUS = {"namespace", "pod", "job", "le"}
# Metrics that are there only where a setting asks for them.
BY_SETTING = {name: frozenset[str]() for name in ("sshgate_audit_lost", "sshgate_workers", "sshgate_worker_restarts")}


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Every sample of a gateway that has seen everything, with its labels."""
    config = Config(sandbox=SandboxPlace(provider="local"), limits=Limits(), profiles={"default": Profile()})
    core = Core(config)
    Frontends(config, core)
    _see_everything(core.telemetry)
    samples: dict[str, set[str]] = {name: set(labels) for name, labels in BY_SETTING.items()}
    for family in text_string_to_metric_families(core.telemetry.metrics.text().decode()):
        if not family.samples:  # a gauge with nothing to count now
            samples.setdefault(family.name, {"profile", "state"})
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return samples


def _see_everything(telemetry: Telemetry) -> None:
    telemetry.events = type(telemetry.events)(telemetry.metrics.observe)
    for code in Code:
        telemetry.events.emit(code, failures=1)
    marks = Timings("s")
    for stage in Stage:
        marks.mark(stage)
    telemetry.metrics.first_byte(marks, prompt=True)
    telemetry.metrics.api_request("create", "ok", 0.1)


def expressions() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']!r}", target["expr"].replace("$namespace", ".*")
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def selectors(node: Any) -> Iterator[Any]:
    """The vector selectors of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for part in ("expr", "lhs", "rhs", "vector_selector", "param"):
        inner = getattr(node, part, None)
        if inner is not None:
            yield from selectors(inner)
    for argument in getattr(node, "args", None) or ():
        yield from selectors(argument)


@pytest.mark.parametrize(("where", "expression"), [pytest.param(*one, id=one[0]) for one in expressions()])
def test_every_expression_is_promql_about_metrics_that_exist(
    where: str, expression: str, exposed: dict[str, set[str]]
) -> None:
    found = list(selectors(promql_parser.parse(expression)))
    assert {one.name for one in found} == set(re.findall(r"\b(?:sshgate|process)_\w+", expression)), where
    for one in found:
        assert one.name in exposed, f"{where}: there is no {one.name}"
        used = {matcher.name for matcher in one.matchers.matchers}
        assert used <= exposed[one.name] | FROM_PROMETHEUS, f"{where}: {one.name} has no {used - exposed[one.name]}"


def test_labels_that_are_shown_or_grouped_by_exist(exposed: dict[str, set[str]]) -> None:
    known = set().union(*exposed.values()) | FROM_PROMETHEUS
    text = (MONITORING / "dashboard.json").read_text()
    assert set(re.findall(r"{{(\w+)}}", text)) <= known
    for _, expression in expressions():
        for names in re.findall(r"by \(([^)]*)\)", expression):
            assert {name.strip() for name in names.split(",")} <= known, expression


def test_each_alert_fires_where_it_should_and_by_itself() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine")
    cases = MONITORING / "alerts_test.yaml"
    for word, file in (("check", MONITORING / "alerts.yaml"), ("test", cases)):
        ran = subprocess.run([promtool, word, "rules", file], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    wanted = set(re.findall(r'alertname="(\w+)"', cases.read_text()))
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    assert wanted == {rule["alert"] for group in groups for rule in group["rules"]}


def test_what_a_counter_can_count_is_there_from_the_beginning_at_0() -> None:
    fresh = Telemetry().metrics.text().decode()
    for name, labels in (("logins", "outcome"), ("claims", "how"), ("session_failures", "code")):
        found = dict(re.findall(rf'^sshgate_{name}_total{{{labels}="(\w+)"}} (\S+)$', fresh, re.MULTILINE))
        assert found
        assert set(found.values()) == {"0.0"}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GateError)]
    assert {*FAILURES, "config", "listen"} == {kind.code for kind in kinds}


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"].keys() == {"summary", "do"}
            assert rule["labels"]["severity"] in ("warning", "critical")


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_readme_names_every_metric(exposed: dict[str, set[str]]) -> None:
    text = (Path(sshgate.telemetry.__file__).parent / "README.md").read_text()
    table = text.partition("## Metrics")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(sshgate_\w+)`", table))
    ours = {name for name in exposed if name.startswith("sshgate_") and not name.endswith("_created")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
    assert named == families


def test_the_stages_of_a_connection_count_once_and_those_of_its_sessions_each_time() -> None:
    metrics = Metrics()
    events = Events(metrics.observe)
    connection = Timings()
    for stage in (Stage.ACCEPT, Stage.KEY_EXCHANGE, Stage.AUTHENTICATION):
        connection.mark(stage)
    events.context().with_timings(connection).emit(Code.LOGIN)
    for name in ("one", "two"):
        session = Timings(name, connection.times)
        for stage in Stage:
            session.mark(stage)
        metrics.first_byte(session, prompt=False)
    counted = {
        sample.labels["stage"]: sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.name == "sshgate_stage_seconds_count"
    }
    assert counted == {
        "key_exchange": 1, "authentication": 1, "claim": 2, "enter": 2, "launch": 2, "first_byte": 2
    }  # fmt: skip


def _worker(logins: int, sandboxes: int, draining: bool = False) -> Metrics:
    metrics = Metrics()
    events = Events(metrics.observe)
    for _ in range(logins):
        events.emit(Code.LOGIN)
    for _ in range(sandboxes):
        events.emit(Code.WEB_OPEN)
        metrics.api_request("create", "ok", 0.1)
    metrics.reads("sshgate_sandboxes", "", ("state",), lambda: {("warm",): 7})
    metrics.reads("sshgate_draining", "", (), lambda: {(): draining})
    return metrics


def _values(text: bytes) -> dict[str, float]:
    """The sums over all labels but buckets'."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if "le" not in sample.labels:
                values[sample.name] = values.get(sample.name, 0) + sample.value
    return values


def test_workers_add_up_but_for_what_each_counts_for_all() -> None:
    found = _values(summed([(_worker(3, 1, True).snapshot(), True), (_worker(4, 2).snapshot(), True)]))
    assert found["sshgate_logins_total"] == 7
    assert found["sshgate_web_sockets"] == found["sshgate_api_seconds_count"] == 3
    assert (found["sshgate_info"], found["sshgate_sandboxes"], found["sshgate_draining"]) == (1, 7, 0)
    # The limit is each process's own.
    assert found["process_open_fds"] < 1.5 * _values(_worker(0, 0).text())["process_open_fds"]


def test_counters_outlive_a_worker_and_gauges_do_not() -> None:
    dead, other = _worker(3, 2).snapshot(), _worker(4, 1).snapshot()
    found = _values(summed([(dead, False), (other, True), (b"", False)]))
    assert (found["sshgate_logins_total"], found["sshgate_web_sockets"]) == (7, 1)
    successor = _worker(1, 0)
    successor.carry_on(dead)
    found = _values(summed([(successor.snapshot(), True), (other, True)]))
    assert (found["sshgate_logins_total"], found["sshgate_web_sockets"]) == (8, 1)
    assert found["sshgate_api_seconds_count"] == 3


def test_models_are_counted_by_provider_and_without_users() -> None:
    metrics = Metrics()
    events = Events(metrics.observe)
    answered: dict[str, Value] = {"provider": "anthropic", "user": "ada", "whole": True, "usd": 0.25, "input_tokens": 7}
    for more in ({"status": 200}, {"status": 200, "whole": False}, {"status": 529}):
        events.dispatch(Code.MODEL_REQUEST, {**answered, **more}, None, None, None, None)
    events.emit(Code.MODEL_REFUSED, provider="anthropic", user="ada")
    text = metrics.text().decode()
    for outcome in ("answered", "broken", "failed", "refused"):
        assert f'sshgate_model_requests_total{{outcome="{outcome}",provider="anthropic"}} 1.0' in text
    assert 'sshgate_model_tokens_total{kind="input",provider="anthropic"} 21.0' in text
    assert 'sshgate_model_usd_total{provider="anthropic"} 0.75' in text
    assert "ada" not in text
