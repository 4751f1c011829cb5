"""The output of a session: its last bytes, addressed by offset, and the terminal's state before them. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

from sshgate.stream.modes import Modes
from webshim.protocol import RING_BYTES, Snapshot

# After a lost state, output starts at the first line that begins within this many bytes of the ring.
_LONGEST_LINE = 16 * 1024
# Chunks are joined up to this size: a kept chunk of a few bytes would take a hundred times its size in memory.
_SMALL = 4096


@dataclass(frozen=True, slots=True)
class Start:
    """Where a page begins: it restores ``snapshot``, then writes the bytes from ``offset`` on."""

    offset: int
    snapshot: Snapshot | None = None
    """``None``: the page resumes with what its terminal shows already."""
    redraw: bool = False
    """The terminal's state was lost: the program must be made to redraw."""
    screen: bytes = b""
    """Bytes that belong to the snapshot: the page writes them first."""


class Output:
    """A ring buffer of the last output, and the latest snapshot. Offsets count all bytes of output from 0.

    ``limit`` is the size in bytes; the last chunk is always kept whole, even if it is larger. Where a held session was
    joined, the output before is not known here, only perhaps the screen that it led to (``restart``).
    """

    def __init__(self, limit: int = RING_BYTES) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._offsets: deque[int] = deque()
        self._modes = Modes()  # the modes at the start of the ring
        self._latest: Modes | None = None  # those at its end, once they were wanted
        self._snapshot: Snapshot | None = None
        self._base = 0
        self._screen: bytes | None = b""
        self.end = 0
        """The offset of the next byte."""
        self.restarts = 0
        """How often the output was begun anew: what a viewer was sent before does not lead to it."""

    def __repr__(self) -> str:
        snapshot = f", snapshot at {self._snapshot.offset}" if self._snapshot is not None else ""
        return f"<Output {self.start}-{self.end}{snapshot}>"

    @property
    def start(self) -> int:
        """The offset of the oldest byte in the ring."""
        return self._offsets[0] if self._offsets else self.end

    @property
    def snapshot_offset(self) -> int:
        """The offset of the latest snapshot; without one that of the beginning, where the terminal's state is known."""
        return self._snapshot.offset if self._snapshot is not None else self._base

    @property
    def blank(self) -> bool:
        """Whether nothing is known here that an empty terminal could begin with."""
        return self._screen is None and self._snapshot is None

    def resume(self, offset: int) -> None:
        """Begin at an offset whose terminal only the page has."""
        self._begin_anew(offset, None)

    def restart(self, offset: int, screen: bytes, modes: bytes) -> None:
        """Begin anew at an offset, where a terminal shows ``screen``, after which it has these modes."""
        self._begin_anew(offset, screen)
        self._modes.feed(modes)
        self.restarts += 1

    def _begin_anew(self, offset: int, screen: bytes | None) -> None:
        self._chunks.clear()
        self._offsets.clear()
        self._modes = Modes()
        self._latest = None
        self._snapshot = None
        self._base = self.end = offset
        self._screen = screen

    def append(self, data: bytes) -> None:
        """Append output. As few of the oldest chunks as possible are dropped."""
        if not data:
            return
        if self._chunks and len(self._chunks[-1]) + len(data) <= _SMALL:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
            self._offsets.append(self.end)
        self.end += len(data)
        if self._latest is not None:
            self._latest.feed(data)
        while len(self._chunks) > 1 and self.end - self._offsets[0] > self._limit:
            self._offsets.popleft()
            self._modes.feed(self._chunks.popleft())
            if self._screen:
                self._screen = None  # output after it is lost, and it would only take memory

    def read(self, offset: int, most: int) -> bytes:
        """Return at most ``most`` bytes from ``offset`` on; empty at the end.

        Raises ``ValueError`` if ``offset`` is no longer in the ring.
        """
        if offset >= self.end:
            return b""
        index = bisect_right(self._offsets, offset) - 1
        if index < 0:
            raise ValueError(f"{offset} is no longer in {self!r}")
        first = self._chunks[index][offset - self._offsets[index] :]
        if len(first) >= most:
            return first[:most]
        parts, size = [first], len(first)
        for index in range(index + 1, len(self._chunks)):  # noqa: B020  (continues after the first chunk)
            if size + len(self._chunks[index]) > most:
                break
            parts.append(self._chunks[index])
            size += len(self._chunks[index])
        return b"".join(parts) if len(parts) > 1 else first

    def keep(self, snapshot: Snapshot) -> bool:
        """Store a snapshot. Returns false for a useless one: ahead of the output, before the ring, or superseded."""
        if snapshot.offset > self.end or snapshot.offset < max(self.snapshot_offset, self.start):
            return False
        self._snapshot = snapshot
        return True

    def begin(self, offset: int | None, columns: int, rows: int) -> Start:
        """Decide where a page begins.

        In this order: resume at ``offset`` if the ring has it; the latest snapshot; an empty terminal, or the screen of
        the beginning, if the ring has all output since; else a terminal with the right modes, and a redraw by the
        program.

        Args:
            offset: the page's terminal holds the output below it; ``None``: it is empty.
            columns: the width of the page's terminal.
            rows: its height.
        """
        if offset is not None and self.start <= offset <= self.end:
            return Start(offset)
        if self._snapshot is not None and self._snapshot.offset >= self.start:
            return Start(self._snapshot.offset, self._snapshot)
        if self.start == self._base and self._screen is not None:
            return Start(self._base, Snapshot(self._base, columns, rows, ""), screen=self._screen)
        return self._lost(columns, rows)

    def _lost(self, columns: int, rows: int) -> Start:
        modes = self._modes.sequences().decode("ascii")
        offset = self.start
        if self._modes.alternate:
            # The output in the ring updates a screen that is lost, so it is skipped; its modes still count.
            if self._latest is None:
                # Followed from now on: the whole ring takes a tenth of a second, and a page may come again and again.
                self._latest = Modes()
                self._latest.feed(self._modes.sequences())
                for chunk in self._chunks:
                    self._latest.feed(chunk)
            modes, offset = self._latest.sequences().decode("ascii"), self.end
        else:
            head = self.read(offset, _LONGEST_LINE)
            # Start at the beginning of a line, which is not inside an escape sequence or a character.
            offset += head.find(b"\n") + 1
        return Start(offset, Snapshot(offset, columns, rows, modes), redraw=True)
