"""The output of a session as offsets count it: the end of it is kept, the state before that is known. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

from webshim.modes import Modes
from webshim.protocol import RING_BYTES, Snapshot

# How far from the beginning of the ring a line may begin for the rest to be shown.
_LONGEST_LINE = 16 * 1024
# Chunks up to here are joined: a keystroke's echo should not cost a hundred times its size for as long as it is kept.
_SMALL = 4096


@dataclass(frozen=True, slots=True)
class Start:
    """How a page begins: with ``snapshot`` (``None``: it resumes), then with the bytes from ``offset`` on.

    ``redraw``: the state was lost; the program has to be asked to draw itself again.
    """

    offset: int
    snapshot: Snapshot | None = None
    redraw: bool = False


class Output:
    """A ring of the last output with the offsets of its bytes, and the latest snapshot."""

    def __init__(self, limit: int = RING_BYTES) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._offsets: deque[int] = deque()
        self._modes = Modes()  # as they are where the ring begins
        self._snapshot: Snapshot | None = None
        self.end = 0
        """The offset of the next byte."""

    def __repr__(self) -> str:
        snapshot = f", snapshot at {self._snapshot.offset}" if self._snapshot is not None else ""
        return f"<Output {self.start}-{self.end}{snapshot}>"

    @property
    def start(self) -> int:
        """The offset of the oldest byte that is kept."""
        return self._offsets[0] if self._offsets else self.end

    @property
    def snapshot_offset(self) -> int:
        """Where the latest snapshot was taken; 0 without one: an empty terminal is the state there."""
        return self._snapshot.offset if self._snapshot is not None else 0

    def append(self, data: bytes) -> None:
        """More output. Whole chunks are forgotten at the other end, as few as will do."""
        if not data:
            return
        if self._chunks and len(self._chunks[-1]) + len(data) <= _SMALL:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
            self._offsets.append(self.end)
        self.end += len(data)
        while len(self._chunks) > 1 and self.end - self._offsets[0] > self._limit:
            self._offsets.popleft()
            self._modes.feed(self._chunks.popleft())

    def read(self, offset: int, most: int) -> bytes:
        """Bytes from ``offset`` on, at most so many; empty at the end. ``offset`` must be in the ring."""
        if offset >= self.end:
            return b""
        index = bisect_right(self._offsets, offset) - 1
        if index < 0:
            raise ValueError(f"{offset} is no longer in {self!r}")
        first = self._chunks[index][offset - self._offsets[index] :]
        if len(first) >= most:
            return first[:most]
        parts, size = [first], len(first)
        for index in range(index + 1, len(self._chunks)):  # noqa: B020  (goes on from where it was found)
            if size + len(self._chunks[index]) > most:
                break
            parts.append(self._chunks[index])
            size += len(self._chunks[index])
        return b"".join(parts) if len(parts) > 1 else first

    def keep(self, snapshot: Snapshot) -> bool:
        """Remember a snapshot; false where it is of no use: of the future, or older than what there is."""
        if snapshot.offset > self.end or snapshot.offset < max(self.snapshot_offset, self.start):
            return False
        self._snapshot = snapshot
        return True

    def begin(self, offset: int | None, columns: int, rows: int) -> Start:
        """Where a page begins whose terminal holds the output below ``offset`` (``None``: it is empty)."""
        if offset is not None and self.start <= offset <= self.end:
            return Start(offset)
        if self._snapshot is not None and self._snapshot.offset >= self.start:
            return Start(self._snapshot.offset, self._snapshot)
        if self.start == 0:
            return Start(0, Snapshot(0, columns, rows, ""))
        return self._lost(columns, rows)

    def _lost(self, columns: int, rows: int) -> Start:
        modes = self._modes.sequences().decode("ascii")
        offset = self.start
        if self._modes.alternate:
            # What is in the ring changes a screen that nobody has any more; its modes still count.
            latest = Modes()
            latest.feed(self._modes.sequences())
            for chunk in self._chunks:
                latest.feed(chunk)
            modes, offset = latest.sequences().decode("ascii"), self.end
        else:
            head = self.read(offset, _LONGEST_LINE)
            # A line's beginning is no place in the middle of a sequence or of a character.
            offset += head.find(b"\n") + 1
        return Start(offset, Snapshot(offset, columns, rows, modes), redraw=True)
