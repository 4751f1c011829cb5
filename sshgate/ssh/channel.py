"""Channels on top of asyncssh's callbacks: a session (a ``Client``), and a forwarded connection (a ``Stream``)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import asyncssh
import structlog
from asyncssh.constants import EXTENDED_DATA_STDERR

from sshgate.config.values import FORBIDDEN_VARIABLES, is_variable, matches
from sshgate.ssh._asyncssh.channel import AsyncsshForwardChannel, AsyncsshSessionChannel, BoundedChannel, wait_writable
from sshgate.ssh._asyncssh.connection import Transport
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import (
    CHUNK,
    STDERR,
    Break,
    Control,
    Exec,
    Exited,
    OpenReverseChannel,
    Outcome,
    Request,
    Resize,
    Shell,
    Signal,
    Signalled,
    Subsystem,
)
from sshgate.stream.splice import LINGER_SECONDS
from sshgate.stream.tasks import Event
from sshgate.stream.terminal import TERM_NAME, Terminal, TerminalSize

# Input read ahead of the program: two reads of the event loop, so that one is filled while the other is sent. It is
# passed on in one piece, because each component on the way to a pod has a cost per message.
INPUT_HIGH = 512 * 1024
INPUT_LOW = 64 * 1024
# Input read ahead of the sandbox, per forwarded connection. There may be hundreds of them.
FORWARD_INPUT_HIGH = 128 * 1024
FORWARD_INPUT_LOW = 32 * 1024
# Signals that have not been delivered yet. Further ones are dropped, as a kernel drops pending signals.
SIGNALS = 32
VARIABLES = 200
ENVIRONMENT_BYTES = 256 * 1024
LONGEST_NAME = 256
LONGEST_TERM = 64


S = TypeVar("S", bound="OpenChannel")
P = ParamSpec("P")
R = TypeVar("R")

Serve = Callable[["Channel", Request], None]


def _contained(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let an exception in a callback end only this channel; asyncssh would end the whole connection."""

    @wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except Exception:
            self.broken(method.__name__)
            return cast(R, False)

    return cast("Callable[Concatenate[S, P], R]", call)


class OpenChannel:
    """What all channels have in common: bounded input, output that waits for room, and the moment of their end.

    Args:
        high: Bytes of input at which reading is paused, and ``low``: at which it continues.
        most: Bytes that ``read`` returns at most.
    """

    def __init__(
        self, transport: Transport, log: structlog.typing.FilteringBoundLogger, high: int, low: int, most: int = CHUNK
    ) -> None:
        self._transport = transport
        self._log = log
        self._wire: BoundedChannel | None = None
        self._input = Flow(high, low, self._pause_input, self._resume_input, most)
        self._room = Event()
        self._room.set()
        self._gone = Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire = None
        self._leave()

    def _leave(self) -> None:
        """The client has left: nothing is written any more."""
        self._gone.set()
        self._room.set()

    def broken(self, where: str) -> None:
        """End this channel after an exception in the callback ``where``. The connection goes on."""
        self._log.exception("channel.broken", where=where)
        self._leave()
        if self._wire is not None:
            self._wire.abort()

    @_contained
    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._input.put(bytes(data))

    @_contained
    def eof_received(self) -> bool:
        self._input.put_eof()
        # Output goes on: this is a half-close.
        return True

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def _pause_input(self) -> None:
        if self._wire is not None:
            self._wire.pause_reading()

    def _resume_input(self) -> None:
        if self._wire is not None:
            self._wire.resume_reading()

    async def read(self) -> bytes | None:
        chunk = await self._input.get()
        return None if chunk is None else chunk[1]

    async def _write(self, data: bytes, datatype: int | None = None) -> None:
        began = time.monotonic()
        self._write_out(data, datatype)
        await self._transport.budget.charge_and_wait(time.monotonic() - began)
        await wait_writable(self._gone, self._room, self._transport.writable)

    def _write_out(self, data: bytes, datatype: int | None = None) -> None:
        if self._wire is not None and not self._gone.is_set():
            try:
                self._wire.write(data, datatype)
            except BrokenPipeError:
                self._leave()

    async def wait_closed(self) -> None:
        await self._gone.wait()


