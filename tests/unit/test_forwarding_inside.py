"""The relay's loop in a sandbox, as a process of its own."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sshgate.forwarding import inside
from sshgate.forwarding.relay import _SOURCE, LONGEST, frame
from sshgate.sandbox.framing import FrameReader
from tests.rig.processes import cpu_seconds, without_descriptors


class Relay:
    """A running relay and the frames that it has said."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._reader = FrameReader(inside.HEAD, LONGEST)
        self.frames: list[tuple[int, int, bytes]] = []

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


def test_both_ends_of_its_own_connections_send_at_once() -> None:
    made = inside.Relay()
    made.listen(1, to(0)[:3])
    listener = made.listeners[1]
    port = listener.socks[0].getsockname()[1]
    made.open(2, to(port))
    dialled = made.streams[2]
    if dialled.connecting:
        made.connected(dialled)
    made.accept(listener, listener.socks[0].fileno())
    accepted = made.streams[inside.ACCEPTED_FROM]
    for stream in (dialled, accepted):
        assert stream.sock is not None
        assert stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        made.forget(stream)
    made.unlisten(listener)


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


def test_who_sends_to_a_peer_that_has_closed_gets_to_know(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        relay.say(frame(inside.OPEN, 1, to(listening.getsockname()[1])))
        relay.until(inside.OPENED, 1)
        other, _ = listening.accept()
        other.close()
        relay.until(inside.EOF, 1)
        for _ in range(100):  # the first piece is answered by a reset
            relay.say(frame(inside.DATA, 1, b"a piece"))
            relay.hear(0.05)
            if (inside.CLOSE, 1, b"") in relay.frames:
                break
    assert (inside.CLOSE, 1, b"") in relay.frames


def test_a_peer_that_takes_its_last_bytes_slowly_gets_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = inside.Relay()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tmp_path}/socket")
        listening.listen()
        made.open(1, b"u" + os.fsencode(tmp_path / "socket"))
        stream = made.streams[1]
        other, _ = listening.accept()
        with other:
            made.frame(inside.DATA, 1, b"x" * (1 << 20))
            made.frame(inside.CLOSE, 1, b"")
            left = len(stream.pending)
            assert left, "all of it went at once"
            taken = 0
            while stream.pending:
                now += inside.LINGER_SECONDS - 1
                made.cut_late()
                assert 1 in made.streams
                taken += len(other.recv(1 << 16))
                made.write(stream)
            assert 1 not in made.streams
            taken += sum(len(data) for data in iter(lambda: other.recv(1 << 16), b""))
            assert taken == 1 << 20
        now += 1
        made.cut_late()


def test_a_name_that_cannot_be_looked_up_for_want_of_a_thread_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    made = inside.Relay()
    made.open(1, b"t" + (80).to_bytes(2, "big") + b"somewhere.example")
    assert not made.streams
    ((kind, number, reason),) = FrameReader(inside.HEAD, LONGEST).feed(bytes(made.output))
    assert (kind, number) == (inside.FAILED, 1)
    assert b"thread" in reason


def test_a_relay_without_descriptors_goes_on_and_accepts_once_there_are_some(relay: Relay) -> None:
    """A listener whose accept fails neither ends nor keeps the processor busy, and no other connection waits."""
    with ExitStack() as stack:
        outside = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        relay.say(frame(inside.OPEN, 1, to(outside.getsockname()[1])), frame(inside.LISTEN, 2, to(0)[:3]))
        relay.until(inside.OPENED, 1)
        relay.until(inside.LISTENING, 2)
        other = stack.enter_context(outside.accept()[0])
        (port,) = (int.from_bytes(payload, "big") for kind, _, payload in relay.frames if kind == inside.LISTENING)
        left = stack.enter_context(ExitStack())
        left.enter_context(without_descriptors(relay.process.pid))
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        before = cpu_seconds(relay.process.pid)
        relay.hear(2.0)
        assert cpu_seconds(relay.process.pid) - before < 1.0
        assert not any(kind == inside.ACCEPTED for kind, _, _ in relay.frames)
        relay.say(frame(inside.OPEN, 3, b"t\0\x50name.invalid"))
        relay.until(inside.FAILED, 3)
        relay.say(frame(inside.DATA, 1, b"still here"))
        assert other.recv(100) == b"still here"
        left.close()
        relay.until(inside.ACCEPTED, 2)
