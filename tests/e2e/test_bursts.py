"""An agent that starts many `ssh` at once gets all of them in with the defaults; what is refused names its setting."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshgate.config.model import Limits
from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

DEFAULT = Limits()
NAMES = (
    "sandboxes_per_user", "sandboxes", "starts_per_minute", "connections_per_source", "unauthenticated",
    "unauthenticated_per_source",
)  # fmt: skip
# As for everybody else: the tests' own limits are larger, and this machine pays no penalties.
LIMITS = {**{name: getattr(DEFAULT, name) for name in NAMES}, "penalty_exempt": []}
AT_ONCE = 30
SESSIONS = 100


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Of a master; a socket's path has little room."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        yield Path(place) / "master"


def statuses(clients: list[subprocess.Popen[bytes]]) -> list[tuple[int, bytes]]:
    """How they end when their input does."""
    ended = [client.communicate(timeout=120) for client in clients]
    return [(client.returncode, out) for client, (out, _) in zip(clients, ended, strict=True)]


def test_thirty_ssh_at_once_from_one_address_all_get_in(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    ssh = user_at(gateway("local", limits=LIMITS))
    ssh.run("true")
    clients = [ssh.start("echo in; read -r line; exit 7") for _ in range(AT_ONCE)]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == b"in\n"
    assert statuses(clients) == [(7, b"")] * AT_ONCE


def test_a_hundred_sessions_over_one_connection_all_get_in(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], socket_path: Path
) -> None:
    gate = gateway("local", limits=LIMITS, profiles={"default": {"scope": "connection"}})
    ssh = user_at(gate)
    shared = ("-o", f"ControlPath={socket_path}", "-o", "ControlMaster=no")
    master = ssh.start(options=("-N", "-o", f"ControlPath={socket_path}", "-o", "ControlMaster=yes"))
    try:
        until(socket_path.exists, 20, "the master")
        clients = [ssh.start("echo in; read -r line; exit 7", options=shared) for _ in range(SESSIONS)]
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == b"in\n"
        assert gate.log().count('"connection.login"') == 1
        assert statuses(clients) == [(7, b"")] * SESSIONS
    finally:
        master.kill()
        master.communicate()


def test_what_is_refused_names_its_setting(gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]) -> None:
    gate = gateway("local", limits={"sandboxes_per_user": 1, "connections_per_source": 2})
    ssh = user_at(gate)
    with ssh.running():
        assert "limits.sandboxes_per_user" in ssh.run("true").both
        idle = ssh.start(options=("-N",))
        try:
            until(lambda: gate.log().count('"connection.login"') == 3, 20, "its login")
            assert "limits.connections_per_source" in ssh.run("true").both
        finally:
            idle.kill()
            idle.communicate()
