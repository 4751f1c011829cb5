"""A program in a local sandbox: a ``Process`` on pipes or on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable
from pathlib import Path

from sshgate.errors import Unavailable
from sshgate.providers.local import cgroup
from sshgate.sandbox.process import SandboxProcess
from sshgate.stream.interfaces import Exited, Lost, Outcome, Signalled
from sshgate.stream.tasks import Event
from sshgate.stream.terminal import TerminalSize

READ_BYTES = 64 * 1024
# When nsenter is continued again, if it has not ended by then.
WAKE_SECONDS = 0.1

SendSignal = Callable[[int, str, bool], None]


class LocalProcess(SandboxProcess):
    """The program that ``child`` (nsenter) runs inside the sandbox.

    nsenter waits for the program. It stops when the program is stopped, and would then miss its end: so the program
    is watched here too, and nsenter is continued when it ends.
    """

    def __init__(
        self,
        child: int,
        group: Path | None,
        stdin: int,
        outputs: dict[int, int],
        terminal: bool,
        send_signal: SendSignal,
        ended: Callable[[LocalProcess], None],
    ) -> None:
        """
        Args:
            child: The process id of nsenter; this object reaps it.
            group: The control group that limits memory. The program is in it before it gets its first input.
            stdin: The descriptor to write input to; on a terminal, its master.
            outputs: Maps descriptors to streams; on a terminal, its master only.
            terminal: Whether it runs on a terminal.
            send_signal: Called with a process id inside, a signal's name, and whether to signal the foreground group.
            ended: Called once, when ``child`` was reaped.

        Owns all descriptors from now on, unless it raises ``OSError``.
        """
        super().__init__(terminal, self._pause, self._resume)
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._group = group
        self._stdin: int | None = stdin
        self._outputs = outputs
        self._send_signal = send_signal
        self._set_ended = ended
        self._pid: int | None = None
        self._program: int | None = None
        self._watched = False
        self._exited = Event()
        self._room: asyncio.Future[None] | None = None
        self._reaped = False
        self._waking: asyncio.TimerHandle | None = None
        self._pidfd = os.pidfd_open(child)
        for descriptor in {stdin, *outputs}:
            os.set_blocking(descriptor, False)
        self._loop.add_reader(self._pidfd, self._reap)
        self._resume()
        # Usually nsenter is moved before it forks the program, since a few other programs start first.
        self._held = self._loop.run_in_executor(None, cgroup.hold, group, child) if group is not None else None

    @property
    def pid(self) -> int | None:
        """The program's process id inside the sandbox, once known. Setting it starts watching for its end."""
        return self._pid

    @pid.setter
    def pid(self, pid: int | None) -> None:
        self._pid = pid
        if not self._watched and not self._exited.is_set():
            self._watch_program()

    async def _hold_program(self, group: Path, held: asyncio.Future[bool], program: int) -> bool:
        await held
        return cgroup.holds(group, program) or await asyncio.to_thread(cgroup.hold, group, program)

    # --- Process ---

    async def read(self) -> tuple[int, bytes] | None:
        chunk = await self._flow.get()
        if chunk is None:
            await self._exited.wait()
            self._finished.set()
        return chunk

    async def write(self, data: bytes) -> None:
        """See ``Process``. Raises ``Unavailable`` if the program could not be moved into its control group."""
        if not self._watched and not self._exited.is_set():
            self._watch_program()  # a program of ours that reports no process id; it has said that it runs
        if self._held is not None and not await asyncio.shield(self._held) and not self._exited.is_set():
            raise Unavailable("the sandbox's memory cannot be limited; try again.")
        if data:
            self._line_open = data[-1:] != b"\n"
        view = memoryview(data)
        while view and self._stdin is not None:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await self._wait_for_room(self._stdin)
            except OSError:
                self._end_stdin()  # the program has closed its stdin; `wait` reports its end

    def _resize_to(self, size: TerminalSize) -> None:
        if self._stdin is not None:
            set_size(self._stdin, size)

    async def wait(self) -> Outcome:
        await self._finished.wait()
        assert self._outcome is not None
        return self._outcome

    async def close(self, reason: str = "the session was closed.") -> None:
        """See ``Process``. Closes the descriptors, sends no signal; ``wait`` reports ``reason`` if it had not ended."""
        self._end_stdin()
        for descriptor in list(self._outputs):
            self._end_of(descriptor)
        self._flow.discard()
        if self._outcome is None:
            self._outcome = Lost(reason)
        self._exited.set()
        self._finished.set()

    # --- called by the event loop ---

    def _readable(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            if self._terminal and self._exited.is_set():
                self._end_of(descriptor)
            return
        except OSError as error:
            # EIO: no process has the slave side of the terminal open any more.
            if error.errno != errno.EIO:
                raise
            data = b""
        if data:
            self._flow.put(data, self._outputs[descriptor])
        else:
            self._end_of(descriptor)

    def wake(self) -> None:
        """Continue the child (SIGCONT) until it ends: it may be just about to stop."""
        if not self._reaped:
            os.kill(self._child, signal.SIGCONT)
            if self._waking is not None:
                self._waking.cancel()
            self._waking = self._loop.call_later(WAKE_SECONDS, self.wake)

    def _watch_program(self) -> None:
        self._watched = True
        try:
            children = Path(f"/proc/{self._child}/task/{self._child}/children").read_text().split()
        except OSError:
            return  # nsenter has ended, or this kernel does not show its children: it misses an end only while stopped
        try:
            program = int(children[0])
            self._program = os.pidfd_open(program)
        except (IndexError, ProcessLookupError):  # it has ended
            self.wake()
            return
        if self._group is not None and self._held is not None:
            self._held = asyncio.ensure_future(self._hold_program(self._group, self._held, program))
        self._loop.add_reader(self._program, self._program_ended)

    def _program_ended(self) -> None:
        self._drop_program()
        self.wake()

    def _drop_program(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            self._loop.remove_reader(program)
            os.close(program)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._drop_program()
        _, status = os.waitpid(self._child, 0)
        self._reaped = True
        if self._waking is not None:
            self._waking.cancel()
        code = os.waitstatus_to_exitcode(status)
        if self._outcome is None:
            self._outcome = Exited(code) if code >= 0 else Signalled(signal.Signals(-code).name.removeprefix("SIG"))
        self._exited.set()
        if self._terminal:
            # A terminal ends with its session leader, even if other processes have it open: read what is there, then
            # end. Pipes end when the last process closes them, as under OpenSSH.
            self._resume()
            for descriptor in list(self._outputs):
                self._drain(descriptor)
        self._set_ended(self)

    def _drain(self, descriptor: int) -> None:
        """Read a terminal whose session has ended until it is empty, as fast as the client reads."""
        if descriptor in self._outputs and not self._flow.paused:
            self._readable(descriptor)
            if descriptor in self._outputs:
                self._loop.call_soon(self._drain, descriptor)

    def _pause(self) -> None:
        for descriptor in self._outputs:
            self._loop.remove_reader(descriptor)

    def _resume(self) -> None:
        for descriptor in self._outputs:
            self._loop.add_reader(descriptor, self._readable, descriptor)
            if self._terminal and self._exited.is_set():
                self._loop.call_soon(self._drain, descriptor)

    # --- descriptors ---

    def _end_of(self, descriptor: int) -> None:
        del self._outputs[descriptor]
        self._loop.remove_reader(descriptor)
        if descriptor != self._stdin:
            os.close(descriptor)
        elif self._terminal:
            self._end_stdin()
        if not self._outputs:
            self._flow.put_eof()

    def _end_stdin(self) -> None:
        descriptor, self._stdin = self._stdin, None
        if descriptor is None:
            return
        self._loop.remove_writer(descriptor)
        if descriptor not in self._outputs:  # else it is the terminal's master, which `_end_of` closes
            os.close(descriptor)
        self._wake()

    async def _wait_for_room(self, descriptor: int) -> None:
        self._room = self._loop.create_future()
        self._loop.add_writer(descriptor, self._wake)
        try:
            await self._room
        finally:
            self._room = None
            if self._stdin is not None:
                self._loop.remove_writer(descriptor)

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _signal(self, name: str, foreground: bool) -> None:
        if self.pid is not None:
            self._send_signal(self.pid, name, foreground)


def set_size(descriptor: int, size: TerminalSize) -> None:
    """Set a terminal's window size; the kernel sends SIGWINCH to its foreground process group."""
    packed = struct.pack("HHHH", size.rows, size.columns, size.pixel_width, size.pixel_height)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, packed)
