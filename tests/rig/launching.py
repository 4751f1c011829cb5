"""Launchers of the tests' own, on pipes and on pseudo-terminals, without a sandbox around them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sshgate.sandbox import launcher
from sshgate.sandbox.launcher import Program, ReadyMark
from sshgate.stream.terminal import TerminalSize

PATIENCE = 20.0
CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"}
SHELLS = {"sh": ("/bin/sh",), "dash": ("dash",), "bash": ("bash", "--posix"), "busybox": ("busybox", "sh")}
# What holds bytes that shells, printf or C treat in their own way; dash uses 0x81-0x88 inside.
BYTES = bytes(range(1, 256)).replace(b"\n", b"") + b"\\'\"$`%\n\\0101\\c\n\n"


def mark_of(read: Callable[[int], bytes]) -> int:
    """Read to the launcher's mark; its process id."""
    mark = ReadyMark()
    while True:
        data = read(1)
        assert data, "the launcher ended without a mark"
        if (pid := mark.feed(data)) is not None:
            return pid


@contextlib.contextmanager
def parked(words: Sequence[str] = ("/bin/sh",), **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher on pipes, its mark read, in an image that sets ``environment``."""
    running = subprocess.Popen(
        [*words, *launcher.ARGV[1:]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=CLEAN | environment, start_new_session=True, bufsize=0,
    )  # fmt: skip
    with running:
        try:
            assert running.stdout is not None
            assert mark_of(running.stdout.read) == running.pid
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


@dataclass
class Ran:
    status: int
    out: bytes
    err: bytes


def run(program: Program, stdin: bytes = b"", words: Sequence[str] = ("/bin/sh",), **environment: str) -> Ran:
    """Start a program as the gateway does, on pipes."""
    with parked(words, **environment) as running:
        out, err = running.communicate(launcher.line(program) + stdin, PATIENCE)
        return Ran(running.returncode, out, err)


class Pty:
    """A launcher on a pseudo-terminal of its own."""

    def __init__(
        self,
        words: Sequence[str] = ("/bin/sh",),
        size: TerminalSize = TerminalSize(),  # noqa: B008
        **environment: str,
    ) -> None:
        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
        self.running = subprocess.Popen(
            [*words, *launcher.ARGV[1:]], stdin=side, stdout=side, stderr=side, env=CLEAN | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(side)
        self.seen = b""

    def __enter__(self) -> Pty:
        assert mark_of(self._read) == self.running.pid
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        os.close(self.main)

    def _read(self, limit: int = 65_536) -> bytes:
        ready, _, _ = select.select([self.main], [], [], PATIENCE)
        assert ready, f"nothing came after {self.seen[-200:]!r}"
        try:
            return os.read(self.main, limit)
        except OSError:  # the other side is closed
            return b""

    def type(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.main, data[:512]) :]

    def read_until(self, text: bytes) -> bytes:
        while text not in self.seen:
            data = self._read()
            assert data, f"it ended after {self.seen[-200:]!r}"
            self.seen += data
        before, _, self.seen = self.seen.partition(text)
        return before

    def read_all(self) -> bytes:
        while data := self._read():
            self.seen += data
        return self.seen
