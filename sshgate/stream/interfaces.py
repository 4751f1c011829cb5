"""The two ends of the line: a ``Client`` asks, a ``Process`` runs, ``bridge`` carries bytes between them.

Both are protocols, so that a front door (SSH, browser) knows nothing of a provider (Kubernetes, local) and
the other way round. Everything is bytes. Rules that both sides keep:

* End of input is ``None``, never ``b""``; adapters drop empty chunks.
* Writing to a peer that has ended is not an error: the bytes are discarded. The end is told in one place,
  ``Process.wait`` or ``Client.wait_closed``.
* Every method may be cancelled without losing bytes that were not yet handed over.
* One task reads, one task writes; calls of the same method do not overlap.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sshgate.stream.terminal import Terminal, TerminalSize

STDOUT = 1
STDERR = 2

# One SSH packet of OpenSSH's client, and one stdin frame that every API server takes.
CHUNK = 32 * 1024


# --- what a channel asks for (RFC 4254 section 6.5) ---


@dataclass(frozen=True, slots=True)
class Shell:
    """An interactive or piped login shell."""


@dataclass(frozen=True, slots=True)
class Exec:
    """One command, handed whole to the user's shell, never split here. Any bytes but NUL."""

    command: bytes


@dataclass(frozen=True, slots=True)
class Subsystem:
    """A named service, such as ``sftp``."""

    name: str
    options: tuple[bytes, ...] = ()
    """Words for the server's command line, where a key says them (``internal-sftp -R``)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a channel asks for, with its terminal (``None``: pipes) and the accepted environment."""

    kind: Shell | Exec | Subsystem
    terminal: Terminal | None = None
    environment: Mapping[str, bytes] = field(default_factory=dict)
    agent: OpenReverseChannel | None = None
    """The way to the client's authentication agent, where it offers one (``ssh -A``)."""


# --- what reaches a process besides bytes ---


@dataclass(frozen=True, slots=True)
class Resize:
    """The window changed (RFC 4254 section 6.7)."""

    size: TerminalSize


@dataclass(frozen=True, slots=True)
class Signal:
    """Deliver a signal to the process group; ``name`` without SIG, e.g. ``INT`` (RFC 4254 section 6.9)."""

    name: str


@dataclass(frozen=True, slots=True)
class Break:
    """A serial break (RFC 4335); reaches the terminal's foreground program as an interrupt."""

    milliseconds: int = 0


Control = Resize | Signal | Break


# --- how a process ended ---


@dataclass(frozen=True, slots=True)
class Exited:
    """It ended by itself with a status of 0-255."""

    status: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal ended it; ``name`` without SIG."""

    name: str
    core_dumped: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody knows how it ended: the way to it broke. ``reason`` is one sentence for the user.

    ``status`` is what the client's ssh returns: 255 unless the start itself failed (126, 127).
    """

    reason: str
    status: int = 255


Outcome = Exited | Signalled | Lost


class Process(Protocol):
    """One program in a sandbox. Whoever started it closes it."""

    pid: int | None
    """Its process id inside the sandbox, once the launcher has told it."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next output as ``(STDOUT | STDERR, bytes)``; ``None`` after the end of both."""

    async def write(self, data: bytes) -> None:
        """Send to stdin; returns when there is room for more. Discards once the program has ended."""

    async def write_eof(self) -> None:
        """No more stdin: half-close, or on a terminal its end-of-file character."""

    async def control(self, control: Control) -> None:
        """Resize, signal or break; never waits for stdin to be read. Ignored once the program has ended."""

    async def wait(self) -> Outcome:
        """How it ended; only after both outputs were read to their end. May be asked again."""

    async def close(self) -> None:
        """Let go of the way to the program, at any time, more than once, without raising."""


class Client(Protocol):
    """One front end: an SSH channel or a browser session.

    One that can be left and come back to says by an attribute ``attached`` whether somebody is there now.
    """

    async def read(self) -> bytes | None:
        """The next input; ``None`` after its end (half-close)."""

    async def write(self, stream: int, data: bytes) -> None:
        """Send output; returns when there is room for more. Discards once the client has gone.

        A second task may write between two chunks (a warning on a terminal); every chunk stays whole.
        """

    async def control(self) -> Control:
        """The next resize, signal or break; of several resizes only the last is told."""

    async def wait_closed(self) -> None:
        """Returns when the client has gone, by itself or by ``finish``."""

    async def finish(self, outcome: Outcome) -> None:
        """Tell how the process ended, after all output, and close."""


# --- a forwarded connection ---


class Stream(Protocol):
    """Bytes in both directions, each with an end of its own. One task reads, one writes.

    Writing to a stream that has ended is no error; what is written is discarded.
    """

    async def read(self) -> bytes | None:
        """The next bytes; ``None`` after the end of this direction."""

    async def write(self, data: bytes) -> None:
        """Send; returns when there is room for more."""

    async def write_eof(self) -> None:
        """Nothing more will be written: half-close."""

    async def wait_closed(self) -> None:
        """Returns when the other side has let go of both directions."""

    def close(self) -> None:
        """Let go of both directions; what was written still leaves. May be called again, never raises."""


OpenReverseChannel = Callable[[str, int], Awaitable[Stream]]
"""Opens a connection to what a client offers (a port of its own, its agent), for somebody at this address and port.
Raises ``GateError`` where the client refuses."""
