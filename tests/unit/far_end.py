"""The far end of a connection, played by a test."""

from __future__ import annotations

import asyncio

from sshgate.stream.flow import Flow


class FarEnd:
    """A ``PromptStream``. What is written waits for ``room``; when ``slow`` for each piece anew."""

    def __init__(self) -> None:
        self.says = Flow(1 << 20, 0)
        self.written = bytearray()
        self.waits = 0
        """Pieces for which a task was needed."""
        self.room = asyncio.Event()
        self.slow = False
        self.gone = asyncio.Event()
        self.eof = False
        self.closed = False

    async def read(self) -> bytes | None:
        chunk = await self.says.get()
        return None if chunk is None else chunk[1]

    async def write(self, data: bytes) -> None:
        self.waits += 1
        await self.room.wait()
        if self.slow:
            self.room.clear()
        self.written += data

    def write_now(self, data: bytes) -> bool:
        if self.room.is_set():
            self.written += data
        return self.room.is_set()

    async def write_eof(self) -> None:
        self.eof = True

    async def wait_closed(self) -> None:
        await self.gone.wait()

    def close(self) -> None:
        self.closed = True

    def leave(self) -> None:
        """Close, after everything in ``says``."""
        self.says.put_eof()
        self.gone.set()
