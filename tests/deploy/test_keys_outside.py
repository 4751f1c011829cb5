"""Agents in a pod that a network policy closes altogether: they ask models, and no key is anywhere near them.

The key is in pods of `sshgate broker`, as the manifests have them.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig import cluster as rig
from tests.rig.cluster import Namespace
from tests.rig.deployed import load_image, node_address
from tests.rig.gateway import Gateway, configured
from tests.rig.manifests import ROOT, SANDBOX_NAMESPACE, objects, rendered, write_overlay
from tests.rig.messages import ANSWER, FakeApi, fake_api
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]  # the first test waits for the image

CANARY = "sk-ant-api03-deployed-canary-93be"
BROUGHT = "sk-ant-api03-deployed-brought-c41d"
SECRET = "0123456789abcdef" * 4
BROKER = "--selector=app.kubernetes.io/name=sshgate-broker"
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
    with fake_api("0.0.0.0") as running:
        yield running


@pytest.fixture(scope="module")
def closed(cluster: Path) -> Iterator[Namespace]:
    """The sandboxes' namespace, with the policies of the manifests."""
    with rig.namespace() as place:
        for thing in objects("k3s"):
            if thing["kind"] == "NetworkPolicy" and thing["metadata"]["namespace"] == SANDBOX_NAMESPACE:
                place.apply({**thing, "metadata": {"name": thing["metadata"]["name"]}})
        yield place
        place.wait_empty()


@pytest.fixture(scope="module")
def outside(cluster: Path, api: FakeApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """`sshgate broker` as the manifests have it, and the only one with the operator's key."""
    if not rig.is_our_own():
        pytest.skip("the stand-in for a provider is reached from a node on this machine only")
    load_image()
    overlay = tmp_path_factory.mktemp("overlay")
    write_overlay(overlay, components=[ROOT / "manifests" / "components" / "broker"])
    parts = {
        thing["kind"]: thing for thing in yaml.safe_load_all(rendered(overlay)) if thing["metadata"]["name"] == "broker"
    }
    # The gateway and the provider are processes on the node here.
    parts["Service"]["spec"]["type"] = "NodePort"
    provider = {"to": [{"ipBlock": {"cidr": f"{node_address()}/32"}}], "ports": [{"port": api.port}]}
    parts["NetworkPolicy"]["spec"]["egress"].append(provider)
    # A class of the base, which is not applied here.
    del parts["Deployment"]["spec"]["template"]["spec"]["priorityClassName"]
    with rig.namespace() as place:
        for thing in (*_provider(api.port), *_settings(place.name), *parts.values()):
            place.apply({**thing, "metadata": {**thing["metadata"], "namespace": place.name}})
        place.kubectl("rollout", "status", "deployment/broker", "--timeout=50s")
        yield place


def _provider(port: int) -> Iterator[dict[str, Any]]:
    """A name in the cluster for the stand-in: keys are sent in the clear to such names only."""
    ports = [{"port": port, "protocol": "TCP"}]
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "models"},
           "spec": {"ports": [{"port": 80, "targetPort": port}]}}  # fmt: skip
    yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": {"name": "models", "labels": {"kubernetes.io/service-name": "models"}},
           "endpoints": [{"addresses": [node_address()]}], "ports": ports}  # fmt: skip


def _shared(namespace: str) -> dict[str, Any]:
    """Settings of the broker and of the gateway."""
    upstream = f"http://models.{namespace}.svc"
    return {
        "models": {"anthropic": {"upstream": upstream, "keys": "/etc/sshgate/models/anthropic"}},
        "profiles": {
            "default": {"models": ["anthropic"], "network": "none", "resources": {"limits": {"memory": "2Gi"}}},
            "open": {"extends": "default", "network": "policy"},
        },
    }


def _settings(namespace: str) -> Iterator[dict[str, Any]]:
    """The broker's, and its Secrets."""
    settings = {
        **_shared(namespace), "telemetry": {"listen": "0.0.0.0:9464"}, "ssh": {"drain": "2m"},
        "broker": {"listen": "0.0.0.0:4712", "secret": "/etc/sshgate/broker/secret"},
    }  # fmt: skip
    data = {"sshgate.yaml": yaml.safe_dump(settings)}
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sshgate"}, "data": data}
    for name, file, text in (("sshgate-broker", "secret", SECRET), ("sshgate-models", "anthropic", CANARY)):
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {file: text}}


