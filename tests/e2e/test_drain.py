"""What people and probes see of a gateway that was told to end."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import asyncssh
import pytest

from tests.conftest import MakeGateway
from tests.rig.forwarding import ECHO, connected, exchanged, python
from tests.rig.gateway import Gateway, free_port
from tests.rig.scrape import Scraped, events, get
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = pytest.mark.local

DRAIN = 30


class Draining:
    """A gateway that serves until ``term``."""

    def __init__(self, gateway: Gateway, health: int, ssh: Ssh) -> None:
        self.gateway = gateway
        self.health = health
        self.ssh = ssh

    def term(self) -> None:
        """Returns when it has begun to drain."""
        assert self.gateway.process
        assert get(self.health, "/readyz") == (200, "ok\n")
        self.gateway.process.send_signal(signal.SIGTERM)
        until(self._drains, 10, "the drain")

    def _drains(self) -> bool:
        try:
            return get(self.health, "/readyz")[0] == 503
        except URLError:  # ended already: there was nothing to wait for
            return True

    def ended(self) -> int:
        """Its exit status, when it has ended by itself."""
        assert self.gateway.process
        return self.gateway.process.wait(DRAIN / 2)


MakeDraining = Callable[[float], Draining]


@pytest.fixture
def draining_for(local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]) -> MakeDraining:
    """Starts a gateway that lets what runs go on for so many seconds."""

    def make(seconds: float) -> Draining:
        port = free_port()
        sections: dict[str, Any] = {
            "telemetry": {"listen": f"127.0.0.1:{port}", "audit": "audit.jsonl"},
            "ssh": {"drain": f"{seconds:g}s"},
        }
        made = gateway("local", **sections)
        return Draining(made, port, user_at(made))

    return make


@pytest.fixture
def draining(draining_for: MakeDraining) -> Draining:
    return draining_for(DRAIN)


def test_terminals_are_warned_and_may_finish_their_work(draining: Draining) -> None:
    with OnTerminal(draining.ssh.argv(options=("-tt",))) as terminal:
        terminal.enter("echo rea''dy")
        terminal.expect(rb"ready\r\n")
        draining.term()
        terminal.expect(rb"sshgate: this gateway is shutting down: your session may go on for up to 30 s; [^\r]*\r\n")
        terminal.enter("echo still he''re; exit 6")
        terminal.expect(rb"still here")
        assert terminal.until_end() == 6
    assert draining.ended() == 0


def test_a_program_on_pipes_is_not_disturbed(draining: Draining) -> None:
    client = draining.ssh.start("cat; echo done")
    try:
        assert client.stdin
        assert client.stdout
        client.stdin.write(b"one\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"one\n"
        draining.term()
        out, err = client.communicate(b"two\n", 20)
    finally:
        client.kill()
        client.wait()
    assert (client.returncode, out, err) == (0, b"two\ndone\n", b"")
    assert draining.ended() == 0


@contextmanager
def tunnel(draining: Draining) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A client that only forwards, and its port here, which leads to an echo in a named sandbox."""
    work = draining.ssh.as_user("dev=work")
    served, port = "34567", free_port()
    echo = python(ECHO, served).removeprefix("exec ")
    assert work.run(f"setsid {echo} >/tmp/said 2>&1 & until [ -s /tmp/said ]; do sleep 0.1; done").status == 0
    client = work.start(options=("-N", "-L", f"{port}:127.0.0.1:{served}"))
    try:
        yield client, port
    finally:
        client.kill()
        client.communicate()


def test_a_connection_that_only_forwards_goes_on(draining: Draining) -> None:
    with tunnel(draining) as (client, port):
        with connected(port) as connection:
            assert echoed(connection, b"before") == b"before"
            draining.term()
            assert echoed(connection, b"meanwhile") == b"meanwhile"
        # Its sandbox is there as long as the client is.
        assert exchanged(connected(port), b"another") == b"another[end]"
        client.terminate()
        assert draining.ended() == 0
    report = [event for event in events(draining.gateway.place / "audit.jsonl") if event["event"] == "draining"]
    assert [(event["sessions"], event["forwards"]) for event in report] == [(0, 1)]


def test_a_connection_that_only_forwards_is_ended_at_the_limit(draining_for: MakeDraining) -> None:
    draining = draining_for(2)
    with tunnel(draining) as (client, port), connected(port) as connection:
        assert echoed(connection, b"before") == b"before"
        draining.term()
        assert draining.ended() == 0
        assert connection.recv(64) == b""
        assert b"The gateway is shutting down." in client.communicate(timeout=20)[1]
        assert client.returncode == 255


def test_a_tunnel_through_which_nothing_went_is_not_waited_for(draining: Draining) -> None:
    with tunnel(draining) as (client, _):
        audit = draining.gateway.place / "audit.jsonl"
        until(lambda: [event["event"] for event in events(audit)].count("connection.login") == 2, 20, "its login")
        draining.term()
        assert draining.ended() == 0
        assert b"The gateway is shutting down." in client.communicate(timeout=20)[1]


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """What comes back first."""
    connection.sendall(data)
    return connection.recv(64)


def test_probes_and_strangers_see_it_at_once(draining: Draining) -> None:
    running = draining.ssh.start("cat")
    try:
        until(lambda: "sandbox.claim" in draining.gateway.log(), 20, "the session")
        draining.term()
        status, reason = get(draining.health, "/readyz")
        assert (status, reason) == (503, "draining: this gateway is shutting down and takes no new logins.\n")
        assert get(draining.health, "/healthz") == (200, "ok\n")
        assert Scraped(draining.health).total("sshgate_draining") == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", draining.gateway.port), 5)
    finally:
        running.communicate()
    assert running.returncode == 0
    assert draining.ended() == 0


async def test_a_login_under_way_gets_its_session_and_no_second_one(draining: Draining) -> None:
    """As a rolling update meets it: the connection was accepted before TERM, its session is asked for after."""
    async with asyncssh.connect(
        "127.0.0.1", draining.gateway.port, username="dev", client_keys=[str(draining.ssh.key)], known_hosts=None,
        config=None, agent_path=None,
    ) as connection:  # fmt: skip
        draining.term()
        running = await connection.create_process("cat")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process("true")
        running.stdin.write("served")
        running.stdin.write_eof()
        assert (await running.wait()).stdout == "served"
    assert draining.ended() == 0


def test_the_last_events_reach_the_audit_file(draining: Draining, tmp_path: Path) -> None:
    assert draining.ssh.run("true").status == 0
    audit = draining.gateway.place / "audit.jsonl"
    over = {"connection.end", "sandbox.end"}
    until(lambda: over <= {event["event"] for event in events(audit)}, 20, "the end of the login")
    audit.rename(tmp_path / "rotated")  # as logrotate does, without a signal
    draining.term()
    assert draining.ended() == 0
    assert [event["event"] for event in events(audit)] == ["draining", "stopped"]
    assert [event["event"] for event in events(tmp_path / "rotated")][0] == "serving"  # noqa: RUF015
