"""The order of a connection: what is opened after a request finds what was asked for. After OpenSSH's forwarding.sh."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import MakeGateway
from tests.files.test_forwards_back import served_here
from tests.rig.forwarding import connected, exchanged, local_port
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh, end, environment

HOPS = 4


@pytest.fixture(scope="module")
def user(make_gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(make_gateway(provider))


@pytest.fixture(scope="module")
def here() -> Iterator[int]:
    """The port of a server on this machine that answers in capitals."""
    with served_here(socket.AF_INET, ("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def forwarding(ssh: Ssh, *options: str) -> Iterator[None]:
    """A client that only forwards."""
    client = subprocess.Popen(ssh.argv(options=("-N", *options)), stdin=subprocess.DEVNULL, env=environment())
    try:
        yield
    finally:
        end(client)


def test_connections_through_a_chain_of_forwards_find_each_listener(user: Ssh, here: int) -> None:
    """Each hop goes from a port of this machine into the sandbox and from there back to the next port."""
    options: list[str] = []
    last = here
    for hop in range(HOPS):
        port = local_port()
        options += ["-L", f"{port}:127.0.0.1:{7100 + hop}", "-R", f"{7100 + hop}:127.0.0.1:{last}"]
        last = port
    with forwarding(user, *options):
        # At once: the sandbox is being made only now.
        assert exchanged(connected(last), b"by all of them") == b"BY ALL OF THEM"
        assert exchanged(connected(last), b"x" * 300_000) == b"X" * 300_000


def test_a_connection_that_came_before_finds_no_listener_of_later(user: Ssh, here: int) -> None:
    """It is refused, and holds up nothing."""
    port = local_port()
    with forwarding(user, "-L", f"{port}:127.0.0.1:7200"):
        with connected(port) as early:
            assert early.recv(1) == b""
        began = time.monotonic()
        with connected(port) as early:
            assert early.recv(1) == b""
        assert time.monotonic() - began < 4
