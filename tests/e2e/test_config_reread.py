"""A gateway whose configuration changes while people are logged in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.scrape import events
from tests.rig.ssh import Ssh, make_key
from tests.rig.waiting import until

pytestmark = pytest.mark.local


class Changing:
    """A gateway, its user, and what it says when its settings change."""

    def __init__(self, gateway: Gateway, ssh: Ssh) -> None:
        self.gateway = gateway
        self.ssh = ssh
        self._file = gateway.place / "sshgate.yaml"

    def write(self, **sections: object) -> None:
        """New settings, whole at once as an editor or the kubelet writes them."""
        new = self._file.with_suffix(".new")
        new.write_text(yaml.safe_dump({**self.gateway.settings, **sections}))
        new.rename(self._file)

    def write_text(self, text: str) -> None:
        self._file.write_text(text)

    def events(self, code: str) -> dict[str, object]:
        """The first event of this code, once there is one."""
        return until(lambda: self._all(code), 20, f"the event {code}")[0]

    def _all(self, code: str) -> list[dict[str, object]]:
        return [event for event in events(self.gateway.place / "audit.jsonl") if event["event"] == code]


@pytest.fixture
def changing(local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]) -> Changing:
    made = gateway("local", telemetry={"audit": "audit.jsonl"})
    return Changing(made, user_at(made))


def test_profiles_and_limits_change_under_a_running_session(changing: Changing) -> None:
    ssh = changing.ssh
    assert ssh.as_user("dev+extra").run("true").status == 254
    running = ssh.start("cat")
    try:
        assert running.stdin
        assert running.stdout
        running.stdin.write(b"one\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"one\n"
        changing.write(profiles={"default": {}, "extra": {"environment": {"KIND": "extra"}}})
        assert changing.events("config.reread")["changed"] == "profiles"
        assert ssh.as_user("dev+extra").run("echo $KIND").out == b"extra\n"
        running.stdin.write(b"two\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"two\n"
    finally:
        running.communicate()
    assert running.returncode == 0


def test_a_broken_file_is_reported_and_the_old_settings_stay(changing: Changing) -> None:
    changing.write_text("profiles: {default: {scope: nonsense}}\n")
    reason = str(changing.events("config.refused")["reason"])
    assert "sshgate.yaml:1: profiles.default.scope: 'nonsense' is none of channel, connection" in reason
    assert changing.ssh.run("echo in").out == b"in\n"


def test_what_waits_for_a_restart_is_named(changing: Changing) -> None:
    changing.write(log={"level": "debug"})
    report = changing.events("config.reread")
    assert "changed" not in report
    assert report["later"] == "log.level: in force after a restart"
    assert changing.ssh.run("echo in").out == b"in\n"


def test_hup_reads_again_and_ends_nothing(changing: Changing) -> None:
    os.kill(changing.gateway.pid, signal.SIGHUP)
    changing.events("config.reread")
    assert changing.ssh.run("echo in").out == b"in\n"


def test_new_host_keys_are_used_for_new_connections(changing: Changing, tmp_path: Path) -> None:
    """As when a mounted Secret changes; clients that pinned the old key notice, as they should."""
    ssh = changing.ssh
    assert ssh.run("true").status == 0
    make_key(tmp_path / "ssh_host_ed25519_key")
    (tmp_path / "ssh_host_ed25519_key").rename(changing.gateway.place / "host" / "ssh_host_ed25519_key")
    changing.events("config.reread")
    refused = ssh.run("true", options=("-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlgorithms=ssh-ed25519"))
    assert refused.status == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in refused.both or "Host key verification failed" in refused.both
    (ssh.place / "known_hosts").unlink()
    assert ssh.run("echo in").out == b"in\n"
