"""What a user's programs send through the cluster as fast as they can: nobody else's packets wait for it.

A key's echo would have to come through the cluster, which the flood keeps busy. So somebody else sends pings of SSH,
which the gateway answers by itself, in the same event loop and within the same budgets.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sshgate.forwarding import inside
from sshgate.forwarding.relay import frame
from tests.conftest import MakeGateway
from tests.fairness.attack import Most, Seen, check
from tests.fairness.typist import Pinger, processor_seconds
from tests.rig.forwarding import ECHO, master, python, session
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.timeout(180)]

CHANNELS = 20

# Two outputs that take turns, a byte at a time.
TINY_WRITES = """
import os, time
end = time.monotonic() + 5
while time.monotonic() < end:
    for _ in range(100):
        os.write(1, b"x"); os.write(2, b"y")
"""

# Stops a program of the same user, found by how its command line begins, and writes what stdin has to its stdout.
INSTEAD = """
import os, signal, sys, time
begin, blob = sys.argv[1].replace(",", chr(0)).encode(), sys.stdin.buffer.read()
def found():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if open(f"/proc/{pid}/cmdline", "rb").read().startswith(begin):
                return int(pid)
        except OSError:
            pass
while not (pid := found()):
    time.sleep(0.1)
os.kill(pid, signal.SIGSTOP)
out, end = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY), time.monotonic() + 5
while time.monotonic() < end:
    os.write(out, blob)
"""


@pytest.fixture(scope="module")
def gateway(make_gateway: MakeGateway, cluster: Path) -> Gateway:
    return make_gateway("kubernetes")


@pytest.fixture(scope="module")
def dev(user_at: Callable[[Gateway], Ssh], gateway: Gateway) -> Ssh:
    """The user whose programs flood."""
    return user_at(gateway)


@pytest.fixture
def pinger(gateway: Gateway, dev: Ssh) -> Pinger:
    return Pinger(gateway, dev)


@contextmanager
def started(ssh: Ssh, command: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client whose output nobody looks at."""
    argv = ssh.argv(command, options=options)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as client:
        yield client
        client.kill()


def flooded(pinger: Pinger, *floods: subprocess.Popen[bytes]) -> Seen:
    """Ping until the floods have ended."""
    gateway = pinger.gateway
    before, used, most = gateway.memory, processor_seconds(gateway.pid), Most(gateway.pid)
    try:
        answers = pinger.type_while(lambda: any(one.poll() is None for one in floods))
    finally:
        grown = most.end() - before
    assert [one.returncode for one in floods] == [0] * len(floods)
    return Seen(max(answers), grown, processor_seconds(gateway.pid) - used, {"answers": len(answers)})


def test_twenty_programs_that_write_byte_by_byte(dev: Ssh, pinger: Pinger) -> None:
    with ExitStack() as stack:
        control = stack.enter_context(master(dev, dev.place))
        command = python(TINY_WRITES)
        check(flooded(pinger, *(stack.enter_context(started(dev, command, *control)) for _ in range(CHANNELS))))


def instead(ssh: Ssh, pinger: Pinger, control: tuple[str, ...], program: str, blob: bytes) -> Seen:
    """Let the sandbox send ``blob`` again and again as if it were the output of ``program``."""
    with started(ssh, python(INSTEAD, program), *control) as client:
        assert client.stdin is not None
        client.stdin.write(blob)
        client.stdin.close()
        return flooded(pinger, client)


def test_a_relay_that_somebody_speaks_for(dev: Ssh, pinger: Pinger) -> None:
    frames = frame(inside.CREDIT, 1, (1).to_bytes(4, "big")) + frame(inside.DATA, 7, b"x") + frame(inside.OPENED, 9)
    with master(dev, dev.place) as control, session(dev, python(ECHO), *control) as (_, port):
        forward = dev.start(options=(*control, "-W", f"localhost:{port}"))
        try:
            assert forward.stdin is not None
            assert forward.stdout is not None
            forward.stdin.write(b"x")
            forward.stdin.flush()
            assert forward.stdout.read(1) == b"x"
            check(instead(dev, pinger, control, "python3,-IS", frames * 10_000))
        finally:
            forward.kill()
            forward.communicate()
