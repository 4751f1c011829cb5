"""A small real gateway for tests of the front door: its logins run programs of this machine, without a sandbox.

Shells and commands go to ``/bin/sh`` with an environment of their own, on pipes or on a pseudo-terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable
from typing import Any

from sshgate.access.identity import Identity
from sshgate.config.model import Profile
from sshgate.stream.bridge import Traffic, bridge
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import (
    STDERR,
    STDOUT,
    Break,
    Client,
    Control,
    Exec,
    Exited,
    Lost,
    Outcome,
    Request,
    Resize,
    Shell,
    Signal,
    Signalled,
)
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.hostile.no_forwards import NoForwards

HIGH, LOW = 256 * 1024, 64 * 1024


class Programs:
    """A gateway of local programs. Remembers its logins for tests to look at."""

    def __init__(self) -> None:
        self.logins: list[ProgramLogin] = []
        self.profiles: dict[str, Profile] = {}

    def existing_profile(self, user: str, name: str) -> str | None:
        return None

    def login(self, identity: Identity, together: bool = False) -> ProgramLogin:
        login = ProgramLogin(identity)
        self.logins.append(login)
        return login


class ProgramLogin:
    """One login: runs each request as a child process and ends it when its client has gone."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.requests: list[Request] = []
        self.running = 0
        self.closed = False
        self.forwards = NoForwards()

    def shell_pid(self, client: Client) -> int | None:
        return None

    def ends(self, client: Client) -> dict[str, float]:
        return {}

    def start_speculative_claim(self) -> None:
        pass

    def sessions_ended(self) -> None:
        pass

    def disconnected(self) -> None:
        pass

    async def run(self, request: Request, client: Client) -> None:
        self.requests.append(request)
        self.running += 1
        try:
            process = await start(self.identity, request)
            try:
                outcome = await bridge(client, process, Traffic())
            finally:
                await process.close()
            if outcome is not None:
                await client.finish(outcome)
        except asyncio.CancelledError:
            await client.write(STDERR, b"cut\n")
            await client.finish(Lost("cut"))
            raise
        finally:
            self.running -= 1

    async def close(self) -> None:
        self.closed = True


async def start(identity: Identity, request: Request) -> Program:
    """Start what is asked as a child process."""
    limits = identity.restrictions
    environment = {"PATH": os.environ["PATH"], "USER": identity.user}
    environment |= {name: os.fsdecode(value) for name, value in request.environment.items()}
    command = limits.command
    if command is None and isinstance(request.kind, Exec):
        command = request.kind.command
    if command is None and not isinstance(request.kind, Shell):
        command = b"echo no such subsystem >&2; exit 3"
    argv: list[bytes | str] = ["/bin/sh"] if command is None else ["/bin/sh", "-c", command]
    if request.terminal is not None:
        environment["TERM"] = request.terminal.term
        return await _on_terminal(argv, environment, request.terminal)
    return await _on_pipes(argv, environment)


class Program:
    """A child process as a ``streams.Process``."""

    def __init__(self, child: asyncio.subprocess.Process, pause: Callable[[], Any], resume: Callable[[], Any]) -> None:
        self.pid: int | None = child.pid
        self._child = child
        self._output = Flow(HIGH, LOW, pause, resume)
        self._pumps: list[asyncio.Task[None]] = []
        self._terminal: int | None = None

    async def read(self) -> tuple[int, bytes] | None:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        raise NotImplementedError

    async def write_eof(self) -> None:
        raise NotImplementedError

    async def control(self, control: Control) -> None:
        if isinstance(control, Resize):
            if self._terminal is not None:
                _resize(self._terminal, control.size)
            return
        name = control.name if isinstance(control, Signal) else "INT"
        assert isinstance(control, Signal | Break)
        with contextlib.suppress(ProcessLookupError, AttributeError):
            os.killpg(self._child.pid, getattr(signal, f"SIG{name}"))

    async def wait(self) -> Outcome:
        status = await self._child.wait()
        return Exited(status) if status >= 0 else Signalled(signal.Signals(-status).name.removeprefix("SIG"))

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        # `wait` waits for the pipes as well, and output that nobody reads would keep them open.
        for descriptor in (0, 1, 2):
            pipe = self._child._transport.get_pipe_transport(descriptor)  # type: ignore[attr-defined]
            if pipe is not None:
                pipe.close()
        await self._child.wait()


class OnPipes(Program):
    """With stdout and stderr apart."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._resumed = asyncio.Event()
        self._resumed.set()
        super().__init__(child, self._resumed.clear, self._resumed.set)
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdin is not None
        # Up to 64 KiB would be kept otherwise, and uvloop keeps an object per piece: 16 MiB for pieces of a byte.
        with contextlib.suppress(RuntimeError):  # it has ended already
            child.stdin.transport.set_write_buffer_limits(high=0)
        self._open = 2
        self._pumps = [
            asyncio.create_task(self._pump(child.stdout, STDOUT)),
            asyncio.create_task(self._pump(child.stderr, STDERR)),
        ]

    async def _pump(self, source: asyncio.StreamReader, stream: int) -> None:
        while data := await source.read(32768):
            await self._resumed.wait()
            self._output.put(data, stream)
        self._open -= 1
        if not self._open:
            self._output.put_eof()

    async def write(self, data: bytes) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._child.stdin.write(data)
            await self._child.stdin.drain()

    async def write_eof(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()


class OnTerminal(Program):
    """With a pseudo-terminal."""

    def __init__(self, child: asyncio.subprocess.Process, terminal: int) -> None:
        loop = self._loop = asyncio.get_running_loop()
        super().__init__(child, lambda: loop.remove_reader(terminal), lambda: loop.add_reader(terminal, self._readable))
        self._terminal = terminal
        os.set_blocking(terminal, False)
        loop.add_reader(terminal, self._readable)

    def _readable(self) -> None:
        assert self._terminal is not None
        try:
            data = os.read(self._terminal, 32768)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last program has let go of the terminal
            data = b""
        if data:
            self._output.put(data, STDOUT)
        else:
            self._loop.remove_reader(self._terminal)
            self._output.put_eof()

    async def write(self, data: bytes) -> None:
        assert self._terminal is not None
        while data:
            try:
                data = data[os.write(self._terminal, data) :]
            except BlockingIOError:
                await asyncio.sleep(0.001)
            except OSError:
                return

    async def write_eof(self) -> None:
        await self.write(b"\x04")

    async def close(self) -> None:
        await super().close()
        if self._terminal is not None:
            self._loop.remove_reader(self._terminal)
            os.close(self._terminal)
            self._terminal = None


async def _on_pipes(argv: list[bytes | str], environment: dict[str, str]) -> Program:
    pipe = asyncio.subprocess.PIPE
    return OnPipes(
        await asyncio.create_subprocess_exec(
            *argv, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
    )


async def _on_terminal(argv: list[bytes | str], environment: dict[str, str], terminal: Terminal) -> Program:
    ours, theirs = os.openpty()
    try:
        _resize(ours, terminal.size)
        child = await asyncio.create_subprocess_exec(
            *argv,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    finally:
        os.close(theirs)
    return OnTerminal(child, ours)


def _resize(terminal: int, size: TerminalSize) -> None:
    fcntl.ioctl(
        terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, size.pixel_width, size.pixel_height)
    )
