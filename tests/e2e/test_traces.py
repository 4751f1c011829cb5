"""Traces: what a collector is told of real logins, and that nobody waits for one that is away."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROVIDERS, MakeGateway
from tests.rig.collector import Collector, Span, collecting
from tests.rig.forwarding import ECHO, connected, python, session
from tests.rig.gateway import Gateway, free_port
from tests.rig.scrape import events
from tests.rig.ssh import Ssh, make_key
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

TOKEN = "correct-horse-battery-staple"
COMMAND = "echo staple-horse-battery; exit 7"
START = {"sandbox.claim", "sandbox.exec", "program.launch", "program.first_output"}


@dataclass
class Traced:
    """What is left when a traced gateway has stopped."""

    collector: Collector
    audit: list[dict[str, Any]]
    log: str
    early: set[str]
    """The children that the terminal's session had before it ended."""
    on_cluster: bool

    def events(self, code: str, **fields: object) -> list[dict[str, Any]]:
        """The events with this code and these fields."""
        return [e for e in self.audit if e["event"] == code and fields.items() <= e.items()]

    def span_of(self, event: dict[str, Any]) -> Span:
        """The span whose ids the event bears."""
        (found,) = [s for s in self.collector.spans if (s.trace, s.id) == (event["trace_id"], event["span_id"])]
        return found


@pytest.fixture(scope="module", params=PROVIDERS)
def traced(
    request: pytest.FixtureRequest,
    make_gateway: MakeGateway,
    user_at: Callable[[Gateway], Ssh],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Traced]:
    provider = request.param
    request.getfixturevalue("local" if provider == "local" else "cluster")
    place = tmp_path_factory.mktemp("traced")
    (place / "headers").write_text(f"Authorization: Bearer {TOKEN}\n")
    with collecting() as collector:
        traces = {"endpoint": collector.endpoint, "headers_file": str(place / "headers")}
        gateway = make_gateway(provider, telemetry={"traces": traces, "audit": "audit.jsonl"}, log={"format": "json"})
        ssh = user_at(gateway)
        assert ssh.run(COMMAND).status == 7
        with OnTerminal(ssh.argv(options=("-tt",))) as terminal:
            terminal.enter("echo $((6 * 7))")
            terminal.expect(rb"42")
            # The session goes on; what it waited for at its start is told already.
            until(lambda: collector.named("program.first_output")[1:], 20, "the start of the terminal's session")
            early = {s.name for s in collector.spans if s.start > collector.named("session")[0].end}
            terminal.enter("exit 0")
            terminal.until_end()
        _forward(ssh)
        stranger = Ssh(place, gateway.port)
        make_key(place / "id")
        assert stranger.run("true").status == 255
        assert ssh.as_user("dev+no-such").run("true").status == 254
        gateway.stop()
        yield Traced(collector, events(gateway.place / "audit.jsonl"), gateway.log(), early, provider == "kubernetes")


def _forward(ssh: Ssh) -> None:
    here = free_port()
    with session(ssh, python(ECHO, "4001"), "-L", f"{here}:127.0.0.1:4001"), connected(here) as connection:
        connection.sendall(b"in")
        assert connection.recv(2) == b"in"


def test_a_connection_is_the_root_of_what_goes_on_in_it(traced: Traced) -> None:
    login = traced.events("connection.login")[0]
    root = traced.span_of(login)
    assert (root.name, root.parent) == ("ssh.connection", "")
    assert root.attributes["sshgate.connection"] == login["connection"]
    assert (root.attributes["user.name"], root.attributes["client.address"]) == ("dev", "127.0.0.1")
    assert traced.collector.below(root) == {"ssh.key_exchange", "ssh.authentication", "session"}
    inside = [s for s in traced.collector.spans if s.parent == root.id]
    assert all(root.start <= s.start <= s.end <= root.end for s in inside)


def test_a_session_shows_what_it_waited_for(traced: Traced) -> None:
    ends = traced.events("session.end")
    assert [e["asks"] for e in ends] == ["exec", "shell", "exec"]
    for end in ends:
        span = traced.span_of(end)
        (login,) = traced.events("connection.login", connection=end["connection"])
        assert (span.name, span.parent, span.error) == ("session", login["span_id"], None)
        assert span.attributes["sshgate.session"] == end["session"]
        assert traced.collector.below(span) >= {*START, "sandbox.remove"}
        (claim,) = [s for s in traced.collector.named("sandbox.claim") if s.parent == span.id]
        name = "k8s.pod.name" if traced.on_cluster else "sshgate.sandbox"
        assert (claim.attributes[name], claim.attributes["sshgate.how"]) == (end["sandbox"], "cold")
        steps = [s for name in sorted(START) for s in traced.collector.named(name) if s.parent == span.id]
        assert all(span.start <= s.start <= s.end <= span.end for s in steps)
        (removal,) = [s for s in traced.collector.named("sandbox.remove") if s.parent == span.id]
        assert span.start < removal.start <= removal.end  # a local one may be gone in no time that is told
    assert traced.span_of(ends[0]).attributes["process.exit.code"] == 7


