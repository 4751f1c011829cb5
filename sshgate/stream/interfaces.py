"""The two ends of the data path: a ``Client`` makes a request, a ``Process`` runs, ``bridge`` copies between them.

Both are protocols, so that a front end (SSH, web) and a provider (Kubernetes, local) know nothing of each other.
All data is bytes. Both sides keep these rules:

* End of input is ``None``, never ``b""``. Adapters drop empty chunks.
* Writing to a peer that has ended is not an error: the bytes are discarded. The end is reported in one place,
  ``Process.wait`` or ``Client.wait_closed``.
* Every method may be cancelled without losing bytes that were not yet handed over.
* One task reads and one task writes; calls of the same method do not overlap.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sshgate.stream.terminal import Terminal, TerminalSize

STDOUT = 1
STDERR = 2

# The data of one packet of OpenSSH's client, and a stdin frame that every API server accepts.
CHUNK = 32 * 1024


# --- what a channel asks for (RFC 4254 section 6.5) ---


@dataclass(frozen=True, slots=True)
class Shell:
    """An interactive or piped login shell."""


@dataclass(frozen=True, slots=True)
class Exec:
    """One command line, passed whole to the user's shell and never split here. Any bytes except NUL."""

    command: bytes


@dataclass(frozen=True, slots=True)
class Subsystem:
    """A named service, such as ``sftp``."""

    name: str
    options: tuple[bytes, ...] = ()
    """Arguments for the server's command line, if the key's forced command has some (``internal-sftp -R``)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a channel asks for, with its terminal (``None``: pipes) and the environment that was accepted."""

    kind: Shell | Exec | Subsystem
    terminal: Terminal | None = None
    environment: Mapping[str, bytes] = field(default_factory=dict)
    agent: OpenReverseChannel | None = None
    """Opens a connection to the client's authentication agent, if it offers one (``ssh -A``)."""


# --- what reaches a process besides bytes ---


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal's size has changed (RFC 4254 section 6.7)."""

    size: TerminalSize


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the process group; ``name`` is without SIG, e.g. ``INT`` (RFC 4254 section 6.9)."""

    name: str


@dataclass(frozen=True, slots=True)
class Break:
    """A serial break (RFC 4335). The terminal's foreground program gets it as an interrupt."""

    milliseconds: int = 0


Control = Resize | Signal | Break


# --- how a process ended ---


@dataclass(frozen=True, slots=True)
class Exited:
    """The program exited with a status of 0-255."""

    status: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal ended the program; ``name`` is without SIG."""

    name: str
    core_dumped: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """It is not known how the program ended, because the connection to it broke.

    ``reason`` is one sentence for the user. ``status`` is the exit status of the client's ssh: 255, unless the start
    itself failed (126, 127).
    """

    reason: str
    status: int = 255


Outcome = Exited | Signalled | Lost


class Process(Protocol):
    """One program in a sandbox, as the gateway uses it. The code that starts it must ``close`` it."""

    pid: int | None
    """Its process id inside the sandbox, once the launcher has reported it."""

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output as ``(STDOUT | STDERR, bytes)``; ``None`` once both have ended.

        On a terminal everything is ``STDOUT``. Cancellation loses no output.
        """

    async def write(self, data: bytes) -> None:
        """Send to stdin and return when there is room for more. Discards the bytes if the program has ended.

        After cancellation it is not known how much was sent.

        Raises:
            GateError: The program may not run (its memory cannot be limited).
        """

    async def write_eof(self) -> None:
        """End stdin: half-close it, or on a terminal send the end-of-file character."""

    async def control(self, control: Control) -> None:
        """Resize, signal or break, without waiting for stdin to be read. Ignored once the program has ended."""

    async def wait(self) -> Outcome:
        """Wait until the program has ended and return how; never raises for how it ended (``Lost``).

        Call it only after ``read`` has returned ``None``. May be called again, also after cancellation.
        """

    async def close(self) -> None:
        """Close the connection to the program, which may go on. Idempotent; never raises.

        ``read`` returns ``None`` from then on, and ``wait`` ``Lost`` if the end was not known.
        """


class Client(Protocol):
    """One front end of a process: an SSH channel or a browser's session.

    A client that users can leave and return to has an attribute ``attached``: whether somebody is connected now. One
    that keeps its place in a held session has ``place`` (``hold.wishes.Place``). One whose signs of life can be known
    has ``alive`` and ``progress`` (``hold.signs``).

    Cancelling ``read``, ``control`` or ``wait_closed`` loses nothing. A cancelled ``write`` has sent the whole chunk or
    nothing. No method raises for a client that has disconnected.
    """

    async def read(self) -> bytes | None:
        """Return the next input; ``None`` after its end (half-close)."""

    async def write(self, stream: int, data: bytes) -> None:
        """Send output and return when there is room for more. Discards the bytes if the client has disconnected.

        A second task may write between two chunks (a warning on a terminal). Every chunk stays whole.

        Args:
            stream: ``STDOUT`` or ``STDERR``.
        """

    async def control(self) -> Control:
        """Wait for the next resize, signal or break. Of several resizes only the last is returned."""

    async def wait_closed(self) -> None:
        """Return when the client has disconnected, or after ``finish``."""

    async def finish(self, outcome: Outcome) -> None:
        """After all output, report how the process ended and close."""


# --- a forwarded connection ---


class Stream(Protocol):
    """Bytes in both directions; each direction ends independently. One task reads and one task writes.

    Writing to a stream that has ended is not an error: the bytes are discarded. Cancelling ``read`` or ``wait_closed``
    loses nothing; after a cancelled ``write`` it is not known how much was sent.
    """

    async def read(self) -> bytes | None:
        """Return the next bytes; ``None`` after the end of this direction."""

    async def write(self, data: bytes) -> None:
        """Send, and return when there is room for more."""

    async def write_eof(self) -> None:
        """End the outgoing direction (half-close)."""

    async def wait_closed(self) -> None:
        """Return when the other side has closed both directions."""

    def close(self) -> None:
        """Close both directions; bytes already written are still sent. Idempotent; never raises."""


class PromptStream(Stream, Protocol):
    """A stream that can also be written to without a task of its own."""

    def write_now(self, data: bytes) -> bool:
        """Send, if that needs no wait; otherwise do nothing. Returns which. Not while ``write`` runs."""


OpenReverseChannel = Callable[[str, int], Awaitable[Stream]]
"""Opens a connection to something that the client offers: a port on its side, or its agent.

The arguments are the address and port of the originator. Raises ``GateError`` if the client refuses."""
