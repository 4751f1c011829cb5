"""Connections into a sandbox, as OpenSSH's client makes them: -L, -W, -D, -J, unix sockets."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.rig.deployed import node_address
from tests.rig.forwarding import ECHO, connected, exchanged, local_port, master, python, session
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

PORT = "34567"
# What users have by default: it tells why a connection could not be opened.
ALOUD = ("-o", "LogLevel=INFO")
HTTP = "cd /tmp && echo it is me >hello && exec python3 -u -m http.server -b 127.0.0.1 8080 2>&1"


@pytest.fixture(scope="module")
def door(make_gateway: MakeGateway, provider: str) -> Gateway:
    profiles = {
        "default": {},
        "shared": {"extends": "default", "scope": "connection"},
        "closed": {"extends": "shared", "forward": {"loopback": False, "remote": False}},
        "wide": {"extends": "shared", "forward": {"elsewhere": True}},
    }
    return make_gateway(provider, profiles=profiles)


@pytest.fixture(scope="module")
def user(door: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(door)


def test_a_local_forward_reaches_the_sandbox_of_its_session(user: Ssh, door: Gateway) -> None:
    port = local_port()
    with session(user, python(ECHO, PORT), "-L", f"{port}:localhost:{PORT}") as (_, line):
        assert line == PORT
        assert exchanged(connected(port), b"over there") == b"over there[end]"
        assert exchanged(connected(port), b"x" * 1_000_000) == b"x" * 1_000_000 + b"[end]"
    until(lambda: '"bytes_in": 1000000, "bytes_out": 1000005' in door.log(), 10, "the event of the forward")


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "own"])
def test_the_address_that_a_server_prints_leads_to_it(user: Ssh, bound: str) -> None:
    """People copy it: every address, the machine's name, its own address (locally that is loopback)."""
    program = (
        "import socket, sys; n = socket.gethostname(); own = socket.gethostbyname(n); b = sys.argv[1]\n"
        "b = own if b == 'own' else b\n"
        "s = socket.create_server((b, 34568), family=socket.AF_INET6 if ':' in b else socket.AF_INET)\n"
        "print(n, own, flush=True)\n"
        "while True:\n c, _ = s.accept(); c.sendall(b'found'); c.close()"
    )
    there = user.as_user("dev=printed")
    with session(there, f"exec python3 -c {shlex.quote(program)} {bound}") as (_, line):
        name, own = line.split()
        hosts = {"0.0.0.0": ["0.0.0.0", name, own], "::": ["[::]", name], "own": [name, own]}[bound]
        for host in hosts:
            ended = there.run(options=(*ALOUD, "-W", f"{host}:34568"))
            assert ended.out == b"found", (host, ended)
    assert there.run("end", options=("-s",)).status == 0


def test_a_client_without_a_session_gets_a_sandbox_for_its_forwards(user: Ssh) -> None:
    # Nothing listens there, and that is what the sandbox says: the gateway's own machine is not asked.
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = user.run(options=(*ALOUD, "-W", f"127.0.0.1:{server.getsockname()[1]}"))
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert ended.status == 255
    assert "connect failed: Connection refused" in ended.both


def test_a_proxy_of_names_and_numbers_leads_into_the_sandbox(user: Ssh, tmp_path: Path) -> None:
    port = local_port()
    with session(user, HTTP, "-D", str(port)):
        for host in ("localhost", "127.0.0.1"):
            got = subprocess.run(
                ["curl", "-sS", "--proxy", f"socks5h://127.0.0.1:{port}", f"http://{host}:8080/hello"],
                capture_output=True, check=True, timeout=30, env=environment(),
            )  # fmt: skip
            assert got.stdout == b"it is me\n"


def test_a_host_behind_the_sandbox_is_reached_by_a_jump(user: Ssh, tmp_path: Path) -> None:
    # -J is -W to where the next ssh talks to; a greeting is enough to see that it is somebody inside.
    greet = (
        "import socket;s=socket.create_server(('127.0.0.1',2200));print('up',flush=True)\n"
        "while True:\n c,_=s.accept();c.sendall(b'SSH-2.0-inside\\r\\n');c.close()"
    )
    shared = user.as_user("dev+shared")
    with master(shared, tmp_path) as control, session(shared, python(greet), *control):
        proxy = " ".join(map(str, shared.argv(options=(*control, "-W", "[127.0.0.1]:2200"))))
        jumped = subprocess.run(
            ["ssh", "-F", "none", "-v", "-o", f"ProxyCommand={proxy.removesuffix(' --')}", "inside", "true"],
            capture_output=True, check=False, timeout=40, env=environment(),
        )  # fmt: skip
        assert b"remote software version inside" in jumped.stderr


@pytest.mark.parametrize("path", [b"/tmp/s", b"/tmp/caf\xe9"])
def test_a_unix_socket_in_the_sandbox_is_reached_by_its_path(user: Ssh, tmp_path: Path, path: bytes) -> None:
    listening = f"s = socket.socket(socket.AF_UNIX); s.bind({path!r}); s.listen()"
    program = re.sub("^s = .*", lambda _: listening, ECHO, flags=re.M)
    here = tmp_path / "s"
    with session(user, python(program), "-L", f"{here}:{os.fsdecode(path)}"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(here))
        assert exchanged(connection, b"by path") == b"by path[end]"