def test_a_start_is_exported_while_its_session_goes_on(traced: Traced) -> None:
    assert traced.early >= START


def test_a_forward_is_below_its_connection(traced: Traced) -> None:
    (end,) = traced.events("forward.end")
    (span,) = traced.collector.named("forward")
    assert (span.trace, span.parent) == (end["trace_id"], end["span_id"])
    assert span.attributes["sshgate.target"] == end["target"]
    assert (span.end - span.start) / 1e9 == pytest.approx(end["seconds"], abs=1e-5)
    (opened,) = traced.collector.named("forward.open")
    assert opened.parent == span.parent


def test_what_failed_bears_its_code(traced: Traced) -> None:
    probe, refused = traced.events("connection.unauthenticated")
    assert (probe["failures"], "trace_id" in probe) == (0, False)  # a look at the banner, as balancers do
    span = traced.span_of(refused)
    assert (span.error, span.parent) == ("connection.unauthenticated", "")
    (attempt,) = [s for s in traced.collector.named("ssh.authentication") if s.parent == span.id]
    assert attempt.error == "connection.unauthenticated"
    (failed,) = traced.events("session.failed")
    span = traced.span_of(failed)
    assert (span.error, span.attributes["error.type"]) == ("session.failed", failed["code"])


def test_log_lines_bear_the_ids_and_nothing_holds_a_secret(traced: Traced) -> None:
    lines = [json.loads(line) for line in traced.log.splitlines() if line.startswith("{")]
    (report,) = [line for line in lines if line["event"] == "session.end" and line.get("status") == 7]
    assert (report["trace_id"], report["span_id"]) == (
        traced.events("session.end")[0]["trace_id"],
        traced.events("session.end")[0]["span_id"],
    )
    assert traced.collector.resource["service.name"] == "sshgate"
    assert all(headers["authorization"] == f"Bearer {TOKEN}" for headers in traced.collector.headers)
    sent = repr(traced.collector.spans)
    for secret in (TOKEN, "staple-horse", "$((6"):
        assert secret not in sent
        assert secret not in traced.log


@pytest.mark.local
def test_logins_go_on_without_the_collector_which_is_logged_once(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    made = gateway("local", telemetry={"traces": {"endpoint": endpoint}}, log={"format": "json"})
    made.stop()
    made.environment = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    made.start()
    ssh = user_at(made)
    lost = "traces are lost: the collector cannot be reached"
    assert ssh.run("true").status == 0
    until(lambda: lost in made.log(), 20, "the sentence")
    for _ in range(3):
        assert ssh.run("true").status == 0
    made.stop()  # within its limit, and with what the collector never took
    assert made.log().count(lost) == 1
    assert "opentelemetry" not in made.log()


@pytest.mark.local
def test_a_collector_that_takes_nothing_is_logged_with_its_status(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    with collecting(status=401) as collector:
        made = gateway("local", telemetry={"traces": {"endpoint": collector.endpoint}})
        assert user_at(made).run("true").status == 0
        made.stop()
    assert made.log().count("traces are lost: the collector refuses them with status 401") == 1


@pytest.mark.local
def test_the_end_of_a_named_sandbox_is_below_the_session_that_asked_for_it(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    with collecting() as collector:
        made = gateway("local", telemetry={"traces": {"endpoint": collector.endpoint}, "audit": "audit.jsonl"})
        work = user_at(made).as_user("dev=work")
        assert work.run("true").status == 0
        assert work.run("end", options=("-s",)).status == 0
        made.stop()
    (asked,) = [e for e in events(made.place / "audit.jsonl") if e["event"] == "verb"]
    (removal,) = collector.named("sandbox.remove")
    assert (removal.trace, removal.parent) == (asked["trace_id"], asked["span_id"])
    assert (removal.attributes["sshgate.name"], removal.attributes["sshgate.by"]) == ("work", "user")


@pytest.mark.local
def test_a_collector_that_never_answers_does_not_hold_up_the_end(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # What is under way could take 10 s, and what still waits 10 s more: longer than stop() allows.
        made = gateway("local", telemetry={"traces": {"endpoint": endpoint}})
        ssh = user_at(made)
        assert ssh.run("true").status == 0
        silent.settimeout(30)
        sending, _ = silent.accept()
        with sending:
            assert ssh.run("true").status == 0
            made.stop()


def test_without_traces_opentelemetry_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "sshgate.yaml").write_text("sandbox: {provider: local}\nssh: {listen: 127.0.0.1:0}\n")
    program = """
import asyncio, os, signal, sys
from pathlib import Path
from sshgate.server.app import run
from sshgate.config.load import load
status = run(load(Path("sshgate.yaml")), lambda doors: os.kill(os.getpid(), signal.SIGTERM))
print(status, sorted(name for name in sys.modules if name.startswith(("opentelemetry", "google", "requests"))))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout == "0 []\n", ran.stderr