@pytest.fixture(scope="module")
def brokered(closed: Namespace, outside: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_text(SECRET)
    port = outside.kubectl("get", "service", "broker", "--output=jsonpath={.spec.ports[0].nodePort}")
    made = configured(
        tmp_path_factory.mktemp("gateway"), closed,
        **_shared(outside.name), broker={"listen": f"127.0.0.1:{port}", "secret": str(secret)},
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


def nowhere(key: str, user: Ssh, gateway: Gateway, *spaces: Namespace) -> None:
    """Assert that a key is in no process, no file, no object and no log."""
    half = len(key) // 2
    assert user.run(f"{SEARCH} {key[:half]} {key[half:]}", limit=120).out == b"searched True\n"
    for space in spaces:
        assert key not in space.kubectl("get", "pods,leases,configmaps,events", "--output=yaml")
    assert base64.b64encode(key.encode()).decode() not in spaces[0].kubectl("get", "secrets", "--output=yaml")
    assert key not in spaces[-1].kubectl("logs", BROKER, "--tail=-1")
    assert key not in gateway.log()
    assert key not in (gateway.place / "audit").read_text()
    audited = rig.audit_log()
    assert key not in audited
    assert not audited or f"/namespaces/{spaces[0].name}/pods/" in audited


def test_claude_answers_in_a_pod_without_a_network(
    agent: Ssh, brokered: Gateway, closed: Namespace, outside: Namespace, api: FakeApi
) -> None:
    until(lambda: agent.run(REACH).out == b"looked\n", 60, "the policy in the sandbox")
    ended = agent.run("claude -p hi </dev/null", limit=120)
    assert ANSWER.encode() in ended.out, ended.both
    assert {value for one in api.received for value in one.header("x-api-key")} == {CANARY}
    assert not [one for one in api.received if one.header("authorization")]
    assert agent.run(REACH).out == b"looked\n"
    nowhere(CANARY, agent, brokered, closed, outside)
    log = outside.kubectl("logs", BROKER, "--tail=-1")
    requests = [json.loads(line) for line in log.splitlines() if '"model.re' in line]
    assert {one["event"] for one in requests} == {"model.request"}, requests


def test_a_profile_with_a_network_has_it_beside_one_without(agent: Ssh) -> None:
    """The policies go by what is written on the pods."""
    opened = agent.as_user("dev+open=opened")
    found = until(lambda: [line for line in opened.run(REACH).out.splitlines() if b" 53 " in line], 60, "names")
    assert found == [b"10.43.0.10 53 2", b"10.43.0.10 53 1"]
    began = time.monotonic()
    assert agent.run("getent hosts example.org").status != 0
    assert time.monotonic() - began < 5, "a name is unknown at once where there is no network"
    opened.run("end", options=("-s",))


def test_a_turn_ends_well_although_the_broker_is_rolled(agent: Ssh, outside: Namespace, api: FakeApi) -> None:
    gate = api.held["a long one"] = threading.Event()
    gone = api.gone
    try:
        client = agent.start("claude -p 'a long one' </dev/null")
        until(lambda: bool(api.asked()), 60, "the request")
        (old,) = outside.living()
        outside.kubectl("rollout", "restart", "deployment/broker")
        until(lambda: outside.living() and old not in outside.living(), 25, "another broker")
        # By the new one, while the old one has the stream.
        assert ANSWER.encode() in agent.run("claude -p 'a short one' </dev/null", limit=120).out
        assert old in [pod["metadata"]["name"] for pod in outside.pods()]
        gate.set()
        out, err = client.communicate(timeout=120)
        assert ANSWER.encode() in out, (out, err)
        assert api.gone == gone, "no answer was cut"
    finally:
        gate.set()
        del api.held["a long one"]


def test_a_users_own_key_is_nowhere_either(
    agent: Ssh, brokered: Gateway, closed: Namespace, outside: Namespace, api: FakeApi
) -> None:
    options = ("-o", "SendEnv=ANTHROPIC_API_KEY")
    ended = agent.run("claude -p hi </dev/null", options=options, environ={"ANTHROPIC_API_KEY": BROUGHT}, limit=120)
    assert ANSWER.encode() in ended.out, ended.both
    assert {value for one in api.received for value in one.header("x-api-key")} == {BROUGHT}
    # The next login need not bring it again.
    api.received.clear()
    assert ANSWER.encode() in agent.run("claude -p hi </dev/null", limit=120).out
    assert {value for one in api.received for value in one.header("x-api-key")} == {BROUGHT}
    nowhere(BROUGHT, agent, brokered, closed, outside)


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