def test_sessions_and_forwards_of_a_shared_sandbox_meet(user: Ssh, tmp_path: Path) -> None:
    shared = user.as_user("dev+shared")
    with master(shared, tmp_path) as control:
        assert shared.run(f"setsid {python(ECHO, PORT).removeprefix('exec ')} >/dev/null 2>&1 & echo", options=control)
        output = until(lambda: shared.run(options=(*control, "-W", f"localhost:{PORT}"), stdin=b"x").out, 20)
        assert output == b"x[end]"


REFUSED = [
    "169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80", "10.96.0.1:443", "kubernetes.default:443",
    "192.168.1.1:22", "[::ffff:10.0.0.1]:22", "example.org:80", "127.1:22", "2130706433:22", "0x7f000001:22",
    "metadata.google.internal:80", "localhost.example.org:80",
]  # fmt: skip


@pytest.mark.parametrize("destination", REFUSED)
def test_nothing_but_the_sandboxs_own_localhost_is_reached(user: Ssh, tmp_path: Path, destination: str) -> None:
    ended = user.as_user("dev+shared").run(options=(*ALOUD, "-W", destination))
    assert ended.status == 255
    assert "administratively prohibited: only the sandbox's own localhost can be reached here" in ended.both


def test_where_the_profile_allows_it_other_hosts_are_asked_from_the_sandbox(user: Ssh, provider: str) -> None:
    wide = user.as_user("dev+wide")
    ended = wide.run(options=(*ALOUD, "-W", "nobody.invalid:80"))
    assert "connect failed: the sandbox does not know this name" in ended.both
    if provider == "local":
        # Its network is its own: not even the gateway's machine is there.
        assert "connect failed: Network is unreachable" in wide.run(options=(*ALOUD, "-W", "192.0.2.1:80")).both


def test_the_nodes_own_address_is_reached_from_the_sandbox_where_the_profile_allows_it(
    user: Ssh, provider: str
) -> None:
    with socket.create_server((node_address(), 0)) as server:
        host, port = server.getsockname()
        node = f"{host}:{port}"
        refused = user.as_user("dev+shared").run(options=(*ALOUD, "-W", node))
        assert "administratively prohibited: only the sandbox's own localhost can be reached here" in refused.both
        client = user.as_user("dev+wide").start(options=(*ALOUD, "-W", node))
        if provider == "kubernetes":
            server.settimeout(30)
            connection, (source, _) = server.accept()
            with connection:
                connection.sendall(b"here is the node")
            # By the pod's network, not by the gateway's, which runs on this machine.
            assert source != host
        out, err = client.communicate(timeout=30)
        if provider == "kubernetes":
            assert (client.returncode, out) == (0, b"here is the node"), err
        else:
            # Its network is its own, with nobody else in it.
            assert (client.returncode, out) == (255, b"")
            assert b"connect failed: Network is unreachable" in err
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.cluster
def test_where_the_profile_allows_it_another_pod_answers(
    make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], cluster: object, tmp_path: Path
) -> None:
    profiles = {"default": {}, "wide": {"extends": "default", "scope": "connection", "forward": {"elsewhere": True}}}
    user = user_at(make_gateway("kubernetes", profiles=profiles))
    everywhere = ECHO.replace('"127.0.0.1"', '""').replace(
        "print(", "print(socket.gethostbyname(socket.gethostname()), socket.gethostname(), "
    )
    wide = user.as_user("dev+wide")
    with session(user, python(everywhere, PORT)) as (_, line):
        address = line.split()[0]
        assert wide.run(options=("-W", f"{address}:{PORT}"), stdin=b"from pod to pod").out == b"from pod to pod[end]"
    with master(wide, tmp_path) as control, session(wide, python(everywhere, PORT), *control) as (_, line):
        own = line.split()[1]
        assert wide.run(options=(*control, "-W", f"{own}:{PORT}"), stdin=b"by name").out == b"by name[end]"


def test_a_profile_can_forbid_it(user: Ssh) -> None:
    closed = user.as_user("dev+closed")
    assert "does not allow forwarding into the sandbox" in closed.run(options=(*ALOUD, "-W", "localhost:80")).both
    remote = closed.run("echo on", options=("-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"))
    assert (remote.status, remote.out) == (255, b"")


@pytest.mark.parametrize(
    ("options", "destination", "allowed"),
    [
        ("no-port-forwarding", "localhost:80", False),
        ("restrict", "localhost:80", False),
        ("restrict,port-forwarding", "localhost:80", True),
        ('permitopen="localhost:80"', "localhost:80", True),
        ('permitopen="localhost:80"', "localhost:81", False),
        ('permitopen="localhost:80"', "127.0.0.1:80", False),
        ('permitopen="*:80"', "127.0.0.1:80", True),
    ],
)
def test_the_options_of_a_key_are_kept(
    door: Gateway, user_at: Callable[[Gateway], Ssh], options: str, destination: str, allowed: bool
) -> None:
    limited = user_at(door)
    file = door.users / "dev"
    file.write_text(f"{options} {file.read_text()}")
    ended = until(lambda: _answer(limited.run(options=(*ALOUD, "-W", destination)).both), 20, "an answer")
    assert ("Connection refused" in ended) == allowed
    assert ("administratively prohibited: this key does not allow forwarding" in ended) != allowed


def _answer(output: str) -> str:
    # The file of keys is read again when it changes, but not in the same instant.
    return "" if "Permission denied" in output else output
