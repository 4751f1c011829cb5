"""Files of a named sandbox: each tool's copy lands where every shell of that sandbox sees it, and comes back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.files.conftest import Worker
from tests.files.conftest import run as run_here
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh

HOST = "dev=work@127.0.0.1"


@pytest.fixture(scope="module")
def named(provider: str, make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]) -> Iterator[Worker]:
    """Whoever copies: each tool makes a connection of its own."""
    gateway = make_gateway(provider, profiles={"default": {}})
    ssh = user_at(gateway).as_user("dev=work")
    yield Worker(provider, ssh, (), gateway)
    assert ssh.run("end", options=("-s",)).status == 0


def by_sftp(work: Worker, source: str, destination: str) -> None:
    up = destination.startswith(HOST)
    line = f"{'put' if up else 'get'} -Rp {source.removeprefix(HOST + ':')} {destination.removeprefix(HOST + ':')}\n"
    command = ["sftp", *work.options, "-P", str(work.ssh.port), "-b", "-", HOST]
    done(run_here(command, line.encode()).status)


def by_scp(work: Worker, source: str, destination: str) -> None:
    done(work.scp("-rp", source, destination).status)


def by_rsync(work: Worker, source: str, destination: str) -> None:
    done(run_here(["rsync", "-a", "-e", work.shell(), f"{source}/", destination]).status)


def by_cp(work: Worker, source: str, destination: str) -> None:
    done(work.cp(source, destination)[0])


def done(status: int) -> None:
    assert status == 0


@pytest.mark.parametrize("copy", [by_sftp, by_scp, by_rsync, by_cp], ids=["sftp", "scp", "rsync", "sshgate-cp"])
def test_a_copy_lands_where_a_shell_of_the_sandbox_sees_it_and_comes_back(
    named: Worker, copy: Callable[[Worker, str, str], None], tmp_path: Path
) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    content = os.urandom(300_000)
    (tmp_path / "tree" / "sub" / "file").write_bytes(content)
    place = f"copied-{os.urandom(4).hex()}"  # below the home directory, where a shell begins
    copy(named, str(tmp_path / "tree"), f"{HOST}:{place}")
    shell = named.ssh.run(f"cat {place}/sub/file; echo more > {place}/by-the-shell")
    assert (shell.status, shell.out) == (0, content)
    copy(named, f"{HOST}:{place}", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "file").read_bytes() == content
    assert (tmp_path / "back" / "by-the-shell").read_text() == "more\n"
