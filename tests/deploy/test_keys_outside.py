"""Agents in a pod that a network policy closes altogether: they ask models, and no key is anywhere near them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rig import cluster as rig
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, configured
from tests.rig.messages import ANSWER, FakeApi, fake_api
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

CANARY = "sk-ant-api03-deployed-canary-93be"
BROUGHT = "sk-ant-api03-deployed-brought-c41d"
DENY_ALL = {
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny-all"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}  # fmt: skip
# Prints what of the network can be reached: the API server's service, the name server, the internet.
REACH = """python3 -c '
import socket
for kind, host, port in ((1, "10.43.0.1", 443), (2, "10.43.0.10", 53), (1, "10.43.0.10", 53), (1, "1.1.1.1", 443)):
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(1.5)
    try:
        s.connect((host, port))
        if kind == 2: s.send(b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1a\\0\\0\\1\\0\\1"); s.recv(99)
        print(host, port, kind)
    except OSError: pass
print("looked")
' """
# The key is put together there, so that the search does not find itself.
SEARCH = """python3 -c '
import os, sys
text = (sys.argv[1] + sys.argv[2]).encode()
places = []
for top in ("/home", "/tmp", "/dev/shm", "/run", "/var/tmp"):
    places += [os.path.join(at, name) for at, _, names in os.walk(top) for name in names]
places += [f"/proc/{pid}/{name}" for pid in os.listdir("/proc") if pid.isdigit() for name in ("environ", "cmdline")]
for place in places:
    try:
        if text in open(place, "rb").read(1 << 26): print(place)
    except OSError: pass
print("searched", len(places) > 3)
' """


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


@pytest.fixture(scope="module")
def closed(cluster: Path) -> Iterator[Namespace]:
    with rig.namespace() as place:
        place.apply(DENY_ALL)
        yield place
        place.wait_empty()


@pytest.fixture(scope="module")
def brokered(closed: Namespace, api: FakeApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = tmp_path_factory.mktemp("keys") / "anthropic"
    keys.write_text(CANARY)
    made = configured(
        tmp_path_factory.mktemp("gateway"), closed,
        models={"anthropic": {"upstream": api.url, "keys": str(keys)}},
        profiles={"default": {"models": ["anthropic"], "resources": {"limits": {"memory": "2Gi"}}}},
        telemetry={"audit": "audit"},
    )  # fmt: skip
    made.start()
    yield made
    made.stop()


@pytest.fixture
def agent(brokered: Gateway, user_at: Callable[[Gateway], Ssh], api: FakeApi) -> Iterator[Ssh]:
    api.received.clear()
    named = user_at(brokered).as_user("dev=agent")
    yield named
    named.run("end", options=("-s",))


def nowhere(key: str, user: Ssh, gateway: Gateway, space: Namespace) -> None:
    """Assert that a key is in no process, no file, no object and no log."""
    half = len(key) // 2
    assert user.run(f"{SEARCH} {key[:half]} {key[half:]}", limit=120).out == b"searched True\n"
    assert key not in space.kubectl("get", "pods,leases,configmaps,secrets,events", "--output=yaml")
    assert key not in gateway.log()
    assert key not in (gateway.place / "audit").read_text()


def test_claude_answers_in_a_pod_without_a_network(
    agent: Ssh, brokered: Gateway, closed: Namespace, api: FakeApi
) -> None:
    until(lambda: agent.run(REACH).out == b"looked\n", 60, "the policy in the sandbox")
    ended = agent.run("claude -p hi </dev/null", limit=120)
    assert ANSWER.encode() in ended.out, ended.both
    assert {value for one in api.received for value in one.header("x-api-key")} == {CANARY}
    assert not [one for one in api.received if one.header("authorization")]
    assert agent.run(REACH).out == b"looked\n"
    nowhere(CANARY, agent, brokered, closed)
    requests = [json.loads(line) for line in (brokered.place / "audit").read_text().splitlines() if "model.re" in line]
    assert {one["event"] for one in requests} == {"model.request"}, requests


def test_a_users_own_key_is_nowhere_either(agent: Ssh, brokered: Gateway, closed: Namespace, api: FakeApi) -> None:
    options = ("-o", "SendEnv=ANTHROPIC_API_KEY")
    ended = agent.run("claude -p hi </dev/null", options=options, environ={"ANTHROPIC_API_KEY": BROUGHT}, limit=120)
    assert ANSWER.encode() in ended.out, ended.both
    assert {value for one in api.received for value in one.header("x-api-key")} == {BROUGHT}
    # The next login need not bring it again.
    api.received.clear()
    assert ANSWER.encode() in agent.run("claude -p hi </dev/null", limit=120).out
    assert {value for one in api.received for value in one.header("x-api-key")} == {BROUGHT}
    nowhere(BROUGHT, agent, brokered, closed)


def test_claude_on_a_terminal_asks_for_permission_and_nothing_else(agent: Ssh, api: FakeApi) -> None:
    """No question about themes, trust or a key comes before the first prompt."""
    api.tool = "touch /tmp/done-by-claude"
    try:
        with OnTerminal(agent.argv("claude", options=("-tt",)), columns=100, rows=40) as terminal:
            shown = terminal.expect(b"shortcuts", limit=60).string
            assert b"theme" not in shown
            assert b"trust" not in shown
            terminal.type("do it")
            time.sleep(0.5)
            terminal.type("\r")
            terminal.expect(rb"Do\W.{0,40}want.{0,40}proceed", limit=60)
            terminal.type("\r")
            terminal.expect(ANSWER.split()[-1].encode(), limit=60)
    finally:
        api.tool = None
    assert agent.run("ls /tmp/done-by-claude").status == 0


def test_an_agent_in_the_background_needs_no_login(agent: Ssh, api: FakeApi) -> None:
    """Its daemon does not have the shell's variables."""
    assert agent.run("mkdir -p work; cd work; claude --bg 'say hi' </dev/null", limit=60).status == 0
    until(lambda: len(api.asked()) > 1, 60, "its requests")
    state = until(
        lambda: agent.run("grep -h name ~/.claude/jobs/*/state.json | grep -i well").out, 60, "its turn's end"
    )
    assert b"all is well" in state
    assert {value for one in api.received for value in one.header("x-api-key")} == {CANARY}
