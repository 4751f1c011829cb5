"""``sshgate cp`` through the gateway with the real ssh, and straight through the Kubernetes API."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshgate.transfer import partial_file
from tests.conftest import MakeGateway
from tests.files.conftest import FULL, Worker, run
from tests.rig.cluster import BUSYBOX, IMAGE, Namespace
from tests.rig.copies import picture
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

# By hand with 5120 on a cluster: five gigabytes each way through the gateway. Local sandboxes' files are memory.
BULK = int(os.environ.get("SSHGATE_FILES_MIB", "96")) << 20
# What the gateway may grow by while that passes.
FLAT = 48 << 20


def cp(*arguments: str, seconds: float = 90) -> tuple[int, str]:
    """Run a copy; its status and what it said."""
    ended = run([sys.executable, "-m", "sshgate", "cp", *arguments], seconds=seconds)
    return ended.status, ended.both


def options_of(ssh: Ssh) -> list[str]:
    """ssh's options as ``sshgate cp`` takes them."""
    return ["-F", "none", "-p", str(ssh.port), *ssh.options()[2:]]


def fill(path: Path, size: int) -> str:
    """A file without patterns; its sha256."""
    seed, digest = os.urandom(8 << 20), hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size // len(seed)):
            block = number.to_bytes(8, "big") + seed[8:]
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


@contextlib.contextmanager
def running_copy(arguments: list[str], written: int = 20_000_000) -> Iterator[subprocess.Popen[bytes]]:
    """A copy that has sent so many bytes, and goes on."""
    command = [sys.executable, "-m", "sshgate", "cp", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as copy:
        counts = Path(f"/proc/{copy.pid}/io")

        def going() -> bool:
            assert copy.poll() is None, "it was over too early"
            return int(counts.read_text().split("wchar: ")[1].split()[0]) > written

        try:
            until(going, 30, "the copy being under way")
            yield copy
        finally:
            copy.kill()


@pytest.mark.timeout(900 if BULK > 1 << 30 else 200)
def test_a_large_file_goes_and_comes_whole_in_flat_memory(full: Worker, tmp_path: Path) -> None:
    digest = fill(tmp_path / "large", BULK)
    fill(tmp_path / "first", 32 << 20)
    assert full.cp(str(tmp_path / "first"), "dev@127.0.0.1:/tmp/warmed-up")[0] == 0  # what the first copy costs once
    full.run("rm -rf /tmp/warmed-up")
    before = full.gateway.memory
    assert full.cp(str(tmp_path / "large"), "dev@127.0.0.1:/tmp/large", seconds=400) == (0, "")
    assert full.run("sha256sum < /tmp/large").split()[0].decode() == digest
    assert full.cp("dev@127.0.0.1:/tmp/large", str(tmp_path / "back"), seconds=400) == (0, "")
    ended = full.sftp(f"put {tmp_path}/large /tmp/large", f"get /tmp/large {tmp_path}/by-sftp")
    assert ended.status == 0, ended
    for name in ("back", "by-sftp"):
        with (tmp_path / name).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    grown = full.gateway.memory - before
    print(f"{BULK >> 20} MiB four times: the gateway grew by {grown >> 20} MiB from {before >> 20} MiB")
    assert grown < FLAT
    full.run("rm /tmp/large")


@pytest.mark.cluster
def test_a_sandbox_s_own_layer_is_not_forced_to_the_disk_but_what_is_mounted_is(
    worker_at: Callable[[str], Worker], cluster: Path
) -> None:
    """Where others write gigabytes to the node's disk, forcing takes minutes, for files that no crash outlives."""
    asked = f"""
import os
{inspect.getsource(partial_file.is_persistent)}
_EPHEMERAL = {partial_file._EPHEMERAL!r}
print([is_persistent(os.open(path, os.O_RDONLY)) for path in ("/tmp", "/home", "/dev/shm")])
"""
    report = worker_at("kubernetes").run(f"python3 -c {shlex.quote(asked)}")
    assert report == b"[False, False, True]\n"


@pytest.mark.cluster
def test_more_than_eight_gigabytes_in_holes(worker_at: Callable[[str], Worker], cluster: Path, tmp_path: Path) -> None:
    work = worker_at("kubernetes")  # local sandboxes limit the size of a file
    size = 9 << 30
    with (tmp_path / "huge").open("wb") as file:
        file.seek(size - 3)
        file.write(b"end")
    ended = work.cp(str(tmp_path / "huge"), "dev@127.0.0.1:/tmp/huge")
    assert ended == (0, ""), ended[1]
    assert work.run("stat -c %s /tmp/huge; tail -c 3 /tmp/huge").split() == [b"%d" % size, b"end"]
    assert work.cp("dev@127.0.0.1:/tmp/huge", str(tmp_path / "back")) == (0, "")
    assert (tmp_path / "back").stat().st_size == size
    assert (tmp_path / "back").stat().st_blocks < 10_000
    work.run("rm /tmp/huge")


def test_a_killed_client_leaves_nothing_half_written(full: Worker, tmp_path: Path) -> None:
    fill(tmp_path / "large", 400 << 20)
    full.run("mkdir /tmp/killed")
    arguments = [*full.options, "-p", str(full.ssh.port), str(tmp_path / "large"), "dev@127.0.0.1:/tmp/killed/large"]
    with running_copy(arguments) as copy:
        assert full.run("ls /tmp/killed") == b""
        copy.kill()
    until(lambda: full.run("ls -A /tmp/killed") == b"", 20, "the sandbox's side tidying up")


@pytest.mark.cluster
def test_a_deleted_pod_is_reported_and_nothing_half_written_stays(
    worker_at: Callable[[str], Worker], gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], namespace: Namespace,
    tmp_path: Path,
) -> None:  # fmt: skip
    running = gateway("kubernetes")
    fill(tmp_path / "large", 400 << 20)
    others = set(namespace.living())
    with running_copy([*options_of(user_at(running)), str(tmp_path / "large"), "dev@127.0.0.1:/tmp/large"]) as copy:
        (pod,) = set(namespace.living()) - others
        namespace.kubectl("delete", "pod", pod, "--grace-period=1", "--wait=false")
        _, err = copy.communicate(timeout=40)
    assert copy.returncode == 1
    assert b"not complete" in err


