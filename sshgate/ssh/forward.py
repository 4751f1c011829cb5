"""The channel of one forwarded connection: a ``stream.interfaces.Stream`` on top of asyncssh's callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import asyncssh

from sshgate.ssh._asyncssh.channel import wait_writable
from sshgate.ssh._asyncssh.connection import Transport
from sshgate.ssh._asyncssh.forward import AsyncsshForwardChannel
from sshgate.stream.flow import Flow

# Input read ahead of the sandbox, per forwarded connection. There may be hundreds of them.
INPUT_HIGH = 128 * 1024
INPUT_LOW = 32 * 1024


class ForwardChannel(asyncssh.SSHTCPSession[bytes]):
    """A forwarded connection. ``started`` is called once, when the channel is open."""

    def __init__(self, transport: Transport, started: Callable[[ForwardChannel], None] = lambda channel: None) -> None:
        self._transport = transport
        self._started = started
        self._wire: AsyncsshForwardChannel | None = None
        self._input = Flow(INPUT_HIGH, INPUT_LOW, self._pause_input, self._resume_input)
        self._room = asyncio.Event()
        self._room.set()
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ForwardChannel {self._input!r}{' gone' * self._gone.is_set()}>"

    # --- callbacks of asyncssh ---

    def connection_made(self, chan: Any) -> None:
        self._wire = cast(AsyncsshForwardChannel, chan)

    def session_started(self) -> None:
        self._started(self)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._input.put(bytes(data))

    def eof_received(self) -> bool:
        self._input.put_eof()
        # Output goes on: this is a half-close.
        return True

    def close_received(self) -> None:
        """The client reads no more. What it had sent can still be read."""
        self._gone.set()
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire = None
        self._input.put_eof()
        self.close_received()

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

    # --- stream.interfaces.Stream ---

    async def read(self) -> bytes | None:
        chunk = await self._input.get()
        return None if chunk is None else chunk[1]

    async def write(self, data: bytes) -> None:
        if self._wire is not None and not self._gone.is_set():
            began = time.monotonic()
            try:
                self._wire.write(data)
            except BrokenPipeError:
                self.close_received()
            await self._transport.budget.charge_and_wait(time.monotonic() - began)
        await wait_writable(self._gone, self._room, self._transport.writable)

    async def write_eof(self) -> None:
        if self._wire is not None and not self._gone.is_set():
            self._wire.write_eof()

    async def wait_closed(self) -> None:
        await self._gone.wait()

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._gone.set()
        self._room.set()
        # This also resumes paused input: asyncssh does not report the close of a paused channel.
        self._input.discard()
