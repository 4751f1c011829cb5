"""`sandbox-image/load`: an image sent through ssh into the containerd of a node."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.manifests import ROOT
from tests.rig.ssh import Ssh
from tests.rig.sshd import sshd

LOAD = ROOT / "sandbox-image" / "load"
SOCKET = Path(os.environ.get("SSHGATE_CLUSTER_DIR", "/var/lib/sshgate-cluster"), "containerd.sock")


@pytest.fixture
def node(cluster: Path, tmp_path: Path) -> Iterator[Ssh]:
    """A machine with a containerd that takes ssh: this one."""
    if not SOCKET.exists():
        pytest.skip("this cluster's containerd is not on this machine")
    place = tmp_path / "sshd"
    place.mkdir()
    with sshd(place) as user:
        yield user


def load(*words: str | Path, user: Ssh | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if user is not None:
        environment["SSHGATE_SSH"] = " ".join(["ssh", *user.options(), "-p", str(user.port)])
    return subprocess.run([LOAD, *words], env=environment, capture_output=True, text=True, timeout=60, check=False)


def containerd(*words: str) -> str:
    argv = ["ctr", "--address", str(SOCKET), "--namespace", "k8s.io", "images", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.cluster
def test_an_image_reaches_every_node_that_can_be_reached_and_the_others_are_named(node: Ssh, tmp_path: Path) -> None:
    name = f"docker.io/library/sshgate-load-test:{secrets.token_hex(4)}"
    archive, rootfs = tmp_path / "image.tar", tmp_path / "rootfs"
    rootfs.mkdir()
    shutil.copy(LOAD, rootfs / "file")
    program = ROOT / "tests" / "cluster" / "archive.py"
    subprocess.run([sys.executable, program, name, rootfs, archive], check=True)
    nodes = (f"{node.user}@192.0.2.254", f"{node.user}@127.0.0.1")
    try:
        ended = load("--to", SOCKET, "--on", nodes[0], "--on", nodes[1], archive, user=quick(node))
        assert name in containerd("ls", "-q")
    finally:
        containerd("rm", name)
    assert f"load: {nodes[1]} has it" in ended.stderr
    assert ended.stderr.splitlines()[-1] == f"load: not loaded on: {nodes[0]}"
    assert ended.returncode == 1


class _Quick(Ssh):
    def options(self) -> list[str]:
        return ["-o", "ConnectTimeout=2", *super().options()]


def quick(user: Ssh) -> Ssh:
    """The same user, who does not wait for machines that are not there."""
    return _Quick(user.place, user.port, user.user)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("--to", "moon"), 2, "--to takes k3s, kind"),
        (("--to", "kind", "--on", "root@node"), 2, "--on goes with --to k3s or a socket"),
        (("--to", "/run/containerd/containerd.sock", "no-such-file.tar"), 1, "there is no image archive at"),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], status: int, sentence: str) -> None:
    ended = load(*words)
    assert ended.returncode == status
    assert sentence in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