@pytest.mark.parametrize("work", FULL[1:], indirect=True)  # local sandboxes have no small disk
def test_a_full_disk_in_the_sandbox_is_reported_and_nothing_half_written_stays(work: Worker, tmp_path: Path) -> None:
    fill(tmp_path / "large", 80 << 20)
    work.run("mkdir -p /dev/shm/full")
    status, output = work.cp(str(tmp_path / "large"), "dev@127.0.0.1:/dev/shm/full")
    assert status == 1
    assert "no space left on device" in output
    assert work.run("ls -A /dev/shm/full") == b""


def test_a_login_that_is_refused_fails_with_ssh_s_own_words(ssh: Ssh, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    status, output = cp(*options_of(ssh), str(tmp_path / "x"), "nobody@127.0.0.1:/tmp/x")
    assert status == 1
    assert "Permission denied" in output
    assert "nothing was copied" in output


def test_a_gateway_killed_in_the_middle_is_reported(
    gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    running = gateway(provider)
    fill(tmp_path / "big", 400 << 20)
    with running_copy([*options_of(user_at(running)), str(tmp_path / "big"), "dev@127.0.0.1:/tmp/big"]) as copy:
        running.kill()
        _, err = copy.communicate(timeout=40)
    running.start()  # to remove what its earlier life has left
    assert copy.returncode == 1
    assert b"not complete" in err


def test_a_sandbox_without_python_and_without_tar_is_named_as_such(
    gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    """Its image has both here; what counts is what a program in it finds."""
    profile = {"scope": "connection", "environment": {"PATH": "/nowhere"}}
    options = options_of(user_at(gateway(provider, profiles={"default": profile})))
    (tmp_path / "x").write_text("x")
    for arguments in ((str(tmp_path / "x"), "dev@127.0.0.1:/tmp/x"), ("dev@127.0.0.1:/etc/passwd", str(tmp_path))):
        status, output = cp(*options, *arguments)
        assert status == 1
        assert output == (
            "sshgate: the sandbox has neither Python 3.8 nor tar: add one of them to its image; nothing was copied.\n"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


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
        until(lambda: (name, "Running") in _phases(namespace), 90, "the pod")
        yield name
    finally:
        namespace.kubectl("delete", "pod", name, "--wait=true")


def _phases(namespace: Namespace) -> list[tuple[str, str]]:
    return [(pod["metadata"]["name"], pod["status"]["phase"]) for pod in namespace.pods()]


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
    status, output = cp(*options, str(tmp_path / "x"), "no-such-pod:/tmp/x")
    assert status == 1
    assert output.startswith("sshgate: ")
    assert output.count("\n") == 1
