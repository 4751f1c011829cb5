"""A day of one gateway, played with real clients: its audit events are as expected, and its metrics add up."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROVIDERS, MakeGateway
from tests.rig.gateway import Gateway, free_port
from tests.rig.scrape import Scraped, events, get
from tests.rig.ssh import Ssh, environment, make_key
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

SECRET = "correct-horse-battery-staple"
UPLOAD = 300_000
EVIL = "x\x1b]0;owned\x07"


@dataclass
class Day:
    """What is left when the day is over."""

    audit: list[dict[str, Any]]
    log: str
    scraped: Scraped
    receipt: str
    key: str
    stranger: str

    @property
    def on_cluster(self) -> bool:
        """Whether its sandboxes were pods."""
        return bool(self.audit[0]["provider"] == "kubernetes")

    def events(self, code: str, **fields: object) -> list[dict[str, Any]]:
        """The events with this code and these fields."""
        return [
            event
            for event in self.audit
            if event["event"] == code and all(event.get(name) == value for name, value in fields.items())
        ]


@pytest.fixture(scope="module", params=PROVIDERS)
def day(
    request: pytest.FixtureRequest,
    make_gateway: MakeGateway,
    user_at: Callable[[Gateway], Ssh],
    tmp_path_factory: pytest.TempPathFactory,
) -> Day:
    provider = request.param
    request.getfixturevalue("local" if provider == "local" else "cluster")
    port = free_port()
    gateway = make_gateway(provider, telemetry={"listen": f"127.0.0.1:{port}", "audit": "audit.jsonl"})
    ssh = user_at(gateway)
    place = tmp_path_factory.mktemp("day")
    stranger = Ssh(place, gateway.port)
    make_key(place / "id")
    audit = gateway.place / "audit.jsonl"

    _exec_and_pipes(ssh)
    _terminal(ssh)
    _refusals(ssh, stranger)
    _files(ssh, place)
    _killed(ssh, audit)
    receipt = ssh.run("receipt", options=("-s",))
    assert receipt.status == 0, receipt.both
    line = ssh.run("true", options=("-o", "SetEnv=SSHGATE_RECEIPT=1"))
    assert re.search(rb"sshgate: receipt: key exchange \d+ ms, .* launch \d+ ms.* \(cold\)\.\n", line.err), line.err
    until(lambda: _over(audit), 30, "the end of all sessions")
    scraped = Scraped(port)
    assert get(port, "/healthz") == (200, "ok\n")
    assert get(port, "/readyz") == (200, "ok\n")
    gateway.stop()
    return Day(
        events(audit), gateway.log(), scraped, receipt.out.decode(), _fingerprint(ssh.key), _fingerprint(stranger.key)
    )


def _exec_and_pipes(ssh: Ssh) -> None:
    assert ssh.run(f"echo {SECRET}; exit 7").status == 7
    assert ssh.run("wc -c", stdin=bytes(UPLOAD)).out.split() == [str(UPLOAD).encode()]
    assert ssh.run("kill -TERM $$").status == 255  # OpenSSH's answer to exit-signal


def _terminal(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv(options=("-tt",))) as terminal:
        terminal.enter("exit 3")
        assert terminal.until_end() == 3


def _refusals(ssh: Ssh, stranger: Ssh) -> None:
    assert stranger.run("true").status == 255
    assert ssh.as_user("dev+no-such").run("true").status == 254
    assert ssh.run(EVIL, options=("-s",)).status == 126


def _files(ssh: Ssh, place: Path) -> None:
    (place / "file").write_bytes(bytes(5000))
    done = subprocess.run(
        ["sftp", *ssh.options(), "-q", "-P", str(ssh.port), "-b", "-", f"{ssh.user}@127.0.0.1"],
        input=f"put {place}/file copy\n".encode(), capture_output=True, timeout=60, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _killed(ssh: Ssh, audit: Path) -> None:
    client = ssh.start("cat; sleep 60")  # cat alone would end by itself: its input ends
    try:
        assert client.stdin
        assert client.stdout
        client.stdin.write(b"here")
        client.stdin.flush()
        assert client.stdout.read(4) == b"here"
    finally:
        client.send_signal(signal.SIGKILL)
        client.communicate()
    until(lambda: [e for e in events(audit) if e["event"] == "session.end" and e["outcome"] == "left"], 20, "its end")


def _over(audit: Path) -> bool:
    report = Counter(event["event"] for event in events(audit))
    return (
        report["sandbox.claim"] == report["sandbox.end"]
        and report["session.start"] == report["session.end"]
        and report["connection.login"] == report["connection.end"]
    )


def _fingerprint(key: Path) -> str:
    shown = subprocess.run(["ssh-keygen", "-lf", f"{key}.pub"], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1]


def test_every_session_is_recorded_from_login_to_end(day: Day) -> None:
    ends = [
        (e["asks"], e["outcome"], e.get("status", e.get("signal"))) for e in day.audit if e["event"] == "session.end"
    ]
    assert ends == [
        ("exec", "exited", 7),
        ("exec", "exited", 0),
        ("exec", "signalled", "TERM"),
        ("shell", "exited", 3),
        ("sftp", "exited", 0),
        ("exec", "left", None),
        ("exec", "exited", 0),
    ]
    for end in day.events("session.end"):
        session = [e for e in day.audit if e.get("session") == end["session"]]
        codes = ["session.start", "sandbox.claim", "session.end", "sandbox.end"]
        if end["asks"] == "sftp":
            codes.insert(2, "file.transfer")
        assert [e["event"] for e in session] == codes
        assert len({(e["connection"], e["user"], e["key"], e["source"]) for e in session}) == 1
        assert len({e["sandbox"] for e in session if "sandbox" in e}) == 1
        connection = [e["event"] for e in day.audit if e.get("connection") == end["connection"]]
        assert connection[0] == "connection.login"
        assert connection.count("connection.end") == 1


def test_who_by_which_key_and_from_where(day: Day) -> None:
    logins = day.events("connection.login")
    assert {(e["user"], e["key"], e["source"], e["method"]) for e in logins} == {
        ("dev", day.key, "127.0.0.1", "publickey")
    }
    assert {e["login"] for e in logins} == {"dev", "dev+no-such"}
    assert next(e["event"] for e in day.audit) == "serving"
    assert [e["event"] for e in day.audit][-2:] == ["draining", "stopped"]


def test_refusals_are_recorded_with_the_key_that_was_tried(day: Day) -> None:
    (stranger,) = day.events("connection.unauthenticated", failures=1)
    assert (stranger["user"], stranger["key"]) == ("dev", day.stranger)
    denied, no_subsystem = day.events("session.failed")
    assert (denied["code"], denied["user"]) == ("denied", "dev")
    assert "no-such" in denied["reason"]
    assert (no_subsystem["code"], no_subsystem["asks"]) == ("request", r"x\x1b]0;owned\x07")


def test_subsystems_and_transfers_are_recorded(day: Day) -> None:
    assert [e["name"] for e in day.events("verb")] == ["receipt"]
    (transfer,) = day.events("file.transfer")
    assert transfer["bytes_in"] > 5000
    (upload,) = [e for e in day.events("session.end") if e["bytes_in"] == UPLOAD]
    assert upload["bytes_out"] == len(f"{UPLOAD}\n")


def test_no_command_no_secret_and_no_control_character_is_recorded(day: Day) -> None:
    for text in (day.log, *(str(event) for event in day.audit)):
        assert SECRET not in text
        assert "wc -c" not in text
        assert "\x1b" not in text
    assert next(e["command_bytes"] for e in day.events("session.start")) == len(f"echo {SECRET}; exit 7")


def test_metrics_of_the_day_add_up(day: Day) -> None:
    scraped = day.scraped
    report = Counter(e["event"] for e in day.audit if e["event"] not in ("draining", "stopped"))
    for code, count in report.items():
        assert scraped.total("sshgate_events_total", event=code) == count, code
    assert scraped.total("sshgate_logins_total", outcome="accepted") == report["connection.login"]
    assert scraped.total("sshgate_logins_total", outcome="refused") == 1
    assert scraped.total("sshgate_sessions_ended_total") == report["session.end"] + report["session.failed"]
    assert scraped.total("sshgate_sessions_ended_total", asks="exec", outcome="left") == 1
    assert scraped.total("sshgate_session_failures_total", code="denied") == 1
    assert scraped.total("sshgate_session_failures_total") == report["session.failed"]
    assert scraped.total("sshgate_claims_total", how="cold") == report["sandbox.claim"]
    for direction in ("in", "out"):
        carried = sum(e[f"bytes_{direction}"] for e in day.events("session.end"))
        assert scraped.total("sshgate_bytes_total", direction=direction) == carried
    assert scraped.total("sshgate_prompt_seconds_count", how="cold") == 1
    for gauge in ("connections", "sessions", "unauthenticated", "draining"):
        assert scraped.total(f"sshgate_{gauge}") == 0, gauge


def test_api_requests_are_counted_by_verb_where_there_is_an_api_server(day: Day) -> None:
    sandboxes = len(day.events("sandbox.claim"))
    assert day.scraped.total("sshgate_api_requests_total", verb="delete", outcome="ok") == (
        sandboxes if day.on_cluster else 0
    )
    if day.on_cluster:
        assert day.scraped.total("sshgate_api_requests_total", verb="create", outcome="ok") >= sandboxes
        assert day.scraped.total("sshgate_api_seconds_count", verb="exec") >= sandboxes
        # It has the Role of manifests/base, and asks for nothing beyond that.
        assert day.scraped.total("sshgate_api_requests_total", outcome="forbidden") == 0


def test_the_receipt_shows_the_waterfall_of_the_last_logins(day: Day) -> None:
    newest = day.receipt.split("\n\n")[0].splitlines()
    assert re.fullmatch(r"session [0-9a-f]{10} \(cold\)", newest[0])
    stages = [line[2:17].strip() for line in newest[1:]]
    assert stages == [
        "accept", "key exchange", "authentication", "request", "claim", "enter", "launch", "first byte",
    ]  # fmt: skip
    assert day.receipt.count("session ") == 5
