"""Copies by a user: runs the real ``ssh``, so that agents, known_hosts, ssh_config and jump hosts work."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence

from sshgate.stream.interfaces import STDERR, STDOUT, Control, Exited, Lost, Outcome, Signalled
from sshgate.stream.tasks import cancel, within
from sshgate.transfer.locations import SshPath
from sshgate.transfer.records import CHUNK

# Disables forwarding, terminals and commands of ssh_config, as scp does.
_PLAIN = (
    "-T", "-x", "-a", "-oPermitLocalCommand=no", "-oClearAllForwardings=yes", "-oRemoteCommand=none",
    "-oRequestTTY=no", "-oSessionType=default",
)  # fmt: skip
# Seconds that ssh has to end after its stdin was closed, in which the far end cleans up; the same after a signal.
PATIENCE = 2.0
# Seconds to wait for the last stderr: with ControlPersist the master keeps stderr open after ssh has ended.
_LATE_STDERR = 0.1


def ssh_argv(program: Sequence[str], options: Sequence[str], far: SshPath, command: str) -> list[str]:
    """Return the command line that runs ``command`` at ``far``."""
    login = ["-l", far.login] if far.login is not None else []
    return [*program, *_PLAIN, *options, *login, "--", far.host, command]


class SshProgram:
    """A running ``ssh`` (or the program given in its place) as a ``Process``: its pipes are those of the far end."""

    pid: int | None = None

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        self._child = child
        self._stdin, self._stdout, self._stderr = child.stdin, child.stdout, child.stderr
        self._out: asyncio.Task[bytes] | None = None
        self._err: asyncio.Task[bytes] | None = None
        self._err_ended = False

    @classmethod
    async def start(cls, argv: Sequence[str]) -> SshProgram:
        """Start the program. Raises ``OSError`` if it cannot be executed."""
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, limit=2 * CHUNK))

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next data of stdout or stderr; ``None`` after the end. Cancellation loses nothing."""
        while True:
            if self._out is None:
                self._out = asyncio.create_task(self._stdout.read(CHUNK))
            if self._err is None and not self._err_ended:
                self._err = asyncio.create_task(self._stderr.read(4096))
            running = [task for task in (self._out, self._err) if task is not None]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if self._err is not None and self._err.done():
                data = self._take_err()
                if data:
                    return STDERR, data
                continue
            if self._out.done():
                data = self._out.result()
                if data:
                    self._out = None
                    return STDOUT, data
                return await self._late_stderr()

    async def _late_stderr(self) -> tuple[int, bytes] | None:
        await self._child.wait()
        if self._err is None:
            return None
        await asyncio.wait({self._err}, timeout=_LATE_STDERR)
        if not self._err.done():
            return None
        data = self._take_err()
        return (STDERR, data) if data else None

    def _take_err(self) -> bytes:
        assert self._err is not None
        data = self._err.result()
        self._err = None
        self._err_ended = not data
        return data

    async def write(self, data: bytes) -> None:
        """Write to stdin and wait for room. Data for a program that has ended is discarded."""
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass

    async def write_eof(self) -> None:
        self._stdin.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._stdin.wait_closed()

    async def control(self, control: Control) -> None:
        """Do nothing: without a terminal, ssh cannot pass these on."""

    async def wait(self) -> Outcome:
        """Wait until ssh has ended. Its status 255 is an error of ssh itself, and reported as ``Lost``."""
        status = await self._child.wait()
        if status < 0:
            return Signalled(signal.Signals(-status).name.removeprefix("SIG"))
        return Lost("ssh could not connect, or the connection broke.") if status == 255 else Exited(status)

    async def close(self) -> None:
        """Close stdin and wait for ssh to end; after ``PATIENCE`` seconds terminate it, later kill it."""
        await cancel(*filter(None, (self._out, self._err)))
        self._stdin.close()
        for end in (self._child.terminate, self._child.kill):
            if await within(PATIENCE, self._child.wait()):
                break
            with contextlib.suppress(ProcessLookupError):
                end()
        else:
            await within(PATIENCE, self._child.wait())
        transport: asyncio.SubprocessTransport = self._child._transport  # type: ignore[attr-defined]
        transport.close()
