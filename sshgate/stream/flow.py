"""Bounded queues between a source that can be paused and one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sshgate.stream.interfaces import CHUNK

# Chunks that wait are joined up to this size: one of a byte costs some sixty, and what is kept for each holds gaps
# open in the allocator's heap.
JOINED = 4096


class Flow:
    """A queue of ``(stream, bytes)`` chunks with a high and a low water mark.

    The source calls ``put`` and ``put_eof`` from callbacks; one task calls ``get``. Above ``high`` bytes
    the source is paused, at ``low`` it is resumed. The bound is soft by one chunk of the source. What waits is joined
    up to ``most`` bytes, a larger chunk stays whole.
    """

    def __init__(
        self,
        high: int,
        low: int,
        pause: Callable[[], None] = lambda: None,
        resume: Callable[[], None] = lambda: None,
        most: int = CHUNK,
    ) -> None:
        self.high = high
        self.low = low
        self.most = most
        self.size = 0
        self.paused = False
        self._pause = pause
        self._resume = resume
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._eof = False
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = " paused" if self.paused else ""
        return f"<Flow {self.size}/{self.high} bytes{state}{' eof' if self._eof else ''}>"

    @property
    def ended(self) -> bool:
        """True once the source said it has no more; queued chunks may still wait."""
        return self._eof

    def put(self, data: bytes, stream: int = 0) -> None:
        """Queue a chunk. Empty chunks and whatever comes after the end are dropped."""
        if not data or self._eof:
            return
        last = self._chunks[-1] if self._chunks else None
        if last is not None and last[0] == stream and len(last[1]) + len(data) <= JOINED:
            self._chunks[-1] = (stream, last[1] + data)
        else:
            self._chunks.append((stream, data))
        self.size += len(data)
        if self.size > self.high and not self.paused:
            self.paused = True
            self._pause()
        self._wake()

    def put_eof(self) -> None:
        """No more will come."""
        self._eof = True
        self._wake()

    def discard(self) -> None:
        """Drop what is queued, end the flow and let the source run dry."""
        self._chunks.clear()
        self.size = 0
        self._eof = True
        self._relieve()
        self._wake()

    async def get(self) -> tuple[int, bytes] | None:
        """The next bytes of one stream, neighbours joined up to ``most``; ``None`` after the end."""
        while not self._chunks:
            if self._eof:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        taken = self._take()
        self._relieve()
        return taken

    def _take(self) -> tuple[int, bytes]:
        chunks = self._chunks
        stream, data = chunks.popleft()
        if not chunks or chunks[0][0] != stream or len(data) + len(chunks[0][1]) > self.most:
            self.size -= len(data)
            return stream, data
        parts = [data]
        total = len(data)
        while chunks and chunks[0][0] == stream and total + len(chunks[0][1]) <= self.most:
            data = chunks.popleft()[1]
            parts.append(data)
            total += len(data)
        self.size -= total
        return stream, b"".join(parts)

    def _relieve(self) -> None:
        if self.paused and self.size <= self.low:
            self.paused = False
            self._resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
