"""Copies if the sandbox has neither Python nor tar: by plain ``sh`` and a few small programs.

Slower, as it handles one entry at a time. Into the sandbox holes are filled with zeros, out of it hard links become
copies.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator

from sshgate.transfer import remote_script
from sshgate.transfer.destination import WriteOptions
from sshgate.transfer.display import Display
from sshgate.transfer.partial_file import display_path
from sshgate.transfer.receiver import Receiver
from sshgate.transfer.records import (
    CHUNK,
    Broken,
    Chunk,
    End,
    Enter,
    File,
    Hardlink,
    Hole,
    Leave,
    Problem,
    ProtocolError,
    Record,
    Sum,
    Symlink,
)
from sshgate.transfer.remote_shell import RemoteFailure, RemoteShell, words
from sshgate.transfer.sender import ReadOptions, landing_name, walk

NEEDED_TO_SEND = frozenset(("sha256sum", "dd", "mv", "mkdir", "chmod"))
NEEDED_TO_FETCH = frozenset(("sha256sum", "head"))
_LONGEST_LINE = 200
_LONGEST_NAME = 8192
_ZEROS = bytes(CHUNK)
_SECOND = 1_000_000_000


# --- into the sandbox ---


async def send(shell: RemoteShell, sources: list[bytes], destination: bytes, display: Display, totals: bool) -> None:
    """Copy ``sources`` into the sandbox. ``totals``: count them first. Raises ``FarFailure`` or ``ProtocolError``."""
    await shell.write(remote_script.functions() + remote_script.begin(sources, destination, os.urandom(8).hex()))
    await shell.programs()
    await shell.write(b'while IFS= read -r l;do eval "$(printf %b "$l")";done;exit 1')
    answer = asyncio.create_task(remote_script.verdict(shell, display))
    sending = asyncio.create_task(_sending(shell, sources, display, totals))
    try:
        await asyncio.wait({answer, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            await sending
        display.entries = await answer
        end = await sending
        display.size = end.size
        if display.failed == 0 and display.entries != end.entries:
            raise ProtocolError("it has put in place something else than was sent")
    finally:
        for task in (answer, sending):
            task.cancel()
        await asyncio.gather(answer, sending, return_exceptions=True)


async def _sending(shell: RemoteShell, sources: list[bytes], display: Display, totals: bool) -> End:
    telling = _RecordWriter(shell)
    for record in walk(sources, ReadOptions(totals=totals)):
        if isinstance(record, Problem):
            display.fail(*record)
            continue
        if isinstance(record, Broken):
            display.fail(telling.file.name, record.reason)
        display.show(record)
        await telling.write(record)
        if isinstance(record, End):
            return record
    raise AssertionError("every walk ends with End")


class _RecordWriter:
    """Sends records as calls of the functions at the far end."""

    def __init__(self, shell: RemoteShell) -> None:
        self.file = File(0, 0, 0, 0, b"")
        self._shell = shell
        self._trail: list[Enter] = []
        self._sent = 0
        self._digest = hashlib.sha256()

    async def write(self, record: Record) -> None:
        say = self._shell.write
        if not self._trail and isinstance(record, (Enter, File, Symlink, Hardlink)):
            await say(b"top=" + words(record.name))
        if isinstance(record, Chunk):
            await self._content(record.content)
        elif isinstance(record, Hole):
            await self._zeros(record.length)
        elif isinstance(record, File):
            self.file, self._sent, self._digest = record, 0, hashlib.sha256()
            await say(b"receive %d" % record.size)
        elif isinstance(record, Sum):
            numbers = (_mode(self.file.mode), _time(self.file.mtime), self._digest.hexdigest().encode())
            await say(words(b"finish", *numbers) + b" " + self._name(self.file.name))
        elif isinstance(record, Broken):
            await self._zeros(self.file.size - self._sent)
            await say(b"broken")
        elif isinstance(record, Enter):
            if record.name != b".":
                await say(b"enter " + self._name(record.name))
            self._trail.append(record)
        elif isinstance(record, Leave):
            entered = self._trail.pop()
            if entered.name == b".":
                await say(b"count=$((count+1))")
            else:
                await say(words(b"leave", _mode(entered.mode), _time(entered.mtime)))
        elif isinstance(record, Symlink):
            await say(words(b"symlink", _time(record.mtime), record.target) + b" " + self._name(record.name))
        elif isinstance(record, Hardlink):
            up = b"../" * sum(entry.name != b"." for entry in self._trail)
            await say(words(b"hardlink", up, record.target.removeprefix(b"./")) + b" " + self._name(record.name))
        elif isinstance(record, End):
            await say(b"end")

    def _name(self, name: bytes) -> bytes:
        """Return the name as a shell word. A single source may be renamed by the destination."""
        return words(name) if self._trail else b'"${renamed:-"$top"}"'

    async def _content(self, content: bytes | memoryview) -> None:
        self._digest.update(content)
        self._sent += len(content)
        await self._shell.process.write(bytes(content))

    async def _zeros(self, length: int) -> None:
        while length:
            step = min(length, CHUNK)
            await self._content(_ZEROS[:step])
            length -= step


def _mode(mode: int) -> bytes:
    return b"%04o" % mode


def _time(mtime: int) -> bytes:
    seconds, fraction = divmod(mtime, _SECOND)
    return b"%d.%09d" % (seconds, fraction) if fraction else b"%d" % seconds


# --- out of the sandbox ---


async def fetch(shell: RemoteShell, sources: list[bytes], writing: WriteOptions, display: Display) -> None:
    """Copy ``sources`` out of the sandbox. Raises ``FarFailure``, ``ProtocolError`` or ``Stopped``."""
    await shell.write(remote_script.functions())
    await shell.programs()
    landing = Receiver(writing, display.fail, lambda: os.urandom(8).hex())
    try:
        for source in sources:
            await fetch_one(shell, source, landing, display)
        landing.take(End(landing.entries, landing.size))
    finally:
        landing.close()


async def fetch_one(shell: RemoteShell, source: bytes, landing: Receiver, display: Display) -> None:
    """Copy one source out of the sandbox, in which ``functions`` are defined already. Raises as ``fetch``."""
    head, name = remote_script.parted(source)
    await shell.write(b"(tree %s %s)" % (head, name))
    async for record in records(Input(shell), landing_name(source)):
        if isinstance(record, Problem):
            display.fail(*record)
            continue
        display.show(record)
        landing.take(record)
        display.entries, display.size = landing.entries, landing.size
    await shell.programs()


async def records(source: Input, top: bytes) -> AsyncIterator[Record]:
    """Read one tree, whose first entry gets the name ``top``. Raises ``FarFailure`` or ``ProtocolError``."""
    trail: list[bytes] = []
    while True:
        kind, *numbers = await source.line()
        if kind == b"Z":
            source.done()
            return
        if kind == b"U":
            if not trail:
                raise ProtocolError("its records are in a wrong order")
            trail.pop()
            yield Leave()
            continue
        texts = [await source.exactly(number, _LONGEST_NAME) for number in numbers[_NUMBERS[kind] :]]
        if kind == b"X":
            yield Problem(b"/".join([*trail, texts[1]]), texts[0].decode("utf-8", "replace"))
            continue
        name = texts[0] if trail else top
        if kind == b"L":
            yield Symlink(numbers[0] * _SECOND, name, texts[1])
        elif kind == b"E":
            trail.append(name)
            yield Enter(int(str(numbers[0]), 8), numbers[1] * _SECOND, name)
        else:
            async for record in _file(source, File(int(str(numbers[0]), 8), numbers[1] * _SECOND, numbers[2], 0, name)):
                yield record


_LINE = re.compile(rb"[UZ]|L( \d{1,12}){3}|E [0-7]{1,7}( \d{1,12}){2}|F [0-7]{1,7}( \d{1,15}){3}|X( \d{1,5}){2}")
# How many fields of each kind are numbers. The rest are the lengths of strings that follow the line.
_NUMBERS = {b"L": 1, b"E": 2, b"F": 3, b"X": 0}


async def _file(source: Input, file: File) -> AsyncIterator[Record]:
    yield file
    left = file.size
    digest = hashlib.sha256()
    while left:
        content = await source.some(min(left, CHUNK))
        digest.update(content)
        left -= len(content)
        yield Hole(len(content)) if content == _ZEROS[: len(content)] else Chunk(content)
    checksum = await source.raw_line()
    yield Sum(b"") if checksum == digest.hexdigest().encode() else Broken("changed while it was read")


class Input:
    """Buffered input from the far end: lines and counted bytes. Its methods raise ``ProtocolError`` at EOF."""

    def __init__(self, shell: RemoteShell) -> None:
        self._shell = shell
        self._buffer = bytearray()

    def done(self) -> None:
        """Return the data that was read too far to the ``RemoteShell``."""
        self._shell.unread(bytes(self._buffer))
        self._buffer.clear()

    async def line(self) -> tuple[bytes, *tuple[int, ...]]:
        """Read a line: a kind and its numbers. Raises ``FarFailure`` if the far end has stopped the copy."""
        text = await self.raw_line()
        if text[:1] == b"S":
            raise RemoteFailure(f"in the sandbox: {display_path(text[1:].rstrip(bytes(1)))}")
        if not _LINE.fullmatch(text):
            raise ProtocolError("it sent something that is not part of a copy")
        kind, *numbers = text.split()
        return (kind, *map(int, numbers))

    async def raw_line(self) -> bytes:
        """Read up to a newline or NUL, which is not returned."""
        while (end := re.search(rb"[\n\0]", self._buffer)) is None:
            if len(self._buffer) > _LONGEST_LINE * 10:
                raise ProtocolError("it sent something that is not part of a copy")
            await self._more()
        line = bytes(self._buffer[: end.start()])
        del self._buffer[: end.end()]
        return line

    async def exactly(self, size: int, limit: int) -> bytes:
        """Read ``size`` bytes. Raises ``ProtocolError`` if they are more than ``limit``."""
        if size > limit:
            raise ProtocolError("it sent a name that is too long")
        while len(self._buffer) < size:
            await self._more()
        return self._taken(size)

    async def some(self, limit: int) -> bytes:
        """Read at least one byte and at most ``limit``."""
        if not self._buffer:
            await self._more()
        return self._taken(limit)

    def _taken(self, size: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken

    async def _more(self) -> None:
        data = await self._shell.read()
        if data is None:
            raise ProtocolError("it ended in the middle of the copy")
        self._buffer += data
