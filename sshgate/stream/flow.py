"""A bounded queue between a source that can be paused and one reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sshgate.stream.interfaces import CHUNK

# Queued chunks are joined up to this size. Each chunk costs about 60 bytes besides its data, and many small objects
# fragment the allocator's heap.
COALESCE_LIMIT = 4096
# Chunks that may wait, whatever their size: two streams that take turns byte by byte are never joined. Half as many
# are left when the source goes on.
MOST_CHUNKS = 1024


class Flow:
    """A queue of ``(stream, bytes)`` chunks with a high and a low water mark.

    The source calls ``put`` and ``put_eof`` from callbacks; one task calls ``get``. The queue may exceed ``high`` by
    one chunk of the source.

    Args:
        high: Above this many queued bytes, ``pause`` is called.
        low: At or below this many queued bytes, a paused source is resumed with ``resume``.
        most: ``get`` joins neighbouring chunks up to this many bytes. A larger chunk is returned whole.
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
        # A deque would be 600 bytes larger, and it never holds many.
        self._chunks: list[tuple[int, bytes]] = []
        self.ended = False
        """Whether the end was put in. Chunks may still be queued."""
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = " paused" if self.paused else ""
        return f"<Flow {self.size}/{self.high} bytes{state}{' eof' if self.ended else ''}>"

    def put(self, data: bytes, stream: int = 0) -> None:
        """Queue a chunk. Empty chunks, and all chunks after the end, are dropped."""
        if not data or self.ended:
            return
        last = self._chunks[-1] if self._chunks else None
        if last is not None and last[0] == stream and len(last[1]) + len(data) <= COALESCE_LIMIT:
            self._chunks[-1] = (stream, last[1] + data)
        else:
            self._chunks.append((stream, data))
        self.size += len(data)
        if not self.paused and (self.size > self.high or len(self._chunks) > MOST_CHUNKS):
            self.paused = True
            self._pause()
        self._wake()

    def put_eof(self) -> None:
        """Mark the end: the source will put nothing more."""
        self.ended = True
        self._wake()

    def discard(self) -> None:
        """Drop what is queued, mark the end, and resume the source if it is paused."""
        self.ended = True
        self.drop()
        self._wake()

    def drop(self) -> None:
        """Drop what is queued, and resume the source if it is paused."""
        self._chunks.clear()
        self.size = 0
        self._relieve()

    async def get(self) -> tuple[int, bytes] | None:
        """Return the next bytes of one stream, with neighbouring chunks joined up to ``most``; ``None`` after the end.

        Waits until there are some. Cancellation loses nothing.
        """
        while not self._chunks:
            if self.ended:
                return None
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # after a cancellation the next reader may wait already
                    self._waiter = None
        taken = self._take()
        self._relieve()
        return taken

    def _take(self) -> tuple[int, bytes]:
        chunks = self._chunks
        stream, data = chunks.pop(0)
        if not chunks or chunks[0][0] != stream or len(data) + len(chunks[0][1]) > self.most:
            self.size -= len(data)
            return stream, data
        parts = [data]
        total = len(data)
        while chunks and chunks[0][0] == stream and total + len(chunks[0][1]) <= self.most:
            data = chunks.pop(0)[1]
            parts.append(data)
            total += len(data)
        self.size -= total
        return stream, b"".join(parts)

    def _relieve(self) -> None:
        if self.paused and self.size <= self.low and len(self._chunks) <= MOST_CHUNKS // 2:
            self.paused = False
            self._resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
