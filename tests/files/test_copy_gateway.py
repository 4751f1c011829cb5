"""``sshgate cp`` through the gateway with the real ssh, and straight through the Kubernetes API."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import MakeGateway
from tests.rig.cluster import BUSYBOX, IMAGE, Namespace
from tests.rig.copies import nasty_tree, picture
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until


def cp(*arguments: str, seconds: float = 90) -> tuple[int, str]:
    """Run a copy; its status and what it said."""
    command = [sys.executable, "-m", "sshgate", "cp", *arguments]
    ended = subprocess.run(command, capture_output=True, timeout=seconds, check=False, env=environment())
    return ended.returncode, (ended.stdout + ended.stderr).decode(errors="replace")


class Shared(NamedTuple):
    """A sandbox that lives as long as one connection, which all these clients share."""

    ssh: Ssh
    control: tuple[str, str]
    options: list[str]

    def run(self, command: str) -> bytes:
        return self.ssh.run(command, options=self.control).out


def options_of(ssh: Ssh) -> list[str]:
    """ssh's options as ``sshgate cp`` takes them."""
    return ["-F", "none", "-p", str(ssh.port), *ssh.options()[2:]]


@pytest.fixture(scope="module")
def by_connection(make_gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(make_gateway(provider, profiles={"default": {"scope": "connection"}}))


@pytest.fixture
def work(by_connection: Ssh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    socket = tmp_path_factory.mktemp("c") / "s"
    control = ("-o", f"ControlPath={socket}")
    master = subprocess.Popen(by_connection.argv(options=("-M", "-N", *control))[:-1], env=environment())
    try:
        until(socket.exists, 20, "the shared connection")
        yield Shared(by_connection, control, [*control, *options_of(by_connection)])
    finally:
        master.terminate()
        master.wait(10)


def test_a_nasty_tree_into_a_sandbox_and_back(work: Shared, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    nasty_tree(tree)
    assert cp(*work.options, str(tree), "dev@127.0.0.1:/tmp/there") == (0, "")
    assert work.run("cd /tmp/there && find . -print0 | tr -dc '\\0' | wc -c").strip() == b"%d" % (
        len(picture(tree)) + 1
    )
    assert cp(*work.options, "--host", "127.0.0.1", "dev:/tmp/there", str(tmp_path / "back")) == (0, "")
    assert picture(tmp_path / "back") == picture(tree)


def test_a_large_file_arrives_whole(work: Shared, tmp_path: Path) -> None:
    content = os.urandom(60_000_000)
    (tmp_path / "large").write_bytes(content)
    assert cp(*work.options, str(tmp_path / "large"), "dev@127.0.0.1:") == (0, "")
    assert work.run("sha256sum < ~/large").split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_a_full_disk_in_the_sandbox_is_told_and_nothing_half_written_stays(work: Shared, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(80):
            file.write(os.urandom(1 << 20))
    work.run("mkdir -p /dev/shm/full")
    room = int(work.run("df -k /dev/shm | tail -1").split()[3] or 0) * 1024
    if not 0 < room < 78 << 20:
        pytest.skip("this sandbox has no small disk")
    status, said = cp(*work.options, str(tmp_path / "large"), "dev@127.0.0.1:/dev/shm/full")
    assert status == 1
    assert "no space left on device" in said
    assert work.run("ls -A /dev/shm/full") == b""


def test_a_login_that_is_refused_fails_with_ssh_s_own_words(by_connection: Ssh, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    status, said = cp(*options_of(by_connection), str(tmp_path / "x"), "nobody@127.0.0.1:/tmp/x")
    assert status == 1
    assert "Permission denied" in said
    assert "nothing was copied" in said


def test_a_gateway_killed_in_the_middle_is_told(
    gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    running = gateway(provider)
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(1 << 20)
        for _ in range(400):
            file.write(os.urandom(1 << 20))
    arguments = [*options_of(user_at(running)), str(big), "dev@127.0.0.1:/tmp/big"]
    command = [sys.executable, "-m", "sshgate", "cp", *arguments]
    copy = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment())
    reading = Path(f"/proc/{copy.pid}/io")

    def under_way() -> bool:
        assert copy.poll() is None, "it was over before it could be killed"
        return int(reading.read_text().split("wchar: ")[1].split()[0]) > 20_000_000

    until(under_way, 30, "the copy being under way")
    running.kill()
    _, err = copy.communicate(timeout=40)
    running.start()  # to remove what its earlier life has left
    assert copy.returncode == 1
    assert b"not complete" in err


@pytest.fixture(params=[IMAGE, BUSYBOX], ids=["python", "busybox"])
def pod(request: pytest.FixtureRequest, namespace: Namespace) -> Iterator[str]:
    """A running pod that no gateway has made."""
    name = f"copy-{secrets.token_hex(4)}"
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "shell",
        "image": request.param,
        "imagePullPolicy": "Never",
        "command": ["sleep", "600"],
        "securityContext": security,
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False}
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    try:
        phase = "jsonpath={.status.phase}"
        until(lambda: namespace.kubectl("get", "pod", name, f"--output={phase}") == "Running", 40, "the pod")
        yield name
    finally:
        namespace.kubectl("delete", "pod", name, "--wait=true")


@pytest.mark.cluster
def test_an_operator_copies_by_pod_name(pod: str, namespace: Namespace, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "with space\n").write_bytes(b"x" * 100_000)
    (tree / "big").write_bytes(os.urandom(5_000_000))
    (tree / "empty").mkdir()
    options = ("--kubeconfig", str(namespace.kubeconfig), "--namespace", namespace.name)
    assert cp(*options, str(tree), f"{pod}:/tmp/there") == (0, "")
    assert cp(*options[:2], f"{namespace.name}/{pod}:/tmp/there/.", str(tmp_path / "back")) == (0, "")
    assert picture(tmp_path / "back") == picture(tree)


@pytest.mark.cluster
def test_a_missing_pod_is_named_as_such(namespace: Namespace, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    options = ("--kubeconfig", str(namespace.kubeconfig), "--namespace", namespace.name)
    status, said = cp(*options, str(tmp_path / "x"), "no-such-pod:/tmp/x")
    assert status == 1
    assert said.startswith("sshgate: ")
    assert said.count("\n") == 1
