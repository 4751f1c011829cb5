"""Connections out of a sandbox to its user's machine: -R, and the agent by -A."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest

from tests.conftest import MakeGateway
from tests.rig import library
from tests.rig.forwarding import ECHO, connected, local_port, master, python, session
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

# Talks to what listens in its sandbox: sends its input, half-closes, shows the answer.
TALK = """python3 -c '
import socket, sys
host, port = sys.argv[1:]
family = socket.AF_UNIX if not port else socket.AF_INET6 if ":" in host else socket.AF_INET
s = socket.socket(family)
s.connect((host, int(port)) if port else host)
s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR)
while d := s.recv(65536): sys.stdout.buffer.write(d)
' """


@contextmanager
def served_here(family: socket.AddressFamily, address: object) -> Iterator[socket.socket]:
    """A server on this machine that answers with what it was sent, in capitals, once that has ended."""
    with socket.socket(family) as server:
        server.bind(address)  # type: ignore[arg-type]
        server.listen(200)

        def serve(connection: socket.socket) -> None:
            with connection:
                output = b""
                while chunk := connection.recv(65536):
                    output += chunk
                connection.sendall(output.upper())

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def here() -> Iterator[int]:
    """The port of such a server."""
    with served_here(socket.AF_INET, ("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def user(make_gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    profiles = {
        "default": {},
        "shared": {"extends": "default", "scope": "connection"},
        "agent": {"extends": "shared", "forward": {"agent": True}},
    }
    return user_at(make_gateway(provider, profiles=profiles))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_remote_forward_listens_in_the_sandbox_of_its_session(user: Ssh, here: int, host: str) -> None:
    options = ("-o", "ExitOnForwardFailure=yes", "-R", f"7070:localhost:{here}")
    ended = user.run(f"{TALK} {host} 7070", options=options, stdin=b"from inside")
    assert (ended.status, ended.out) == (0, b"FROM INSIDE"), ended.both


def test_it_listens_on_loopback_whatever_is_asked(user: Ssh, here: int) -> None:
    ended = user.run("cat /proc/net/tcp", options=("-R", f"*:7071:localhost:{here}"))
    listening = re.findall(rf"([0-9A-F]{{8}}):{7071:04X} 00000000:0000 0A", ended.out.decode())
    assert listening == ["0100007F"]


def test_a_port_of_the_sandboxs_choice_is_reported_to_the_client(user: Ssh, here: int, tmp_path: Path) -> None:
    shared = user.as_user("dev+shared")
    with master(shared, tmp_path) as control:
        asked = subprocess.run(
            shared.argv(options=(*control, "-O", "forward", "-R", f"0:localhost:{here}")),
            capture_output=True, check=True, timeout=60, env=environment(),
        )  # fmt: skip
        port = asked.stdout.decode().strip()
        assert int(port) > 0
        assert shared.run(f"{TALK} 127.0.0.1 {port}", options=control, stdin=b"chosen").out == b"CHOSEN"
        subprocess.run(
            shared.argv(options=(*control, "-O", "cancel", "-R", f"0:localhost:{here}")),
            capture_output=True, check=True, timeout=60, env=environment(),
        )  # fmt: skip
        refused = until(lambda: shared.run(f"{TALK} 127.0.0.1 {port}", options=control), 20)
        assert b"ConnectionRefusedError" in refused.err


def test_a_port_that_is_taken_is_refused(user: Ssh, here: int, tmp_path: Path) -> None:
    shared = user.as_user("dev+shared")
    with master(shared, tmp_path) as control:
        words = ("-O", "forward", "-R", f"7072:localhost:{here}")
        first, second = (
            subprocess.run(shared.argv(options=(*control, *words)), capture_output=True, check=False, timeout=60)
            for words in (words, ("-O", "forward", "-R", f"127.0.0.1:7072:localhost:{here}"))
        )
        assert first.returncode == 0
        assert b"remote port forwarding failed" in second.stderr


def test_a_unix_socket_in_the_sandbox_leads_back(user: Ssh, tmp_path: Path) -> None:
    with served_here(socket.AF_UNIX, str(tmp_path / "s")):
        ended = user.run(f'{TALK} /tmp/back ""', options=("-R", f"/tmp/back:{tmp_path}/s"), stdin=b"by path")
    assert (ended.status, ended.out) == (0, b"BY PATH"), ended.both


def test_a_hundred_connections_at_once_lead_back(user: Ssh, here: int) -> None:
    program = (
        "python3 -c 'import socket\n"
        'cs = [socket.create_connection(("127.0.0.1", 7073)) for _ in range(100)]\n'
        'for n, c in enumerate(cs): c.sendall(b"x%d" % n); c.shutdown(socket.SHUT_WR)\n'
        'print(all(c.recv(10) == b"X%d" % n for n, c in enumerate(cs)))\''
    )
    ended = user.run(program, options=("-R", f"7073:localhost:{here}"))
    assert ended.out == b"True\n", ended.both


def test_listeners_whose_sandbox_has_gone_leave_room_for_others(
    make_gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh], here: int, tmp_path: Path
) -> None:
    fresh = {"default": {"scope": "channel"}}
    limited = user_at(make_gateway(provider, ssh={"forwards_per_connection": 1}, profiles=fresh))

    def forward(*control: str) -> bytes:
        words = (*control, "-O", "forward", "-R", f"{free_port()}:localhost:{here}")
        return subprocess.run(limited.argv(options=words), stderr=subprocess.PIPE, check=False, timeout=60).stderr

    with master(limited, tmp_path) as control:
        with session(limited, "echo up; cat", *control):
            assert forward(*control) == b""
            assert b"remote port forwarding failed" in forward(*control)
        with session(limited, "echo up; cat", *control):
            until(lambda: forward(*control) == b"", 20, "a listener in the sandbox of another session")


