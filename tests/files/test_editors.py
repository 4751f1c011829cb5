"""How editors work on another machine: a script on stdin, a server that outlives it, ports and sockets to it, files.

SSHGATE_EDITOR_SECONDS makes the mixed session longer.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.rig.forwarding import connected, exchanged, local_port, master, session
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

SECONDS = float(os.environ.get("SSHGATE_EDITOR_SECONDS", "8"))

# What is sent on stdin: installs a server, starts it unless it runs, tells where it listens, and stays.
SCRIPT = """
mkdir -p ~/.editor && cat >~/.editor/server.py <<'END'
import socket, threading
def serve(c):
    with c:
        while (d := c.recv(65536)):
            c.sendall(d)
        c.sendall(b"[end]")
def listen(s):
    while True:
        threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
u = socket.socket(socket.AF_UNIX); u.bind("/tmp/editor.sock"); u.listen(100)
threading.Thread(target=listen, args=(u,), daemon=True).start()
s = socket.create_server(("127.0.0.1", 0), backlog=100)
open("/tmp/editor.port", "w").write(str(s.getsockname()[1]) + chr(10))
listen(s)
END
running=no; [ -s /tmp/editor.port ] && running=yes
if [ $running = no ]; then START python3 ~/.editor/server.py >/tmp/editor.log 2>&1 </dev/null & fi
until [ -s /tmp/editor.port ]; do sleep 0.05; done
echo "running=$running listening=$(cat /tmp/editor.port)"
cat
"""


@pytest.fixture(scope="module")
def door(make_gateway: MakeGateway, provider: str) -> Gateway:
    return make_gateway(provider, profiles={"default": {}, "shared": {"extends": "default", "scope": "connection"}})


@pytest.fixture(scope="module")
def user(door: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(door)


class Editor:
    """An editor's connection: `ssh -T -D PORT HOST bash` with its script on stdin."""

    def __init__(self, ssh: Ssh, start: str = "") -> None:
        self.proxy = local_port()
        self.client = ssh.start("bash", options=("-T", "-D", str(self.proxy)))
        assert self.client.stdin is not None
        assert self.client.stdout is not None
        self.client.stdin.write(SCRIPT.replace("START ", start + " ").encode())
        self.client.stdin.flush()
        output = self.client.stdout.readline().decode()
        assert "listening=" in output, (output, self.client.communicate(timeout=10))
        self.was_running = "running=yes" in output
        self.port = int(output.split("listening=")[1])

    def talk(self, data: bytes) -> bytes:
        """One connection to the server inside, by the proxy (SOCKS5, RFC 1928)."""
        connection = connected(self.proxy)
        connection.sendall(b"\5\1\0")
        assert connection.recv(2) == b"\5\0"
        connection.sendall(b"\5\1\0\1" + socket.inet_aton("127.0.0.1") + self.port.to_bytes(2, "big"))
        assert connection.recv(10)[1] == 0
        return exchanged(connection, data)

    def vanish(self) -> None:
        """As when the laptop is closed."""
        self.client.kill()
        with self.client:
            pass


