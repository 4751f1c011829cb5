"""The gateway in the cluster, under exactly the manifests: logging in, keys, rolling, scaling."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest

from sshgate.lifecycle.schema import CLAIMED, ENDPOINT, STATE
from sshgate.providers.kubernetes.liveness import LivenessEndpoint, ProbeResult, probe
from tests.rig.deployed import ARRIVED, Deployed
from tests.rig.ssh import Ended, Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

# Ends within seconds where it ends at all; a gateway that is going may keep it for minutes.
PATIENCE = 60.0


@contextmanager
def held_open(user: Ssh) -> Iterator[subprocess.Popen[bytes]]:
    """A session in which ``cat`` runs; its input and output have been tried."""
    with user.start("cat") as session:
        try:
            assert says(session, b"hello\n") == b"hello\n"
            yield session
        finally:
            session.kill()


def says(session: subprocess.Popen[bytes], line: bytes) -> bytes:
    """What comes back for a line."""
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(line)
    session.stdin.flush()
    return session.stdout.readline()


@contextmanager
def logging_in(user: Ssh, command: str = "echo in") -> Iterator[list[Ended]]:
    """One login after another while the body runs; all that came of them."""
    ended: list[Ended] = []
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            ended.append(user.run(command))

    thread = Thread(target=work)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join(PATIENCE)


def failures(ended: list[Ended], right: bytes = b"in\n") -> list[str]:
    return [one.both for one in ended if (one.status, one.out) != (0, right)]


def test_a_user_logs_in_by_the_nodes_port(dev: Ssh) -> None:
    ended = dev.run("id -un; exit 7")
    assert (ended.status, ended.out) == (7, b"dev\n"), ended.both


def test_what_it_prints_for_a_clients_configuration_leads_to_the_node(deployed: Deployed, dev: Ssh) -> None:
    (node,) = {pod["status"]["hostIP"] for pod in deployed.gateway.pods()}
    assert f"\n  HostName {node}\n  Port 2222\n" in dev.run("config", options=("-s",)).out.decode()


def test_it_can_be_asked_whether_it_lives_at_its_pods_address(deployed: Deployed) -> None:
    addresses = {pod["status"]["podIP"] for pod in deployed.gateway.pods()}
    leases = json.loads(deployed.sandboxes.kubectl("get", "leases", "--output=json"))["items"]
    notes = [lease["metadata"].get("annotations", {}).get(ENDPOINT) for lease in leases]
    doors = [
        door
        for note in notes
        if note and (door := msgspec.json.decode(note, type=LivenessEndpoint)).address in addresses
    ]
    # Each worker of a pod has a Lease and a port of its own.
    assert {door.address for door in doors} == addresses
    assert {probe(door) for door in doors} == {ProbeResult.ALIVE}


def test_the_host_keys_are_those_that_the_operator_can_show(deployed: Deployed, dev: Ssh) -> None:
    shown = deployed.keys("host", "--show")
    known = subprocess.run(["ssh-keygen", "-lf", dev.place / "known_hosts"], check=True, capture_output=True, text=True)
    assert known.stdout.split()[1] in shown
    assert deployed.keys("host") == ""  # they stay
    assert deployed.keys("host", "--show") == shown


def test_the_sandbox_is_in_its_own_namespace_and_below_everything_in_priority(deployed: Deployed, dev: Ssh) -> None:
    until(lambda: not claimed(deployed), PATIENCE, "the sandboxes before being removed")
    with held_open(dev):
        (pod,) = claimed(deployed)
        assert pod["spec"]["priorityClassName"] == "sshgate-sandbox"
        assert pod["spec"]["priority"] < 0
    until(lambda: not claimed(deployed), PATIENCE, "the sandbox being removed")


def claimed(deployed: Deployed) -> list[dict[str, Any]]:
    """The sandboxes that somebody has."""
    living = [pod for pod in deployed.sandboxes.pods() if "deletionTimestamp" not in pod["metadata"]]
    return [pod for pod in living if pod["metadata"]["labels"].get(STATE) == CLAIMED]


def test_a_user_is_let_in_and_kept_out_again_without_a_restart(deployed: Deployed, tmp_path: Path) -> None:
    before = deployed.pods()
    eve = deployed.user("eve", tmp_path)
    assert deployed.keys("users").split() == ["dev", "eve"]
    deployed.keys("remove", "eve")
    deployed.sync()
    until(lambda: b"Permission denied" in eve.run("true").err, ARRIVED, "eve being refused")
    assert deployed.pods() == before


@pytest.mark.parametrize(
    ("words", "stdin", "sentence"),
    [
        (("user", "../eve"), "", "cannot be a user's name"),
        (("user", "eve"), "-----BEGIN OPENSSH PRIVATE KEY-----\n", "this is a private key"),
        (("user", "eve"), "not a key\n", "there is no public key"),
        (("remove", "nobody"), "", "there is no user 'nobody'"),
        (("host", "--hide"), "", "takes --show"),
    ],
)
def test_a_mistake_with_keys_is_one_sentence(
    deployed: Deployed, words: tuple[str, ...], stdin: str, sentence: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        deployed.keys(*words, stdin=stdin)
    assert raised.value.returncode == 1
    assert sentence in raised.value.stderr
    assert len(raised.value.stderr.splitlines()) == 1


def test_a_pod_that_is_not_restricted_is_refused_beside_the_gateway_and_among_sandboxes(deployed: Deployed) -> None:
    container = {"name": "c", "image": "sshgate-busybox:latest", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": {"containers": [container]}}
    for place in (deployed.gateway, deployed.sandboxes):
        with pytest.raises(subprocess.CalledProcessError) as raised:
            place.kubectl("create", "--filename=-", stdin=json.dumps(pod))
        assert "violates PodSecurity" in raised.value.stderr


def test_a_roll_refuses_no_login_and_keeps_running_sessions(deployed: Deployed, dev: Ssh) -> None:
    (old,) = deployed.pods()
    with held_open(dev) as session:
        with logging_in(dev) as ended:
            deployed.gateway.kubectl("rollout", "restart", "deployment/gateway")
            deployed.rolled()
            until(lambda: old not in deployed.pods(), PATIENCE, "the old gateway being told to end")
            seen = len(ended)
            until(lambda: len(ended) > seen + 2, PATIENCE, "logins at the new gateway")
        assert failures(ended) == []
        assert len(ended) > 3
        assert says(session, b"still here\n") == b"still here\n"
    gone = lambda: old not in [pod["metadata"]["name"] for pod in deployed.gateway.pods()]  # noqa: E731
    until(gone, PATIENCE, "the end of the old gateway after its last session")


def test_a_roll_of_two_replicas_loses_no_login_and_no_named_sandbox(deployed: Deployed, dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    with _replicas(2, deployed):
        old = set(deployed.pods())
        assert work.run("echo kept > file").status == 0
        with logging_in(dev) as ended, logging_in(work, "cat file; echo in") as named:
            deployed.gateway.kubectl("rollout", "restart", "deployment/gateway")
            deployed.rolled()
            until(lambda: old.isdisjoint(deployed.pods()), PATIENCE, "the old gateways being told to end")
            seen, again = len(ended), len(named)
            until(lambda: len(ended) > seen + 2 and len(named) > again + 1, PATIENCE, "logins at the new gateways")
        assert failures(ended) == []
        assert failures(named, b"kept\nin\n") == []
        assert work.run("end", options=("-s",)).status == 0


@contextmanager
def _replicas(count: int, deployed: Deployed) -> Iterator[None]:
    """So many gateways while the body runs; one afterwards."""
    try:
        deployed.gateway.kubectl("scale", "deployment/gateway", f"--replicas={count}")
        deployed.rolled()
        yield
    finally:
        deployed.gateway.kubectl("scale", "deployment/gateway", "--replicas=1")
        deployed.rolled()
        until(_is(1, deployed), PATIENCE, "one gateway")


def test_it_grows_to_three_and_back_to_one_under_logins(deployed: Deployed, dev: Ssh) -> None:
    with logging_in(dev) as ended:
        for count in (3, 1):
            deployed.gateway.kubectl("scale", "deployment/gateway", f"--replicas={count}")
            deployed.rolled()
            until(_is(count, deployed), PATIENCE, f"{count} gateways")
            seen = len(ended)
            until(lambda: len(ended) > seen + 1, PATIENCE, "another login")  # noqa: B023
    assert failures(ended) == []


def _is(count: int, deployed: Deployed) -> Callable[[], bool]:
    return lambda: len(deployed.pods()) == count


def test_wrong_settings_leave_the_gateway_that_serves(deployed: Deployed, dev: Ssh) -> None:
    (serving,) = deployed.pods()
    settings = deployed.place / "sshgate.yaml"
    right = settings.read_text()
    settings.write_text(right + "nonsense: true\n")
    try:
        deployed.apply()
        deployed.gateway.kubectl("rollout", "restart", "deployment/gateway")
        until(lambda: "nonsense" in _first_container(deployed), PATIENCE, "the new pod's complaint")
        assert serving in deployed.pods()
        assert dev.run("echo in").out == b"in\n"
    finally:
        settings.write_text(right)
        deployed.apply()
        deployed.gateway.kubectl("rollout", "undo", "deployment/gateway")
        deployed.rolled()


def _first_container(deployed: Deployed) -> str:
    """What check-config says in the pods that are starting."""
    words = ("logs", "--selector=app.kubernetes.io/name=sshgate", "--container=check-config")
    try:
        return deployed.gateway.kubectl(*words)
    except subprocess.CalledProcessError:  # not yet
        return ""
