"""How clients bring up their servers: a file by one channel, its start by the next. One sandbox must have both."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest

from tests.conftest import MakeGateway
from tests.rig.cluster import Namespace
from tests.rig.forwarding import local_port, master
from tests.rig.gateway import Gateway
from tests.rig.library import connection
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

CLIENTS = Path(__file__).parent.parent / "clients"
SERVER = "echo started from $PWD; exit 7\n"
GREETING = b"started from /home/dev\n"


@pytest.fixture(scope="module")
def door(make_gateway: MakeGateway, provider: str) -> Gateway:
    return make_gateway(provider)


@pytest.fixture(scope="module")
def user(door: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(door)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the clients for Node.js and their locked packages."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    place = tmp_path_factory.mktemp("node") / "clients"
    shutil.copytree(CLIENTS, place, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(
        ["npm", "ci", "--silent", "--ignore-scripts", "--omit=optional", "--no-audit"],
        cwd=place, check=True, timeout=100,
    )  # fmt: skip
    return place


def test_node_ssh2(user: Ssh, node: Path) -> None:
    argv = ["node", "two_channels.js", str(user.port), user.user, str(user.key)]
    ended = subprocess.run(argv, cwd=node, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (7, GREETING), ended.stderr


def test_paramiko(user: Ssh) -> None:
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1", user.port, user.user, key_filename=str(user.key), allow_agent=False, look_for_keys=False
        )
        with client.open_sftp() as sftp, sftp.open("server.sh", "w") as file:
            file.write(SERVER)
        _, out, _ = client.exec_command("sh ./server.sh", timeout=30)
        assert (out.read(), out.channel.recv_exit_status()) == (GREETING, 7)


async def test_asyncssh(user: Ssh) -> None:
    async with asyncio.timeout(60), connection(user) as client:
        async with client.start_sftp_client() as sftp, sftp.open("server.sh", "w") as file:
            await file.write(SERVER)
        ended = await client.run("sh ./server.sh", encoding=None)
        assert (ended.exit_status, ended.stdout) == (7, GREETING)


@pytest.mark.parametrize("copy", ["sftp", "scp", "scp -O"])
def test_an_editor_that_copies_and_starts_by_clients_of_one_master(user: Ssh, tmp_path: Path, copy: str) -> None:
    """As Zed does: each step a process of OpenSSH's, all over one connection in the background."""
    (tmp_path / "server.sh").write_text(SERVER)
    with master(user, tmp_path) as control:
        options = [*control, *user.options(), "-P", str(user.port)]
        place = f"{user.user}@127.0.0.1"
        if copy == "sftp":
            argv, batch = ["sftp", *options, "-b", "-", place], f"put {tmp_path}/server.sh\n".encode()
        else:
            argv, batch = [*copy.split(), *options, f"{tmp_path}/server.sh", f"{place}:"], b""
        subprocess.run(argv, input=batch, check=True, capture_output=True, timeout=60, env=environment())
        # Somebody looks at the first step's outcome before the next one begins.
        ended = user.run("sh ./server.sh", options=control)
        assert (ended.status, ended.out) == (7, GREETING), ended.err


def test_an_editor_whose_one_session_brings_its_server_and_proxies_to_it(user: Ssh) -> None:
    """As VS Code does: `-T -D`, and all that is needed on the stdin of one shell."""
    client = user.start("cat >got; sh ./got", options=("-T", "-D", str(local_port())))
    out, _ = client.communicate(SERVER.encode(), timeout=60)
    assert (client.returncode, out) == (7, GREETING)


def _last_sandbox(door: Gateway) -> str:
    """The sandbox of the last session."""
    claims = [json.loads(line) for line in door.log().splitlines() if '"sandbox.claim"' in line]
    found: str = claims[-1]["sandbox"]
    return found


def _ended(door: Gateway, sandbox: str) -> bool:
    return any('"sandbox.end"' in line and sandbox in line for line in door.log().splitlines())


def test_a_sandbox_goes_at_once_when_its_connection_does(user: Ssh, door: Gateway) -> None:
    """Not after a grace: neither the client that only ran a command nor its sandbox waits for anything."""
    assert user.run("exit 3").status == 3
    until(lambda: _ended(door, _last_sandbox(door)), 20, "the end of the sandbox")


def test_a_sandbox_whose_client_was_killed_goes_as_soon(user: Ssh, door: Gateway) -> None:
    """What ran there ends with it, and need not be hung up first."""
    with user.running("trap '' HUP; echo up; while :; do sleep 1; done"):
        pass
    until(lambda: _ended(door, _last_sandbox(door)), 20, "the end of the sandbox")


@pytest.mark.cluster
def test_a_sandbox_that_was_deleted_under_its_connection_is_replaced(
    make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], namespace: Namespace, tmp_path: Path
) -> None:
    door = make_gateway("kubernetes")
    user = user_at(door)
    with master(user, tmp_path) as control:
        assert user.run("true", options=control).status == 0
        namespace.kubectl("delete", "pod", "--wait=false", _last_sandbox(door))
        until(lambda: user.run("echo again", options=control).out == b"again\n", 30, "a sandbox that works")
