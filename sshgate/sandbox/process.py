"""What the processes of both providers have in common: their output's buffer, the end of input, and the controls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import Break, Control, Outcome, Resize, Signal
from sshgate.stream.tasks import Event
from sshgate.stream.terminal import TerminalSize

# Bytes of output buffered for the client. One read of the connection to the program may come on top.
HIGH_WATER = 128 * 1024
LOW_WATER = 32 * 1024

END_OF_TRANSMISSION = b"\x04"


class SandboxProcess(ABC):
    """The base of a ``Process`` in a sandbox. A subclass sets ``_outcome`` once, when it knows how the program ended.

    Args:
        terminal: whether the program runs on a terminal, else on pipes.
        pause: called when the output's buffer is full; ``resume`` when there is room again.
    """

    pid: int | None = None

    def __init__(self, terminal: bool, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._terminal = terminal
        self._flow = Flow(HIGH_WATER, LOW_WATER, pause, resume)
        self._outcome: Outcome | None = None
        self._line_open = False
        # Set when all output was read, or by `close`.
        self._finished = Event()

    def __repr__(self) -> str:
        kind = "terminal" if self._terminal else "pipes"
        return f"<{type(self).__name__} {self.pid} {kind} {self._flow!r} {self._outcome or 'running'}>"

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """See ``Process``. Sets ``_line_open`` to whether the input ends within a line."""

    async def write_eof(self) -> None:
        if self._terminal:
            # A ^D after an incomplete line only flushes it.
            await self.write(END_OF_TRANSMISSION * (2 if self._line_open else 1))
        else:
            self._end_stdin()

    async def control(self, control: Control) -> None:
        if self._outcome is not None:
            return
        match control:
            case Resize(size):
                if self._terminal:
                    self._resize_to(size)
            case Signal(name):
                self._signal(name, foreground=False)
            case Break():
                self._signal("INT", foreground=self._terminal)

    @abstractmethod
    def _end_stdin(self) -> None:
        """End the input of a program on pipes."""

    @abstractmethod
    def _resize_to(self, size: TerminalSize) -> None:
        """Set the terminal's size."""

    @abstractmethod
    def _signal(self, name: str, foreground: bool) -> None:
        """Signal the process group, or its terminal's foreground group; nothing before ``pid`` is known."""
