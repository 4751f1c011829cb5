"""OpenSSH's client on a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
import termios
import time
from pathlib import Path
from types import TracebackType

from tests.hostile.front_door import LIMIT, FrontDoor


class OnTerminal:
    """A client that runs with a terminal of the given size; ``said`` is what came to its screen."""

    def __init__(
        self, door: FrontDoor, *words: str, columns: int = 80, rows: int = 24, term: str = "xterm", user: str = "user"
    ) -> None:
        self.output = b""
        self._ours, theirs = os.openpty()
        self.resize(columns, rows)
        try:
            self._client = subprocess.Popen(
                door.ssh_argv(*words, user=user, options=["-t"]),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env={**os.environ, "TERM": term},
                preexec_fn=_own_terminal,
            )
        finally:
            os.close(theirs)
        os.set_blocking(self._ours, False)
        self._news = asyncio.Event()
        self._ended = False
        asyncio.get_running_loop().add_reader(self._ours, self._readable)

    async def __aenter__(self) -> OnTerminal:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.kill()
        await asyncio.to_thread(self._client.wait)
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window; the kernel tells the client by SIGWINCH."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settle(self) -> None:
        """Return when the client sleeps, that is, has handled every signal. Blocks."""
        for _ in range(500):
            stat = Path(f"/proc/{self._client.pid}/stat").read_text()
            if stat.rpartition(")")[2].split()[0] == "S":
                return
            time.sleep(0.01)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    async def until_output(self, text: bytes) -> None:
        """Wait for text on the screen."""
        async with asyncio.timeout(LIMIT):
            while text not in self.output:
                if self._ended:
                    raise AssertionError(f"{text!r} was not said, but {self.output!r}")
                self._news.clear()
                await self._news.wait()

    async def until_end(self) -> int:
        """Wait for the client's end; its exit status."""
        async with asyncio.timeout(LIMIT):
            status = await asyncio.to_thread(self._client.wait)
            while not self._ended:
                self._news.clear()
                await self._news.wait()
        self.output = self.output.replace(b"Connection to 127.0.0.1 closed.\r\n", b"")
        return status

    def _readable(self) -> None:
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._ours)
            self._ended = True
        self.output += data
        self._news.set()


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
