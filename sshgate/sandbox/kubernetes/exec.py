"""A program in a pod, over one remotecommand websocket: a ``Process``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import aiohttp

from sshgate.flow import Flow
from sshgate.sandbox.kubernetes import remotecommand
from sshgate.streams import CHUNK, STDERR, STDOUT, Break, Control, Lost, Outcome, Resize, Signal
from sshgate.terminal import TerminalSize

# Output waiting for the client; aiohttp holds up to 512 KiB more before it stops reading the socket.
HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024

END_OF_TRANSMISSION = b"\x04"

SendSignal = Callable[[int, str, bool], Awaitable[None]]
"""Sends a signal to the process group of a pid, or to its terminal's foreground group."""


class ExecProcess:
    """The process at the other end of ``socket``. Its reader task lives until ``close`` or the socket's end.

    v4 of the subprotocol cannot end stdin alone: ``write_eof`` without a terminal is then of no effect, and a
    program that waits for the end of its input waits until it is closed.
    """

    pid: int | None = None

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        terminal: bool,
        send_signal: SendSignal,
        ended: Callable[[ExecProcess], None] = lambda process: None,
    ) -> None:
        self._socket = socket
        self._terminal = terminal
        self._half_close = socket.protocol == remotecommand.V5
        self._send_signal = send_signal
        self._told_ended = ended
        self._flow = Flow(HIGH_WATER, LOW_WATER, resume=self._resume)
        self._resumed = asyncio.Event()
        self._outcome: Outcome | None = None
        self._line_open = False
        self._writing = False
        self._size: TerminalSize | None = None
        self._signals: set[asyncio.Task[None]] = set()
        self._begun = asyncio.Event()
        # Set when all output was read, or when nobody will read any more.
        self._finished = asyncio.Event()
        self._reader = asyncio.create_task(self._receive())

    def __repr__(self) -> str:
        kind = "terminal" if self._terminal else "pipes"
        return f"<ExecProcess {self.pid} {kind} {self._flow!r} {self._outcome or 'running'}>"

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, as soon as that is known, before the output was read."""
        return self._outcome

    async def begun(self, seconds: float) -> bool:
        """Whether it has said something, or ended, within ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()
        return self._begun.is_set()

    async def read(self) -> tuple[int, bytes] | None:
        chunk = await self._flow.get()
        if chunk is None:
            self._finished.set()
        return chunk

    async def write(self, data: bytes) -> None:
        if self._outcome is not None or not data:
            return
        self._line_open = data[-1:] != b"\n"
        self._writing = True
        try:
            if len(data) < CHUNK:
                await self._send(remotecommand.STDIN_PREFIX + data)
                return
            for start in range(0, len(data), CHUNK - 1):
                await self._send(remotecommand.STDIN_PREFIX + data[start : start + CHUNK - 1])
        finally:
            self._writing = False
            if self._size is not None:
                await self._resize()

    async def write_eof(self) -> None:
        if self._terminal:
            # The v5 CLOSE would cut off all output still to come. A ^D after half a line only flushes it.
            await self.write(END_OF_TRANSMISSION * (2 if self._line_open else 1))
        elif self._half_close and self._outcome is None:
            await self._send(remotecommand.STDIN_CLOSE)

    async def control(self, control: Control) -> None:
        if self._outcome is not None:
            return
        match control:
            case Resize(size):
                self._size = size
                if self._terminal and not self._writing:
                    await self._resize()
            case Signal(name):
                self._signal(name, foreground=False)
            case Break():
                self._signal("INT", foreground=self._terminal)

    async def wait(self) -> Outcome:
        await self._finished.wait()
        assert self._outcome is not None
        return self._outcome

    async def close(self) -> None:
        self.lose("the session was closed.")
        self._flow.discard()
        self._finished.set()
        for task in self._signals:
            task.cancel()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._reader, *self._signals, return_exceptions=True)

    def lose(self, reason: str) -> None:
        """End it from this side: nobody will know how it ended. Nothing happens when it has ended already."""
        self._end(Lost(reason))
        self._reader.cancel()

    # --- stdin and controls ---

    async def _send(self, frame: bytes) -> None:
        try:
            await self._socket.send_bytes(frame)
        except (aiohttp.ClientError, OSError):
            pass  # the reader learns of the end by itself; what is written to an ended program is discarded

    async def _resize(self) -> None:
        size, self._size = self._size, None
        if size is not None:
            await self._send(remotecommand.resize_frame(size))

    def _signal(self, name: str, foreground: bool) -> None:
        if self.pid is None:
            return
        task = asyncio.ensure_future(self._send_signal(self.pid, name, foreground))
        self._signals.add(task)
        task.add_done_callback(self._signals.discard)

    # --- output ---

    async def _receive(self) -> None:
        receive, put, begun = self._socket.receive, self._flow.put, self._begun.set
        try:
            while self._outcome is None:
                message = await receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    break
                data = message.data
                channel = data[0] if data else remotecommand.CLOSE
                if channel in (STDOUT, STDERR):
                    put(data[1:], channel)
                    if len(data) > 1:
                        begun()
                    if self._flow.paused:
                        await self._resumed.wait()
                elif channel == remotecommand.STATUS:
                    self._end(remotecommand.outcome(data[1:]))
        finally:
            self._end(Lost(remotecommand.NO_STATUS))
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._socket.close()

    def _resume(self) -> None:
        self._resumed.set()
        self._resumed.clear()

    def _end(self, outcome: Outcome) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._flow.put_eof()
            self._begun.set()
            self._told_ended(self)
            self._told_ended(self)