class Channel(OpenChannel, asyncssh.SSHServerSession[bytes]):
    """A session channel.

    Args:
        serve: Called once, with the client's request. It must make sure that ``end`` is called.
        accept_env: Patterns of the variables that a client may set.
        terminals: False if the key forbids terminals.
        greeting: Shown before the first prompt of an interactive shell.
        agent: Opens a connection to the client's agent; ``None`` if the key forbids it.
        agent_allowed: Returns the reply to the client's offer of its agent.
        start_speculative_claim: Called when a terminal, but not yet a program, was requested.
    """

    def __init__(
        self,
        transport: Transport,
        serve: Serve,
        log: structlog.typing.FilteringBoundLogger,
        accept_env: Sequence[str] = (),
        terminals: bool = True,
        greeting: str | None = None,
        agent: OpenReverseChannel | None = None,
        agent_allowed: Callable[[], bool] = lambda: False,
        start_speculative_claim: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(transport, log, INPUT_HIGH, INPUT_LOW, INPUT_HIGH)
        self._serve = serve
        self._accept_env = accept_env
        self._terminals = terminals
        self._greeting = greeting
        self._agent = agent
        self._agent_allowed = agent_allowed
        self._start_speculative_claim = start_speculative_claim
        self._agent_offered = False
        self._asks: Shell | Exec | Subsystem | None = None
        self._terminal: Terminal | None = None
        self._environment: dict[str, bytes] = {}
        self._environment_bytes = 0
        self._size: TerminalSize | None = None
        self._signals: list[Signal | Break] = []
        self._controlled = Event()
        self._refused = False
        self._closed_early = False
        self._being_read = False
        self._lingering: asyncio.TimerHandle | None = None

    @property
    def client_version(self) -> str:
        """The client's version string (RFC 4253 section 4.2)."""
        return "" if self._wire is None else str(self._wire.get_extra_info("client_version", ""))

    def __repr__(self) -> str:
        asks = type(self._asks).__name__.lower() if self._asks is not None else "idle"
        size = f" {self._terminal.size}" if self._terminal is not None else ""
        waiting = self._wire.get_write_buffer_size() if self._wire is not None else 0
        return f"<Channel {asks}{size}, input {self._input.size}, output {waiting}{' gone' * self._gone.is_set()}>"

    # --- opening and closing ---

    @_contained
    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._wire = cast(AsyncsshSessionChannel, chan)

    @_contained
    def close_received(self) -> bool:
        # As with sshd, the program gets what came before the close, and an EOF unless it has a terminal.
        waits = self._input.size or (self._input.ended and self._terminal is None)
        if self._asks is None or self._gone.is_set() or not self._room.is_set() or not waits:
            return False
        if self._terminal is None:
            self._input.put_eof()
        self._closed_early = True
        if self._being_read:
            self._linger()
        return True

    def _linger(self) -> None:
        """Leave after ``LINGER_SECONDS`` in which the program has taken no input."""
        if self._lingering is not None:
            self._lingering.cancel()
        self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._leave)

    async def read(self) -> bytes | None:
        self._being_read = True
        if self._closed_early and not self._gone.is_set():
            self._linger()
            if self._terminal is not None and not self._input.size:
                # Later, as who waits for the end has to see it before there is no input: that would be a ^D.
                asyncio.get_running_loop().call_soon(self._leave)
                await self._gone.wait()
        return await super().read()

    def _write_out(self, data: bytes, datatype: int | None = None) -> None:
        if not self._closed_early:
            super()._write_out(data, datatype)
        elif self._being_read:
            self._leave()  # nobody reads it: as SIGPIPE with sshd

    def _leave(self) -> None:
        super()._leave()
        if self._lingering is not None:
            self._lingering.cancel()
        # This also resumes paused input: asyncssh does not report the close of a paused channel.
        self._input.discard()

    # --- requests ---

    @_contained
    def pty_requested(
        self, term_type: str | None, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        if not self._terminals or self._asks is not None:
            return False
        term = term_type or ""
        if len(term) > LONGEST_TERM or not TERM_NAME.match(term):
            term = "xterm" if term else "dumb"
        # OpenSSH sends neither without a terminal of its own; who has one sends at least its size.
        scripted = not term_modes and not any(term_size)
        self._terminal = Terminal(term, TerminalSize.of(*term_size), dict(term_modes), scripted)
        # Not when the channel opens: it may be for a subsystem of the gateway, and would waste a warm sandbox.
        self._start_speculative_claim()
        return True

    @_contained
    def env_received(self, name: bytes, value: bytes) -> bool:
        if self._asks is not None or len(name) > LONGEST_NAME:
            return False
        text = name.decode("ascii", "replace")
        if not is_variable(text) or matches(text, FORBIDDEN_VARIABLES):
            return False
        if not matches(text, self._accept_env):
            return False
        size = self._environment_bytes + len(name) + len(value) - len(self._environment.get(text, b""))
        if size > ENVIRONMENT_BYTES or (len(self._environment) >= VARIABLES and text not in self._environment):
            return False
        self._environment_bytes = size
        self._environment[text] = value
        return True

    @_contained
    def agent_offered(self) -> bool:
        # The profile may still change (SSHGATE_PROFILE), so the offer is remembered whatever the reply is.
        self._agent_offered = self._agent is not None
        return self._agent_offered and self._agent_allowed()

    def shell_requested(self) -> bool:
        return self._ask(Shell())

    def exec_requested(self, command: str) -> bool:
        return self._ask(Exec(command.encode("utf-8", "surrogateescape")))

    def subsystem_requested(self, subsystem: str) -> bool:
        return self._ask(Subsystem(subsystem))

    @_contained
    def _ask(self, asks: Shell | Exec | Subsystem) -> bool:
        self._asks = asks
        return True

    @_contained
    def session_started(self) -> None:
        assert self._asks is not None
        if self._greeting and isinstance(self._asks, Shell) and self._terminal is not None:
            text = "\r\n".join(self._greeting.splitlines()) + "\r\n"
            self._write_out(text.encode())
        agent = self._agent if self._agent_offered else None
        self._serve(self, Request(self._asks, self._terminal, dict(self._environment), agent))

    # --- controls, and the end of output ---

    @_contained
    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._size = TerminalSize.of(width, height, pixwidth, pixheight)
        self._controlled.set()

    @_contained
    def signal_received(self, signal: str) -> None:
        if len(signal) <= LONGEST_NAME:
            self._queue(Signal(signal))

    @_contained
    def break_received(self, msec: int) -> bool:
        return self._queue(Break(msec))

    def _queue(self, control: Signal | Break) -> bool:
        if len(self._signals) >= SIGNALS:
            return False
        self._signals.append(control)
        self._controlled.set()
        return True

    @_contained
    def output_refused(self) -> None:
        # Treated as a disconnect, since nobody reads the output any more. The program is ended, as SIGPIPE would end
        # it on a local pipe.
        self._refused = True
        self._leave()

    # --- stream.interfaces.Client ---

    async def write(self, stream: int, data: bytes) -> None:
        await self._write(data, EXTENDED_DATA_STDERR if stream == STDERR else None)

    async def control(self) -> Control:
        while True:
            if self._size is not None:
                size, self._size = self._size, None
                return Resize(size)
            if self._signals:
                return self._signals.pop(0)
            self._controlled.clear()
            await self._controlled.wait()

    async def alive(self) -> bool:
        """Wait for a sign of life of the client. Returns false once the connection has ended."""
        return await self._transport.answers()

    def progress(self) -> int | None:
        """Return a number that grows while the client takes output that waits for it; ``None``: none is known to."""
        return self._transport.progress()

    async def finish(self, outcome: Outcome) -> None:
        self._end(outcome)

    def end(self) -> None:
        """Close the channel, whether or not ``finish`` was called. Idempotent."""
        self._end(Signalled("PIPE") if self._refused else Exited(255))

    def _end(self, outcome: Outcome) -> None:
        wire = cast("AsyncsshSessionChannel | None", self._wire)
        if wire is not None:
            if isinstance(outcome, Signalled):
                wire.end_with_signal(outcome.name, outcome.core_dumped)
            else:
                wire.end_with_status(outcome.status & 0xFF)
        self._leave()


class ForwardChannel(OpenChannel, asyncssh.SSHTCPSession[bytes]):
    """A forwarded connection. ``started`` is called once, when the channel is open."""

    def __init__(
        self,
        transport: Transport,
        log: structlog.typing.FilteringBoundLogger,
        started: Callable[[ForwardChannel], None] = lambda channel: None,
    ) -> None:
        super().__init__(transport, log, FORWARD_INPUT_HIGH, FORWARD_INPUT_LOW)
        self._started = started

    def __repr__(self) -> str:
        return f"<ForwardChannel {self._input!r}{' gone' * self._gone.is_set()}>"

    # --- callbacks of asyncssh ---

    def connection_made(self, chan: Any) -> None:
        self._wire = cast(AsyncsshForwardChannel, chan)

    @_contained
    def session_started(self) -> None:
        self._started(self)

    def close_received(self) -> None:
        """The client reads no more. What it had sent can still be read."""
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._input.put_eof()

    # --- stream.interfaces.Stream ---

    async def write(self, data: bytes) -> None:
        await self._write(data)

    async def write_eof(self) -> None:
        if self._wire is not None and not self._gone.is_set():
            self._wire.write_eof()

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._leave()
        # This also resumes paused input: asyncssh does not report the close of a paused channel.
        self._input.discard()
