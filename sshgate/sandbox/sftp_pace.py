"""Slows down an sftp client that does not wait for answers: PuTTY's sends 4 KiB requests while the window is open.

OpenSSH's server reads four such packets for each that it answers, and moves all of its unprocessed input with every
read: with some MiB unanswered it does little else. So a new request is passed on only while few are unanswered, which
also bounds what waits in the sandbox. The bytes are not changed.
"""

from __future__ import annotations

from functools import partial

from sshgate.stream.interfaces import STDOUT, Control, Outcome, Process
from sshgate.stream.tasks import Event, within
from sshgate.stream.turns import budget

# Requests without an answer at most. OpenSSH's client itself has 64 at most.
MOST = 128
# Once input was held, it continues when this many are left, so that one message carries many small packets.
FEW = 64
# Answers that are counted at once. 32 KiB of the smallest are 3,600.
AT_ONCE = 100
# Seconds without an answer after which the count restarts from 0: a request of an unknown type has no answer.
FORGET_SECONDS = 1.0
# Bytes. A shorter or longer packet is not SFTP: from there on everything is passed on without counting.
SHORTEST_PACKET = 5
LONGEST_PACKET = 16 << 20


class Paced:
    """Wraps the ``Process`` of an sftp server and delays requests while too many are unanswered."""

    def __init__(self, process: Process) -> None:
        self.pid = process.pid
        self._process = process
        self._asked = _Packets()
        self._replies = _Packets()
        self._unanswered = 0
        self._room = Event()
        self._budget = budget()
        self._read: tuple[int, bytes] | None = None
        self._counted = 0
        self._more = False

    def __repr__(self) -> str:
        return f"<Paced {self._unanswered} unanswered, {self._process!r}>"

    async def read(self) -> tuple[int, bytes] | None:
        if self._read is None:
            self._read = await self._process.read()
            if self._read is None:
                self._replies.count = False
                self._room.set()
                return None
            self._counted = 0
            # The budget, which costs as much as the counting of one answer, is for those who send many small ones.
            self._more = self._count_some(*self._read)
        if self._more:
            await self._budget.run(iter(partial(self._count_some, *self._read), False))
            self._more = False
        chunk, self._read = self._read, None
        return chunk

    def _count_some(self, stream: int, data: bytes) -> bool:
        """Count some answers. Returns whether there are more."""
        if stream != STDOUT or not self._replies.count:
            return False
        answered, self._counted = self._replies.take(data, self._counted, AT_ONCE)
        self._unanswered = max(0, self._unanswered - answered)
        if self._unanswered <= FEW:
            self._room.set()
        return self._counted < len(data)

    async def write(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            end = len(data)
            if self._asked.count and self._replies.count:
                begun, end = self._asked.take(data, at, MOST - self._unanswered)
                self._unanswered += begun
            if end > at:
                await self._process.write(data[at:end] if end - at < len(data) else data)
                at = end
            else:
                await self._answers()

    async def _answers(self) -> None:
        self._room.clear()
        if self._unanswered > FEW:
            before = self._replies.total
            await within(FORGET_SECONDS, self._room.wait())
            if self._replies.total == before:
                self._unanswered = 0

    async def write_eof(self) -> None:
        await self._process.write_eof()

    async def control(self, control: Control) -> None:
        await self._process.control(control)

    async def wait(self) -> Outcome:
        return await self._process.wait()

    async def close(self) -> None:
        await self._process.close()


class _Packets:
    """Counts packets in bytes that arrive in any pieces. ``count`` is False once the bytes are not SFTP."""

    def __init__(self) -> None:
        self.count = True
        self.total = 0
        self._header = b""
        self._rest = 0

    def take(self, data: bytes, start: int, most: int) -> tuple[int, int]:
        """Read from ``start`` until more than ``most`` packets would begin. Returns how many began, and the place."""
        at, begun, end = start, 0, len(data)
        while at < end:
            if self._rest >= end - at:
                self._rest -= end - at
                at = end
                break
            at += self._rest
            self._rest = 0
            if not self._header and begun >= most:
                break
            header = self._header + data[at : at + 4 - len(self._header)]
            at += len(header) - len(self._header)
            if len(header) < 4:
                self._header = header
                break
            self._rest, self._header = int.from_bytes(header, "big"), b""
            begun += 1
            if not SHORTEST_PACKET <= self._rest <= LONGEST_PACKET:
                self.count = False
                return begun, end
        self.total += begun
        return begun, at
