"""Users whose files live as long as one connection, in each kind of sandbox."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.rig.cluster import BUSYBOX
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ended, Ssh, end, environment
from tests.rig.waiting import until

FULL = [
    pytest.param("local", marks=pytest.mark.local),
    pytest.param("kubernetes", marks=pytest.mark.cluster),
]
# An image with a shell and busybox alone: no sftp-server, no Python.
KINDS = [*FULL, pytest.param("busybox", marks=pytest.mark.cluster)]


# A shared connection passes on only the variables that its first client names.
_SEND = ("-o", "SendEnv=GIT_PROTOCOL")


@dataclass(frozen=True)
class Worker:
    """A user with one connection that all of its tools share, and so one sandbox."""

    kind: str
    ssh: Ssh
    control: tuple[str, ...]
    gateway: Gateway

    @property
    def options(self) -> list[str]:
        """ssh's options as ``sshgate cp``, sftp and scp take them, without a port."""
        return [*self.control, "-F", "none", *self.ssh.options()[2:]]

    def run(self, command: str) -> bytes:
        """What a command in the sandbox says."""
        ended = self.ssh.run(command, options=self.control)
        assert ended.status == 0, ended
        return ended.out

    def cp(self, *words: str | bytes, seconds: float = 100) -> tuple[int, str]:
        """``sshgate cp``: its status and what it said."""
        command = [sys.executable, "-m", "sshgate", "cp", *self.options, "-p", str(self.ssh.port), *words]
        ended = run(command, seconds=seconds)
        return ended.status, ended.both

    def sftp(self, *lines: str, options: Sequence[str] = (), cwd: Path | None = None) -> Ended:
        """Carry out sftp's commands, up to the first that fails."""
        command = ["sftp", *self.options, "-P", str(self.ssh.port), *options, "-b", "-", "dev@127.0.0.1"]
        return run(command, "".join(f"{line}\n" for line in lines).encode(), cwd, 600)

    def scp(self, *words: str | bytes, cwd: Path | None = None) -> Ended:
        """OpenSSH's scp; remote places are ``dev@127.0.0.1:PATH``."""
        return run(["scp", *self.options, "-P", str(self.ssh.port), *words], cwd=cwd)

    def shell(self) -> str:
        """A command line that programs with a remote shell of their own (rsync, git) can be given."""
        return " ".join(["ssh", *self.options, "-p", str(self.ssh.port)])


def run(command: Sequence[str | bytes], stdin: bytes = b"", cwd: Path | None = None, seconds: float = 100) -> Ended:
    """A program of this machine, to its end."""
    ended = subprocess.run(
        command, input=stdin, capture_output=True, timeout=seconds, check=False, cwd=cwd, env=environment()
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="session")
def gateway_of(make_gateway: MakeGateway, request: pytest.FixtureRequest) -> Callable[[str], Gateway]:
    """A gateway with sandboxes of that kind, one for the whole run."""
    made: dict[str, Gateway] = {}

    def get(kind: str) -> Gateway:
        if kind not in made:
            request.getfixturevalue("local" if kind == "local" else "cluster")
            profile = {"scope": "connection"} | ({"image": BUSYBOX, "shell": "/bin/sh"} if kind == "busybox" else {})
            made[kind] = make_gateway("local" if kind == "local" else "kubernetes", profiles={"default": profile})
        return made[kind]

    return get


@pytest.fixture(scope="module")
def worker_at(
    gateway_of: Callable[[str], Gateway],
    user_at: Callable[[Gateway], Ssh],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Worker]]:
    """A worker per kind, for the tests of one file."""
    masters: dict[str, tuple[subprocess.Popen[bytes], Worker]] = {}

    def get(kind: str) -> Worker:
        if kind not in masters:
            gateway = gateway_of(kind)
            ssh = user_at(gateway)
            socket = tmp_path_factory.mktemp("c") / "s"
            control = ("-o", f"ControlPath={socket}")
            master = subprocess.Popen(ssh.argv(options=("-M", "-N", *_SEND, *control))[:-1], env=environment())
            masters[kind] = master, Worker(kind, ssh, control, gateway)
            until(socket.exists, 20, "the shared connection")
        return masters[kind][1]

    try:
        yield get
    finally:
        for master, _ in masters.values():
            end(master)


@pytest.fixture(scope="module", params=KINDS)
def work(request: pytest.FixtureRequest, worker_at: Callable[[str], Worker]) -> Worker:
    """Every kind of sandbox."""
    return worker_at(request.param)


@pytest.fixture(scope="module", params=FULL)
def full(request: pytest.FixtureRequest, worker_at: Callable[[str], Worker]) -> Worker:
    """Sandboxes with sftp-server, rsync and git."""
    return worker_at(request.param)
