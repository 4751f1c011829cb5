"""Servers in a sandbox, and ways to them, for tests of forwards."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig.gateway import free_port
from tests.rig.ssh import Ssh, end
from tests.rig.waiting import until

# Runs in the sandbox: an echo server for each connection, with half-close; says its port.
ECHO = """
import socket, sys, threading
def serve(c):
    with c:
        while (d := c.recv(65536)):
            c.sendall(d)
        c.sendall(b"[end]")
s = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), backlog=200)
print(s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"""


def python(program: str, *words: str) -> str:
    """The command that runs a program in the sandbox."""
    quoted = program.replace("'", "'\\''")
    return f"exec python3 -c '{quoted}' {' '.join(words)}"


@contextmanager
def master(ssh: Ssh, place: Path, *options: str) -> Iterator[tuple[str, ...]]:
    """A connection in the background; the options by which other clients use it."""
    control = ("-o", f"ControlPath={place}/control")
    client = subprocess.Popen(ssh.argv(options=("-M", "-N", *control, *options)), stdin=subprocess.DEVNULL)
    try:
        until(lambda: (place / "control").exists() or client.poll() is not None, 20, "the control socket")
        yield control
    finally:
        end(client)


@contextmanager
def session(ssh: Ssh, command: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A client whose program has printed its first line, and that line. It is ended with the block."""
    client = ssh.start(command, options=options)
    try:
        assert client.stdout is not None
        line = client.stdout.readline().decode().strip()
        assert line, (client.communicate(timeout=10), client.returncode)
        yield client, line
    finally:
        client.kill()
        client.communicate()


def connected(port: int, limit: float = 20.0) -> socket.socket:
    """A connection to a port of this machine, as soon as there is one."""

    def attempt() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), limit)
        except ConnectionRefusedError:
            return None

    found = until(attempt, limit, f"port {port}")
    assert found is not None
    return found


def exchanged(connection: socket.socket, data: bytes) -> bytes:
    """Send, half-close, and read to the end."""
    with connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        output = b""
        while chunk := connection.recv(65536):
            output += chunk
        return output


def local_port() -> int:
    """A port of this machine for a client to listen on."""
    return free_port()