@pytest.mark.parametrize("start", ["", "nohup", "setsid"])
def test_a_server_outlives_the_editor_that_started_it(user: Ssh, start: str) -> None:
    ssh = user.as_user(f"dev={start or 'plain'}")
    first = Editor(ssh, start)
    assert not first.was_running
    assert first.talk(b"hello") == b"hello[end]"
    if start:
        first.vanish()
    else:
        # Its script ends, with that its channel; who was put into the background goes on.
        assert first.client.stdin is not None
        first.client.stdin.close()
        assert first.client.wait(30) == 0
        first.vanish()
    until(lambda: ssh.run("pgrep -f 'closefd=Fals[e]'").status == 1, 20, "the end of its relay")
    second = Editor(ssh, start)
    assert second.was_running
    assert second.port == first.port
    assert second.talk(b"again") == b"again[end]"
    second.vanish()
    ended = subprocess.run(ssh.argv("end", options=("-s",)), capture_output=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("options", [(), ("-tt",)])
def test_what_did_not_ask_to_stay_ends_with_its_client(user: Ssh, tmp_path: Path, options: tuple[str, ...]) -> None:
    ssh = user.as_user("dev+shared")
    program = (
        "set -m; sleep 4711 & (trap : HUP; while :; do sleep 4712; done) & nohup sleep 4713 >/dev/null 2>&1 & "
        "until pgrep -fx 'sleep 4713' >/dev/null; do sleep 0.1; done; echo up; wait"
    )
    with master(ssh, tmp_path) as control:
        with session(ssh, program, *options, *control) as (_, line):
            assert line == "up"
        until(lambda: ssh.run("pgrep -fx 'sleep 471[12]'", options=control).status == 1, 30, "the end of what it ran")
        assert ssh.run("pgrep -fx 'sleep 4713'", options=control).status == 0


def test_the_printed_configuration_finds_the_same_sandbox_each_time(user: Ssh, tmp_path: Path) -> None:
    output = user.run("config", options=("-s",)).out.decode()
    (tmp_path / "config").write_text(output)
    options = [word for word in user.options() if word not in ("-F", "none")]

    def ssh(*words: str) -> subprocess.CompletedProcess[bytes]:
        argv = ["ssh", "-F", str(tmp_path / "config"), *options, *words]
        return subprocess.run(argv, capture_output=True, check=False, timeout=60, env=environment())

    assert ssh("sandbox", "echo kept >/tmp/mark; exit 7").returncode == 7
    assert ssh("sandbox", "cat /tmp/mark").stdout == b"kept\n"
    assert ssh("-s", "sandbox", "end").returncode == 0


def test_fifty_channels_of_one_connection_work_at_once(user: Ssh, tmp_path: Path) -> None:
    shared = user.as_user("dev+shared")
    with master(shared, tmp_path) as control:
        clients = [shared.start(f"read line; echo $line {n}; exit {n}", options=control) for n in range(50)]
        for number, client in enumerate(clients):
            out, _ = client.communicate(b"it\n", timeout=60)
            assert (client.returncode, out) == (number, b"it %d\n" % number)


@pytest.mark.timeout(SECONDS + 120)
def test_an_editors_day_of_mixed_traffic(user: Ssh, door: Gateway, tmp_path: Path) -> None:
    """Streams by the proxy, large files, commands and reconnects side by side; nothing is lost and nothing grows."""
    ssh = user.as_user("dev=day")
    editor = Editor(ssh, "setsid")
    file = tmp_path / "large"
    file.write_bytes(random.Random(7).randbytes(8 << 20))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    deadline = time.monotonic() + SECONDS
    failures: list[BaseException] = []

    def repeatedly(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                while time.monotonic() < deadline:
                    work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def talk() -> None:
        data = os.urandom(random.randrange(1, 200_000))
        assert editor.talk(data) == data + b"[end]"

    def copy() -> None:
        batch = f"put {file} up\nget up {tmp_path}/down\n".encode()
        argv = ["sftp", "-b", "-", *ssh.options(), "-P", str(ssh.port), f"{ssh.user}@127.0.0.1"]
        subprocess.run(argv, input=batch, capture_output=True, check=True, timeout=120, env=environment())
        assert hashlib.sha256((tmp_path / "down").read_bytes()).hexdigest() == digest

    def look() -> None:
        assert ssh.run("sha256sum up 2>/dev/null; ls -la ~ >/dev/null; exit 3").status == 3

    for work in (talk, copy, look):
        work()
    before = door.memory
    for thread in [repeatedly(talk), repeatedly(talk), repeatedly(copy), repeatedly(look)]:
        thread.join()
    assert not failures, failures
    assert door.memory - before < 48 << 20
    editor.vanish()
    subprocess.run(ssh.argv("end", options=("-s",)), capture_output=True, check=True, timeout=60)
