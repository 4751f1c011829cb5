"""What an operator does without a gateway: list, end, reap."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, nothing_left
from tests.rig.scrape import events
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster


def sshgate(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    """The command with the settings of this gateway, which need not run."""
    argv = [sys.executable, "-m", "sshgate", *words, "--config", str(gateway.place / "sshgate.yaml")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)


def listed(gateway: Gateway, *words: str) -> list[dict[str, Any]]:
    done = sshgate(gateway, *words, "--json")
    assert done.returncode == 0, done.stderr
    values: list[dict[str, Any]] = json.loads(done.stdout)
    return values


def test_the_operator_lists_ends_and_reaps(space: Namespace, replica: MakeReplica, user: UserAt) -> None:
    served = replica(telemetry={"audit": "audit.jsonl"})
    dev = user("dev", served)
    assert sshgate(served, "sandboxes", "list").stdout == "no sandboxes.\n"
    assert dev.as_user("dev=work").run("true").status == 0
    nameless = dev.start("echo up; exec sleep 600")
    assert nameless.stdout is not None
    assert nameless.stdout.readline() == b"up\n"
    until(lambda: {one["state"] for one in listed(served, "sandboxes", "list")} == {"attached", "detached"}, 20, "both")
    first, second = listed(served, "sandboxes", "list")
    assert (first["user"], first["name"], first["profile"], first["home"]) == ("dev", "work", "default", False)
    assert (second["user"], second["name"], second["state"]) == ("dev", None, "attached")
    assert 28_000 < first["left"] <= 28_800
    table = sshgate(served, "sandboxes", "list").stdout.splitlines()
    assert table[0].split()[:3] == ["USER", "NAME", "PROFILE"]
    assert table[1].split()[:3] == ["dev", "work", "default"]

    assert sshgate(served, "sandboxes", "end", "eve=work").returncode == 1
    assert sshgate(served, "sandboxes", "end", "dev=work").returncode == 0
    until(lambda: space.living() == [second["id"]], 20, "the end of it")
    (ended,) = until(lambda: [e for e in events(served.place / "audit.jsonl") if e["event"] == "sandbox.end"], 20)
    assert (ended["by"], ended["user"], ended["name"]) == (f"operator {getpass.getuser()}", "dev", "work")
    assert (ended["sandbox"], ended["profile"]) == (first["id"], "default")
    # What is left of a dead gateway is told, and not touched when dry.
    nothing_left(served.kill())
    nameless.communicate(timeout=20)
    dry = sshgate(served, "reap", "--dry-run")
    assert dry.stdout == f"would delete {second['id']} (dev): its gateway is gone\n"
    assert space.living() == [second["id"]]
    assert [one["action"] for one in listed(served, "reap")] == ["delete"]
    assert not space.living()


def test_local_sandboxes_are_their_gateways_business(replica: MakeReplica, tmp_path: Any) -> None:
    (tmp_path / "sshgate.yaml").write_text("ssh: {listen: 127.0.0.1:2222}\nsandbox: {provider: local}\n")
    argv = [sys.executable, "-m", "sshgate", "sandboxes", "list", "--config", str(tmp_path / "sshgate.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("sshgate: local sandboxes live inside their gateway")
