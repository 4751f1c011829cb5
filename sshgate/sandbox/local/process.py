"""One program of a local sandbox: its pipes or terminal on the event loop."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable

from sshgate.flow import Flow
from sshgate.streams import STDERR, STDOUT, Break, Control, Outcome, Resize, Signal

HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024
READ_SIZE = 64 * 1024
# Linux: signals the foreground group of a terminal by its master.
TIOCSIG = 0x40045436
# How long an end of input waits for a launcher to leave raw mode, in which ^D is a byte like any other.
COOKED_SECONDS = 1.0
COOKED_INTERVAL = 0.01


class LocalProcess:
    """See ``sshgate.streams.Process``. ``tell`` sends a message about this program to its usher."""

    def __init__(self, fds: list[int], terminal: bool, tell: Callable[[str, int], None]) -> None:
        self.pid: int | None = None
        self._loop = asyncio.get_running_loop()
        self._terminal = terminal
        self._tell = tell
        self._flow = Flow(HIGH_WATER, LOW_WATER, self._pause, self._resume)
        self._outputs = {fds[0]: STDOUT} if terminal else {fds[1]: STDOUT, fds[2]: STDERR}
        self._input: int | None = fds[0]
        self._room: asyncio.Future[None] | None = None
        self._last = b"\n"
        self._outcome: Outcome | None = None
        self._ended = asyncio.Event()
        self._closed = False
        self._resume()

    def __repr__(self) -> str:
        state = "closed" if self._closed else str(self._outcome or "running")
        return f"<LocalProcess {self.pid} {'terminal' if self._terminal else 'pipes'} {state} {self._flow!r}>"

    async def read(self) -> tuple[int, bytes] | None:
        return await self._flow.get()

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and self._input is not None:
            try:
                count = os.write(self._input, rest)
            except BlockingIOError:
                await self._wait_for_room(self._input)
            except OSError:
                self._end_input()  # nobody will read it any more
            else:
                self._last = bytes(rest[count - 1 : count])
                rest = rest[count:]

    async def write_eof(self) -> None:
        if not self._terminal:
            self._end_input()
            return
        for _ in range(int(COOKED_SECONDS / COOKED_INTERVAL)):
            character = self._end_of_file()
            if character is not None:
                break
            await asyncio.sleep(COOKED_INTERVAL)
        else:
            character = b"\x04"
        # The first one only sends off a line that has been begun.
        await self.write(character if self._last == b"\n" else character * 2)

    async def control(self, control: Control) -> None:
        if self._closed or self._outcome is not None:
            return
        if isinstance(control, Signal):
            number = signal.__dict__.get("SIG" + control.name)
            if isinstance(number, signal.Signals):
                self._tell("signal", number)
        elif self._terminal and self._input is not None:
            size = control.size if isinstance(control, Resize) else None
            try:
                if size is not None:
                    packed = struct.pack("HHHH", size.rows, size.columns, size.pixel_width, size.pixel_height)
                    fcntl.ioctl(self._input, termios.TIOCSWINSZ, packed)
                elif isinstance(control, Break):
                    fcntl.ioctl(self._input, TIOCSIG, signal.SIGINT)
            except OSError:
                pass  # the terminal has been hung up

    async def wait(self) -> Outcome:
        await self._ended.wait()
        assert self._outcome is not None
        return self._outcome

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._end_input()
        for fd in list(self._outputs):
            self._end_output(fd)
        self._flow.discard()
        self._tell("close", 0)

    def ended(self, outcome: Outcome) -> None:
        """The usher says how the program ended; the first word counts."""
        if self._outcome is None:
            self._outcome = outcome
            self._settle()

    # --- reading ---

    def _pause(self) -> None:
        for fd in self._outputs:
            self._loop.remove_reader(fd)

    def _resume(self) -> None:
        for fd in self._outputs:
            self._loop.add_reader(fd, self._readable, fd)

    def _readable(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # a terminal's master says so when the last program has let go of it
        if data:
            self._flow.put(data, self._outputs[fd])
        else:
            self._end_output(fd)

    def _end_output(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._outputs[fd]
        if self._terminal:
            self._end_input()
        else:
            os.close(fd)
        if not self._outputs:
            self._flow.put_eof()
            self._settle()

    def _settle(self) -> None:
        if self._outcome is not None and not self._outputs:
            self._ended.set()

    # --- writing ---

    async def _wait_for_room(self, fd: int) -> None:
        self._room = self._loop.create_future()
        self._loop.add_writer(fd, self._roomy)
        try:
            await self._room
        finally:
            self._room = None
            if self._input is not None:
                self._loop.remove_writer(fd)

    def _roomy(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _end_input(self) -> None:
        """Close stdin; a terminal's one descriptor stays as long as its output is read."""
        fd = self._input
        if fd is None or fd in self._outputs:
            return
        self._input = None
        self._loop.remove_writer(fd)
        os.close(fd)
        self._roomy()

    def _end_of_file(self) -> bytes | None:
        """The terminal's end-of-file character; ``None`` while it is in raw mode. ^D once it has gone."""
        if self._input is None:
            return b"\x04"
        try:
            settings = termios.tcgetattr(self._input)
        except termios.error:
            return b"\x04"
        character = settings[6][termios.VEOF]
        return character if settings[3] & termios.ICANON and isinstance(character, bytes) else None
