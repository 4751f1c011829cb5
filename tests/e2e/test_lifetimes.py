"""Whatever ends, and however: nothing of a session is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.rig.balancer import Balancer
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, nothing_left
from tests.rig.processes import descendants
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

# The client that vanishes without a word: keepalive questions, and a second for the rest.
KEEPALIVE = {"keepalive": "1s", "keepalive_count": 2}


class Trace:
    """What a gateway has made and not yet removed: pods, or the processes below it."""

    def __init__(self, gateway: Gateway, provider: str, request: pytest.FixtureRequest) -> None:
        self._gateway = gateway
        self._pods: Namespace | None = None
        if provider == "kubernetes":
            self._pods = request.getfixturevalue("namespace")

    def count(self) -> int:
        """Sandboxes that are there and not on their way out."""
        if self._pods is None:
            return len(descendants(self._gateway.pid))
        mine = f"test-{self._gateway.port}"
        pods = self._pods.pods()
        return sum(
            "deletionTimestamp" not in pod["metadata"] and mine in pod["metadata"].get("labels", {}).values()
            for pod in pods
        )

    def gone(self, limit: float = 10.0) -> None:
        """Return when none is left."""
        until(lambda: not self.count(), limit, "the end of all sandboxes")


def test_nothing_is_left_after_a_session(
    gateway: Callable[..., Gateway], provider: str, user_at: Callable[[Gateway], Ssh], request: pytest.FixtureRequest
) -> None:
    served = gateway(provider)
    trace = Trace(served, provider, request)
    assert user_at(served).run("setsid sleep 600 </dev/null >/dev/null 2>&1 & exit 3").status == 3
    trace.gone()


def test_nothing_is_left_of_a_killed_client(
    gateway: Callable[..., Gateway], provider: str, user_at: Callable[[Gateway], Ssh], request: pytest.FixtureRequest
) -> None:
    served = gateway(provider)
    trace = Trace(served, provider, request)
    with user_at(served).running() as client:
        assert trace.count()
        client.send_signal(signal.SIGKILL)
        trace.gone()


def test_a_client_killed_during_the_start_leaves_nothing(
    gateway: Callable[..., Gateway], provider: str, user_at: Callable[[Gateway], Ssh], request: pytest.FixtureRequest
) -> None:
    served = gateway(provider)
    trace = Trace(served, provider, request)
    ssh = user_at(served)
    client = ssh.start("sleep 600")
    until(lambda: "session.start" in served.log(), 20, "the session")
    client.kill()
    client.communicate()
    until(lambda: "session.end" in served.log() or "session.failed" in served.log(), 20, "the session's end")
    trace.gone()


def test_term_ends_sessions_and_leaves_nothing(
    gateway: Callable[..., Gateway], provider: str, user_at: Callable[[Gateway], Ssh], request: pytest.FixtureRequest
) -> None:
    served = gateway(provider)
    ssh = user_at(served)
    with ssh.running() as client:
        below = descendants(served.pid)
        trace = Trace(served, provider, request)
        assert served.process is not None
        served.process.terminate()
        assert client.wait(15) == 255
        assert client.stderr is not None
        assert b"shutting down" in client.stderr.read()
        assert served.process.wait(10) == 0
        nothing_left(below)
    if provider == "kubernetes":
        trace.gone()


def test_a_draining_gateway_lets_a_session_end_by_itself(
    gateway: Callable[..., Gateway], provider: str, user_at: Callable[[Gateway], Ssh]
) -> None:
    served = gateway(provider, ssh={"drain": "8s"})
    ssh = user_at(served)
    with ssh.running("echo up; read line; exit 4") as client:
        assert served.process is not None
        served.process.terminate()
        until(lambda: ssh.run("true").status == 255, 5, "new logins being refused")
        client.communicate(b"go on\n", timeout=10)
        assert client.returncode == 4
        assert served.process.wait(8) == 0


def test_a_killed_gateway_leaves_nothing_after_its_next_start(
    gateway: Callable[..., Gateway], provider: str, user_at: Callable[[Gateway], Ssh], request: pytest.FixtureRequest
) -> None:
    served = gateway(provider)
    ssh = user_at(served)
    with ssh.running(), ssh.running():
        below = served.kill()
        nothing_left(below)
        served.start()
        trace = Trace(served, provider, request)
        trace.gone()
    assert ssh.run("exit 3").status == 3


@pytest.fixture
def far_away(tmp_path: Path) -> Iterator[tuple[list[str], str]]:
    """A network namespace with one wire to here: the words to run a program in it, and the name of our end."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("a network that can be cut needs root and iproute2")
    name = f"sg{os.getpid() % 100000}"
    ours, theirs = f"{name}a", f"{name}b"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("addr", "add", "10.213.77.1/30", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", "10.213.77.2/30", "dev", theirs)
        ip("-n", name, "link", "set", theirs, "up")
        yield ["ip", "netns", "exec", name], ours
    finally:
        subprocess.run(["ip", "link", "delete", ours], check=False, capture_output=True)
        ip("netns", "delete", name)


@pytest.mark.cluster
def test_nothing_is_left_behind_a_cut_network(
    gateway: Callable[..., Gateway],
    namespace: Namespace,
    user_at: Callable[[Gateway], Ssh],
    far_away: tuple[list[str], str],
    request: pytest.FixtureRequest,
) -> None:
    enter, wire = far_away
    # The local provider listens on loopback only, so this is for the cluster alone.
    served = gateway("kubernetes", host="10.213.77.1", ssh=KEEPALIVE)
    ssh = user_at(served)
    trace = Trace(served, "kubernetes", request)
    argv = [*enter, *ssh.argv("echo up; exec sleep 600")]
    argv[argv.index("127.0.0.1")] = "10.213.77.1"
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        assert trace.count() == 1
        subprocess.run(["ip", "link", "set", wire, "down"], check=True)
        cut = time.monotonic()
        trace.gone(15)
        assert time.monotonic() - cut > 1  # it was the silence that told, not a reset
        client.kill()


@pytest.mark.cluster
def test_a_held_session_is_joined_while_its_client_is_in_a_black_hole(
    gateway: Callable[..., Gateway], user_at: Callable[[Gateway], Ssh], far_away: tuple[list[str], str]
) -> None:
    """What half an hour of silence is to `keepalive: 30s` is some seconds here. Then the client is back, and ends."""
    enter, _ = far_away
    served = gateway("kubernetes", host="10.213.77.1", ssh={"keepalive": "2s", "keepalive_count": 2})
    dev = replace(user_at(served), host="10.213.77.1")
    work = dev.as_user("dev=work").argv(options=("-tt",))

    def packets(verb: str) -> None:
        for way in ("INPUT", "OUTPUT"):
            subprocess.run([*enter, "iptables", "--wait", verb, way, "--jump", "DROP"], check=True)

    ended = served.log().count("connection.end")
    with OnTerminal([*enter, *work]) as far:
        far.enter("echo be''gun; cat")
        far.expect(b"begun")
        packets("--append")
        far.type("into the hole\r")
        with OnTerminal(work) as other:
            other.expect(b"begun")
            other.type(b"\x03")
            other.expect(rb"\^C.*\$ ")  # else what is typed goes with the key
            other.enter("echo ba''ck; read line")
            other.expect(b"back\r\n")
            until(lambda: served.log().count("connection.end") > ended, 20, "the end of the silent connection")
            packets("--delete")
            assert far.until_end(40) == 255
            other.enter("")
            other.enter("exit 3")
            assert other.until_end() == 3
            assert b"hole" not in other.output
    dev.end_named()


@pytest.mark.cluster
def test_an_api_server_that_is_gone_is_one_sentence_and_comes_back(
    gateway: Callable[..., Gateway], namespace: Namespace, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    with Balancer.before_server(namespace.gateway, tmp_path) as (proxy, settings):
        served = gateway("kubernetes", sandbox={"kubeconfig": settings["kubeconfig"]})
        ssh = user_at(served)
        with ssh.running() as client:
            proxy.cut()
            began = time.monotonic()
            refused = ssh.run("true", limit=30)
            took = time.monotonic() - began
            status = client.wait(20)
            assert client.stderr is not None
            output = client.stderr.read()
            proxy.mend()
        assert refused.status == 255
        assert refused.err.count(b"\n") == 1
        assert refused.err.startswith(b"sshgate: ")
        assert took < 15
        # What ran lost its way to the program: a line, and never 0.
        assert status == 255
        assert output.startswith(b"sshgate: ")
        until(lambda: ssh.run("exit 3").status == 3, 30, "logins again")
        served.stop()


@pytest.mark.cluster
def test_an_api_server_that_does_not_answer_is_one_sentence_in_time(
    gateway: Callable[..., Gateway], namespace: Namespace, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    with Balancer.before_server(namespace.gateway, tmp_path) as (proxy, settings):
        served = gateway("kubernetes", sandbox={**settings, "api_timeout": "4s"})
        ssh = user_at(served)
        assert ssh.run("exit 3").status == 3
        with proxy.stopped():
            began = time.monotonic()
            refused = ssh.run("true", limit=30)
            took = time.monotonic() - began
        assert refused.status == 255
        assert refused.err.count(b"\n") == 1
        assert refused.err.startswith(b"sshgate: ")
        assert took < 12
        until(lambda: ssh.run("exit 3").status == 3, 30, "logins again")
        served.stop()