def test_open_connections_and_listeners_share_a_limit(
    make_gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh], here: int, tmp_path: Path
) -> None:
    limited = user_at(make_gateway(provider, ssh={"forwards_per_connection": 1}))
    port = local_port()
    with master(limited, tmp_path, "-L", f"{port}:localhost:34569") as control:
        listening = (*control, "-O", "forward", "-R", f"{free_port()}:localhost:{here}")
        with session(limited, python(ECHO, "34569"), *control), connected(port) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            ended = subprocess.run(limited.argv(options=listening), stderr=subprocess.PIPE, check=False, timeout=60)
            assert b"remote port forwarding failed" in ended.stderr


# --- the agent ---


@pytest.fixture(scope="module")
def agent(user: Ssh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of an agent that has the user's key."""
    path = str(tmp_path_factory.mktemp("agent") / "socket")
    running = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        until(lambda: Path(path).exists(), 10, "the agent")
        subprocess.run(["ssh-add", "-q", user.key], check=True, env=environment(SSH_AUTH_SOCK=path))
        yield path
    finally:
        running.terminate()
        running.wait(10)


def test_the_agent_is_not_there_unless_the_profile_allows_it(user: Ssh, agent: str) -> None:
    ended = user.run('echo "[$SSH_AUTH_SOCK]"', options=("-A",), environ={"SSH_AUTH_SOCK": agent})
    assert (ended.status, ended.out) == (0, b"[]\n")


def test_programs_sign_with_the_clients_agent_where_the_profile_allows_it(user: Ssh, agent: str) -> None:
    options = ("-A", "-o", f"IdentityAgent={agent}")
    command = 'ssh-add -l; stat -c %a "$(dirname "$SSH_AUTH_SOCK")"; id -u >/tmp/x; ls -d /tmp/sshgate-agent-*'
    ended = user.as_user("dev+agent").run(command, options=options, environ={"SSH_AUTH_SOCK": agent})
    assert b"ED25519" in ended.out, ended.both
    assert b"\n700\n" in ended.out


def test_the_agent_comes_back_after_the_relay_was_killed(user: Ssh, agent: str, tmp_path: Path) -> None:
    there = user.as_user("dev+agent=killed")
    options = ("-A", "-o", f"IdentityAgent={agent}")
    environ = {"SSH_AUTH_SOCK": agent}
    with master(there, tmp_path, *options) as control:
        assert b"ED25519" in there.run("ssh-add -l", options=(*control, *options), environ=environ).out
        assert there.run("pkill python3", options=control).status == 0
        again = (*control, *options)
        until(lambda: b"ED25519" in there.run("ssh-add -l", options=again, environ=environ).out, 20, "the agent again")
        assert there.run("end", options=("-s",)).status == 0


def test_sessions_that_did_not_offer_it_have_no_agent(user: Ssh, agent: str, tmp_path: Path) -> None:
    with master(user.as_user("dev+agent"), tmp_path) as control:
        quiet = user.as_user("dev+agent")
        assert quiet.run('echo "[$SSH_AUTH_SOCK]"', options=control).out == b"[]\n"


def test_a_key_can_forbid_the_agent(
    user: Ssh, user_at: Callable[[Gateway], Ssh], make_gateway: MakeGateway, provider: str, agent: str
) -> None:
    door = make_gateway(provider, profiles={"default": {"forward": {"agent": True}}})
    limited = user_at(door)
    (door.users / "dev").write_text(f"no-agent-forwarding {(door.users / 'dev').read_text()}")
    options = ("-A", "-o", f"IdentityAgent={agent}")

    def output() -> bytes:
        subprocess.run(["ssh-add", "-q", limited.key], check=True, env=environment(SSH_AUTH_SOCK=agent))
        return limited.run('echo "[$SSH_AUTH_SOCK]"', options=options, environ={"SSH_AUTH_SOCK": agent}).out

    # The file of keys is read again when it changes, but not in the same instant.
    until(lambda: output() == b"[]\n", 20, "a session without the agent")


def test_x11_is_refused_and_the_session_goes_on(user: Ssh) -> None:
    ended = user.run('echo "[$DISPLAY]"; exit 3', options=("-X",), environ={"DISPLAY": ":9"})
    assert (ended.status, ended.out) == (3, b"[]\n")


def test_sessions_leave_no_listener_behind(user: Ssh, here: int) -> None:
    with session(user, "echo up; exec sleep 60", "-R", f"7074:localhost:{here}"):
        pass
    ended = user.run("cat /proc/net/tcp | wc -l", options=())
    assert ended.out.strip() == b"1"


@pytest.mark.parametrize(("packet", "output"), [(32768, "SAID"), (255, "")])
@pytest.mark.asyncio
async def test_a_client_that_takes_only_some_bytes_at_once_is_not_connected_to(
    user: Ssh, packet: int, output: str
) -> None:
    async def answer(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        writer.write((await reader.read()).upper())
        writer.write_eof()

    async with library.connection(user, user.user + "+shared") as made:
        listener = await made.start_server(lambda host, port: answer, "localhost", 0, encoding=None, max_pktsize=packet)
        async with asyncio.timeout(60):
            talked = await made.run(f"{TALK} 127.0.0.1 {listener.get_port()}", input="said")
        assert talked.stdout == output, talked.stderr
