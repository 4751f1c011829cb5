"""A client on a pseudo-terminal: bytes to and fro, and the window's size."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.rig.ssh import environment

# Of more than this only the end is kept: looking through all of a flood again and again would hold it up.
FLOOD = 1 << 20


class OnTerminal:
    """Runs ``argv`` with a terminal of the given size; ``output`` is what came and was not yet matched."""

    def __init__(
        self,
        argv: Sequence[str | bytes],
        columns: int = 80,
        rows: int = 24,
        term: str = "xterm-256color",
        environ: dict[str, str] | None = None,
    ) -> None:
        self.output = b""
        self._ours, theirs = os.openpty()
        self.resize(columns, rows)
        try:
            # setsid makes the terminal its controlling one, so that window changes reach it as signals.
            self.client = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *argv],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment(TERM=term, **(environ or {})),
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._ours)  # a hangup, as when a window is closed
        try:
            self.client.wait(10)
        except subprocess.TimeoutExpired:
            self.client.kill()
            self.client.wait()

    def resize(self, columns: int, rows: int) -> None:
        """Change the window; the kernel notifies the client by SIGWINCH."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes | str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode() if isinstance(keys, str) else keys)

    def enter(self, line: str) -> None:
        """Type a line and the return key."""
        self.type(line + "\r")

    def expect(self, pattern: bytes, limit: float = 20.0) -> re.Match[bytes]:
        """Wait for the pattern; what came up to its end is taken away. Raises ``AssertionError``."""
        deadline = time.monotonic() + limit
        while not (found := re.search(pattern, self.output, re.DOTALL)):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not come within {limit:g} s, but {self.output[-2000:]!r}"
            assert self._take(left), f"{pattern!r} did not come before the end, but {self.output[-2000:]!r}"
        self.output = self.output[found.end() :]
        return found

    def drain(self, seconds: float) -> int:
        """Read and throw away for a time, as a reader of a flood does; how many bytes came."""
        deadline = time.monotonic() + seconds
        total = 0
        while (left := deadline - time.monotonic()) > 0 and self._take(left):
            total += len(self.output)
            self.output = b""
        return total

    def until_end(self, limit: float = 20.0) -> int:
        """Wait for the client's end; its exit status. What it printed last is in ``output``."""
        deadline = time.monotonic() + limit
        while self._take(max(deadline - time.monotonic(), 0.01)):
            assert time.monotonic() < deadline, f"the client did not end within {limit:g} s: {self.output[-2000:]!r}"
        return self.client.wait(max(deadline - time.monotonic(), 1))

    def _take(self, limit: float) -> bool:
        """Read once; false when nobody has the terminal open any more. Nothing may have come."""
        if select.select([self._ours], [], [], limit)[0]:
            try:
                data = os.read(self._ours, 1 << 16)
            except OSError:  # EIO
                return False
            self.output += data
            if len(self.output) > FLOOD:
                self.output = self.output[-FLOOD // 16 :]
            return bool(data)
        return True
