"""A program in a pod, reached over one remotecommand websocket: a ``Process``."""

from __future__ import annotations

import asyncio
import secrets
from typing import Protocol

from sshgate.providers.kubernetes.api.websocket import V5, RemoteSocket
from sshgate.providers.kubernetes.exec import remotecommand
from sshgate.providers.kubernetes.exec.endmark import EndMark
from sshgate.sandbox.launcher import UNTAKEN
from sshgate.sandbox.process import SandboxProcess
from sshgate.stream.interfaces import STDERR, STDOUT, Exited, Lost, Outcome
from sshgate.stream.tasks import Event, cancel, within
from sshgate.stream.terminal import TerminalSize

# The longest stdin message. One of this size costs the API server and the node 5 % less than four shorter ones.
MESSAGE = 1024 * 1024

# Bytes of stdin after which `write` yields to the event loop.
BURST = 256 * 1024

# A possible beginning of the end mark is released after twice this. The pieces of a real one arrive together.
HOLD_SECONDS = 0.03

# When a second exec signals the launcher that its output has arrived. At once after much output, when the launcher
# certainly waits for that; else after the first of these, when it has usually ended by itself; then again after the
# second one, repeatedly.
TAKEN_SECONDS = 0.05
TAKEN_AGAIN_SECONDS = 1.0

# When the end of input reaches a terminal, as a ^D. A node that closes a program's connection while input is on its way
# loses the status, and the API server then reports success: a program that ends at once is sent none.
EOF_SECONDS = 0.1

# The shortest time between two window sizes sent.
RESIZE_SECONDS = 0.02

# The statuses of SIGKILL and SIGTERM: the program was signalled, or its whole sandbox ended.
KILLED = (Exited(137), Exited(143))


class PodContext(Protocol):
    """What a process needs of its sandbox. No method raises for an error of Kubernetes."""

    def signal(self, pid: int, name: str, foreground: bool) -> None:
        """Signal the process group of ``pid``, or its terminal's foreground group, in the background."""

    async def acknowledge_output(self, pid: int) -> None:
        """Signal the launcher ``pid`` that all output has arrived, so that it may exit."""

    async def end_reason(self) -> str | None:
        """Why the sandbox has ended, as a sentence; ``None`` if it has not. Waits briefly for the watch to show it."""

    async def kill_reason(self) -> str | None:
        """Why the whole sandbox was killed, as a sentence; ``None`` if it still runs: only the program was killed."""

    async def process_gone(self, pid: int) -> bool:
        """Whether it is certain that process ``pid`` has ended."""

    def ended(self, process: ExecProcess) -> None:
        """Called once, when ``process`` has ended or was closed."""


