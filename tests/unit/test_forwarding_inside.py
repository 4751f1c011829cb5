"""The relay's loop in a sandbox, as a process of its own."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sshgate.forwarding import inside
from sshgate.forwarding.relay import _SOURCE, Frame, FrameReader, frame


class Relay:
    """A running relay and the frames that it has said."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._reader = FrameReader()
        self.frames: list[Frame] = []

    def say(self, *frames: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(frames))

    def hear(self, seconds: float) -> None:
        """Take what it says within this time."""
        assert self.process.stdout is not None
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and select.select([self.process.stdout], [], [], left)[0]:
            self.frames += self._reader.feed(os.read(self.process.stdout.fileno(), 1 << 16))

    def until(self, kind: int, number: int) -> None:
        for _ in range(100):
            if any(output[:2] == (kind, number) for output in self.frames):
                return
            self.hear(0.1)
        raise AssertionError(f"no {kind} of {number}, but {self.frames}")


@pytest.fixture
def relay() -> Iterator[Relay]:
    with subprocess.Popen(
        [sys.executable, "-IS", "-c", _SOURCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(len(inside.HELLO)) == inside.HELLO
        yield Relay(process)
        process.kill()


def to(port: int) -> bytes:
    return b"t" + port.to_bytes(2, "big") + b"127.0.0.1"


def test_a_connection_is_not_taken_for_the_one_that_had_its_descriptor(relay: Relay) -> None:
    """CLOSE and OPEN in one batch, with an event of the descriptor that they pass on behind them."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            # What the queue does not hold is neither accepted nor refused: a connection that is under way for long.
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(full.getsockname())
        relay.say(frame(inside.OPEN, 1, to(listening.getsockname()[1])))
        relay.until(inside.OPENED, 1)
        other, _ = listening.accept()
        stack.enter_context(other)
        os.kill(relay.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, relay.process.pid, os.WSTOPPED | os.WNOWAIT)
        relay.say(frame(inside.CLOSE, 1), frame(inside.OPEN, 2, to(full.getsockname()[1])))
        other.sendall(b"an event behind them")
        os.kill(relay.process.pid, signal.SIGCONT)
        relay.hear(0.5)
        assert not [output for output in relay.frames if output[1] == 2]


def test_a_sandbox_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the kernel has no IPv6: the socket cannot even be made."""
    make = socket.socket

    def without_ipv6(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return make(family, kind)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    listener = inside.Listener(1, [], [])
    port = int.from_bytes(inside.bind(listener, to(0)[:3]), "big")
    assert [sock.getsockname() for sock in listener.socks] == [("127.0.0.1", port)]
    listener.socks[0].close()
