"""The dashboard and the alert rules in a real Prometheus that scrapes a gateway while people log in."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import MakeGateway
from tests.rig import cluster as rig_cluster
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, free_port
from tests.rig.manifests import ROOT
from tests.rig.scrape import Scraped, get
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

MONITORING = ROOT / "manifests" / "monitoring"
# Empty where nothing goes wrong.
QUIET = {"Failures per second"}


class Prometheus:
    """One that runs, and what its HTTP API says."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str, **words: str) -> Any:
        """The data of an answer of ``/api/v1``."""
        status, text = get(self._port, f"/api/v1/{path}?{urllib.parse.urlencode(words)}")
        assert status == 200, text
        return json.loads(text)["data"]

    def values(self, expression: str) -> list[float]:
        """The values of an expression now, those that are no number left out."""
        found = [float(one["value"][1]) for one in self.ask("query", query=expression)["result"]]
        return [value for value in found if not math.isnan(value)]

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            return get(self._port, "/-/ready")[0] == 200
        except OSError:
            return False


@contextmanager
def scraping(port: int, place: Path) -> Iterator[Prometheus]:
    """A Prometheus with the alert rules, and a gateway's metrics under the labels that the README asks for."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus on this machine")
    here = free_port()
    target = {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "here", "pod": "gateway"}}
    settings = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(MONITORING / "alerts.yaml")],
        "scrape_configs": [{"job_name": "sshgate", "static_configs": [target]}],
    }
    (place / "prometheus.yml").write_text(yaml.safe_dump(settings))
    argv = [program, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data"]
    with (place / "log").open("wb") as log:
        running = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{here}"], stdout=log, stderr=log)
    try:
        made = Prometheus(here)
        until(lambda: made.ready() or running.poll() is not None, 30, "Prometheus")
        assert running.poll() is None, (place / "log").read_text()
        yield made
    finally:
        running.terminate()
        running.wait()


@pytest.fixture
def own_space(cluster: Path) -> Iterator[Namespace]:
    """A namespace where no other gateway leads: the leader fills the pools, and other tests' gateways have none."""
    with rig_cluster.namespace() as space:
        yield space


def queries() -> list[tuple[str, str]]:
    """Each panel's title, and what it asks."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())]


def test_no_panel_is_empty_and_no_alert_fires_while_people_log_in(
    own_space: Namespace, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    port = free_port()
    profiles = {"default": {"warm": 1, "settle": "0s"}}
    place = {"namespace": own_space.name, "kubeconfig": str(own_space.gateway)}
    made = gateway("kubernetes", telemetry={"listen": f"127.0.0.1:{port}"}, profiles=profiles, sandbox=place)
    user = user_at(made)
    with scraping(port, tmp_path) as prometheus:
        for count in (1, 2):
            # Prometheus sees no step with which a series begins, only those after it: so a second login.
            until(lambda: Scraped(port).total("sshgate_sandboxes", state="warm") == 1, 60, "a warm sandbox")
            with OnTerminal(user.argv(options=("-tt",))) as terminal:
                terminal.enter("exit 3")
                assert terminal.until_end() == 3
            assert user.as_user("dev+nowhere").run("true").status == 254
            seen = 'sshgate_prompt_seconds_count{how="warm"} + on () sshgate_claims_total{how="warm"}'
            until(lambda: prometheus.values(seen) == [2 * count], 20, "the login in Prometheus")  # noqa: B023
        asked = [(title, query.replace("$namespace", "here")) for title, query in queries()]
        empty = {title for title, query in asked if not prometheus.values(query)}
        assert empty - QUIET == set()
        assert prometheus.values(dict(asked)["Warm share of claims, 1 h"]) == [1]
        assert prometheus.ask("label/namespace/values", **{"match[]": "sshgate_info"}) == ["here"]
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert len(rules) == len(yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"])
        assert {(rule["health"], rule["state"]) for rule in rules} == {("ok", "inactive")}