class ExecProcess(SandboxProcess):
    """The process at the other end of ``socket``. It owns the socket and closes it when the process has ended.

    Kubernetes does not report the end of a program reliably. containerd 1.6 delays the exit until stdin is drained.
    The API server reports success if a node closes the connection while input is in flight, if the node's side breaks
    (containerd restarts), and if it pings a node that has sent everything and closed: the kubelet then drops output
    that the client has not read, megabytes of it. So on pipes the launcher prints a mark after the last byte of each
    output (``expect_end_mark``). Only then is stdin ended, for which the launcher waits, and the status arrives.
    Success is reported only with both marks; without marks, only if a look shows that the process is gone.

    The launcher exits, and with it the connection, only once it knows that all output has arrived: by the mark
    echoed on stdin; by the end of stdin, if the client has no input and the program was given /dev/null; or by a
    signal from a second exec, if the client ended its input before the program's end.

    v4 of the subprotocol cannot end stdin: ``write_eof`` without a terminal then has no effect, and a program that
    reads to the end of its input runs until it is closed.
    """

    def __init__(self, socket: RemoteSocket, terminal: bool, context: PodContext) -> None:
        super().__init__(terminal, socket.pause_reading, socket.resume_reading)
        self._socket = socket
        self._context = context
        self._writing = False
        self._sent = 0
        self._size: TerminalSize | None = None
        self._resizing: asyncio.TimerHandle | None = None
        self._acknowledging: asyncio.Task[None] | None = None
        self._mark: EndMark | None = None
        self._hold_timers: dict[int, asyncio.TimerHandle] = {}
        self._stdin_waits = False
        self._came = 0
        self._checking = asyncio.Lock()
        self._checked = False
        self._stdin_over = False
        self._begun = Event()
        socket.attach(self._received, self._lost)

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, as soon as that is known, even before the output was read. ``wait`` verifies it."""
        return self._outcome

    def expect_end_mark(self, no_input: bool) -> bytes | None:
        """Choose a mark for the launcher to print on both outputs after the program has ended. ``read`` omits it.

        With ``no_input`` nothing may be written to stdin, which then stays open until the marks have arrived.
        Returns ``None`` if a mark would be useless: on a terminal, and if stdin cannot be ended (v4).
        """
        if self._terminal or self._socket.subprotocol != V5:
            return None
        # All output is searched for it: a long mark of few different bytes lets the search skip ahead quickly.
        self._mark = EndMark(f"\x1e{secrets.randbits(64):064b}\x1f".encode())
        self._stdin_waits = no_input
        return self._mark.mark

    async def begun(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the first output or the end; returns whether either came."""
        return await within(seconds, self._begun.wait()) or self._begun.is_set()

    async def read(self) -> tuple[int, bytes] | None:
        chunk = await self._flow.get()
        if chunk is None:
            self._finished.set()
        return chunk

    async def write(self, data: bytes) -> None:
        if self._stdin_over or self._outcome is not None or not data:
            return
        self._line_open = data[-1:] != b"\n"
        self._send_size()
        self._writing = True
        try:
            for start in range(0, len(data), MESSAGE):
                message = data[start : start + MESSAGE]
                await self._socket.send(remotecommand.STDIN_PREFIX, message)
                self._sent += len(message)
                if self._sent >= BURST:
                    # Let the loop read the status first: writing to a connection that the server has closed
                    # tears it down with the status unread.
                    self._sent = 0
                    await asyncio.sleep(0)
                if self._stdin_over or self._outcome is not None:
                    return
        finally:
            self._writing = False
            self._resize()

    async def write_eof(self) -> None:
        if self._terminal:
            await asyncio.sleep(EOF_SECONDS)
        await super().write_eof()

    async def wait(self) -> Outcome:
        await self._finished.wait()
        assert self._outcome is not None
        async with self._checking:
            if not self._checked:
                self._outcome = await self._believable(self._outcome)
                self._checked = True
        return self._outcome

    async def _believable(self, outcome: Outcome) -> Outcome:
        if self._mark is not None and self._mark.killed:
            return remotecommand.by_signal(outcome)
        if outcome in KILLED:
            reason = await self._context.kill_reason()
            return Lost(reason) if reason is not None else outcome
        if outcome != Exited(0):
            return outcome
        if self._mark is not None:
            whole = self._mark.complete and not self._mark.leaked
            return outcome if whole else Lost(await self._context.end_reason() or remotecommand.CUT)
        if self.pid is not None and not await self._context.process_gone(self.pid):
            return Lost(await self._context.end_reason() or remotecommand.NO_STATUS)
        return outcome

    async def close(self) -> None:
        self.lose("the session was closed.")
        self._flow.discard()
        self._finished.set()
        if self._acknowledging is not None:
            await cancel(self._acknowledging)

    def lose(self, reason: str) -> None:
        """Close the connection and report ``Lost`` with this ``reason``. Does nothing if the process has ended."""
        self._end(Lost(reason))

    def _end_stdin(self) -> None:
        # Never on a terminal: the v5 CLOSE would cut off all further output.
        if self._outcome is None and not self._stdin_waits:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if not self._stdin_over and self._socket.subprotocol == V5:
            self._stdin_over = True
            self._socket.send_now(remotecommand.STDIN_CLOSE)

    def _acknowledge_output(self, mark: EndMark) -> None:
        """All output has arrived: let the launcher exit."""
        delay = TAKEN_AGAIN_SECONDS  # needed only if the sandbox has no `tail`, with which the launcher finds the mark
        if self._stdin_over:
            delay = 0 if self._came > UNTAKEN else TAKEN_SECONDS
        elif not self._stdin_waits:
            self._socket.send_now(remotecommand.STDIN_PREFIX, mark.mark)
        self._close_stdin()
        if self.pid is not None and not self._stdin_waits:
            self._acknowledging = asyncio.create_task(self._send_acknowledgement(self.pid, delay))

    async def _send_acknowledgement(self, pid: int, delay: float) -> None:
        while self._outcome is None:
            await asyncio.sleep(delay)
            if self._outcome is None:
                await self._context.acknowledge_output(pid)
            delay = TAKEN_AGAIN_SECONDS

    def _resize_to(self, size: TerminalSize) -> None:
        self._size = size
        self._resize()

    def _resize(self) -> None:
        """Send the latest size, unless a write is under way or a size was sent just now.

        The node applies sizes one by one, a few milliseconds each, so it would fall behind a flood of them.
        """
        if self._size is None or self._writing or self._resizing is not None or self._outcome is not None:
            return
        self._send_size()
        self._resizing = asyncio.get_running_loop().call_later(RESIZE_SECONDS, self._resize_again)

    def _resize_again(self) -> None:
        self._resizing = None
        self._resize()

    def _send_size(self) -> None:
        if self._size is not None:
            self._socket.send_now(remotecommand.resize_frame(self._size))
            self._size = None

    def _signal(self, name: str, foreground: bool) -> None:
        if self.pid is not None:
            self._context.signal(self.pid, name, foreground)

    # --- called by the socket ---

    def _received(self, data: bytes, start: int, end: int) -> None:
        if end - start < 2:
            return  # every exec begins with an empty stdout message
        channel = data[start]
        if channel in (STDOUT, STDERR):
            self._begun.set()
            payload = data[start + 1 : end]
            self._flow.put(payload if self._mark is None else self._marked(self._mark, channel, payload), channel)
        elif channel == remotecommand.STATUS:
            self._end(remotecommand.outcome(data[start + 1 : end]))

    def _marked(self, mark: EndMark, channel: int, payload: bytes) -> bytes:
        self._came += len(payload)
        over = mark.complete
        payload = mark.strip(channel, payload)
        if mark.complete and not over:
            self._acknowledge_output(mark)
        self._stop_hold_timer(channel)
        if mark.holds(channel):
            self._hold(mark, channel, once_more=True)
        return payload

    def _hold(self, mark: EndMark, channel: int, once_more: bool) -> None:
        later = asyncio.get_running_loop().call_later
        self._hold_timers[channel] = later(HOLD_SECONDS, self._held, mark, channel, once_more)

    def _held(self, mark: EndMark, channel: int, once_more: bool) -> None:
        # Wait twice in case the event loop was late: data that has arrived is read before the second time. While
        # reading is paused, the rest of a mark may not have been read yet.
        if once_more or self._flow.paused:
            self._hold(mark, channel, once_more=self._flow.paused)
        else:
            self._flow.put(mark.release(channel), channel)

    def _stop_hold_timer(self, channel: int) -> None:
        timer = self._hold_timers.pop(channel, None)
        if timer is not None:
            timer.cancel()

    def _lost(self) -> None:
        self._end(Lost(remotecommand.NO_STATUS))

    def _end(self, outcome: Outcome) -> None:
        if self._outcome is None:
            self._outcome = outcome
            for channel in list(self._hold_timers):
                self._stop_hold_timer(channel)
            for stream, data in self._mark.pending() if self._mark is not None else ():
                self._flow.put(data, stream)
            self._flow.put_eof()
            self._begun.set()
            if self._resizing is not None:
                self._resizing.cancel()
            self._context.ended(self)
            self._socket.close()
