"""What travels between the two ends of a copy, and its framing. Pure.

A tree is told depth first: ``Enter`` a directory, its contents, ``Leave``. Names are single path components,
so no record can speak of a place outside the directory it was told in. A ``File`` is followed by ``Chunk``
and ``Hole`` records and ends with ``Sum`` (all of it came, with this SHA-256) or ``Broken`` (it did not). A small
file is one record, ``Whole``: with thousands of them it is the records that cost.

Each frame is ``tag, length, CRC-32, payload``; of a ``Chunk``, whose content its file's ``Sum`` proves, the CRC is
that of the length alone: a second sum over every byte would cost as much as the first. Only ``End``, answered by
``Done``, completes a copy: a stream that stops anywhere else was cut.

This module also runs in the sandbox: nothing here needs more than Python 3.8.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Union

_HEAD = struct.Struct(">BII")
# The longest frame, and what fits into it: a large file is cut into frames of exactly this size, which travel in
# messages and pass through buffers of a power of two without a rest.
FRAME = 256 * 1024
CHUNK = FRAME - _HEAD.size
# All but Chunk: a path or two, a sentence.
LARGEST_OTHER = 64 * 1024
# With its name it fits into a frame.
WHOLE_UP_TO = 32 * 1024


class Enter(NamedTuple):
    """A directory begins. ``name`` is ``.`` for the destination itself (a source that ends in ``/.``)."""

    mode: int
    mtime: int  # nanoseconds since 1970
    name: bytes


class Leave(NamedTuple):
    """The last entered directory is complete; only now it gets its mode and time."""


class File(NamedTuple):
    """A regular file begins; its first ``offset`` bytes are already at the receiver's."""

    mode: int
    mtime: int
    size: int
    offset: int
    name: bytes


class Chunk(NamedTuple):
    """The next bytes of the file. A view is good only until the next record is asked for."""

    content: bytes | memoryview


class Hole(NamedTuple):
    """The next ``length`` bytes of the file are a hole: zeros that take no room on the disk."""

    length: int


class Sum(NamedTuple):
    """The file is complete. ``digest``: SHA-256 over its contents (holes: ``hash_hole``), empty if there is none."""

    digest: bytes


class Broken(NamedTuple):
    """The file could not be read to its end; what came of it is worthless."""

    reason: str


class Whole(NamedTuple):
    """A regular file of at most ``WHOLE_UP_TO`` bytes, complete, with its SHA-256."""

    mode: int
    mtime: int
    name: bytes
    content: bytes
    digest: bytes


class Symlink(NamedTuple):
    """A symbolic link; ``target`` is any bytes and is never followed."""

    mtime: int
    name: bytes
    target: bytes


class Hardlink(NamedTuple):
    """Another name of a file of this copy; ``target`` is its path from the destination directory."""

    name: bytes
    target: bytes


class Offer(NamedTuple):
    """Asks, before a large file, what the receiver has of it already. Answered by ``Have``."""

    size: int
    name: bytes


class Have(NamedTuple):
    """The receiver has ``length`` bytes with this SHA-256; ``complete``: under the final name."""

    length: int
    complete: int
    digest: bytes


class Same(NamedTuple):
    """The offered file is already there, byte for byte; only mode and time follow."""

    mode: int
    mtime: int
    name: bytes


class Problem(NamedTuple):
    """Something was not copied. ``path`` is for people, ``reason`` a clause such as ``is a FIFO``."""

    path: bytes
    reason: str


class Totals(NamedTuple):
    """How much there is to come, for a progress bar."""

    files: int
    size: int


class End(NamedTuple):
    """The sender has told everything: so many entries and bytes of content."""

    entries: int
    size: int


class Done(NamedTuple):
    """The receiver's answer to ``End``: what it has put in place, as lasting as its file system can be."""

    entries: int
    size: int


Record = Union[  # noqa: UP007 - Python 3.8 in a sandbox cannot evaluate X | Y
    Enter, Leave, File, Chunk, Hole, Sum, Broken, Symlink, Hardlink, Offer, Have, Same, Problem, Totals, End, Done,
    Whole,
]  # fmt: skip


class ProtocolError(Exception):
    """The other end does not speak as agreed; nothing it says can be used. The text is a clause."""


_KINDS: tuple[Any, ...] = (
    Enter, Leave, File, Chunk, Hole, Sum, Broken, Symlink, Hardlink, Offer, Have, Same, Problem, Totals, End, Done,
    Whole,
)  # fmt: skip
_TAGS = {kind: tag for tag, kind in enumerate(_KINDS)}
_CHUNK_TAG = _TAGS[Chunk]


class _Layout:
    """How the fields of one kind are laid out: all integers, the length of each string, the strings."""

    def __init__(self, kind: Any) -> None:
        types = kind.__annotations__
        names = kind._fields
        self.numbers = [i for i, name in enumerate(names) if types[name] in ("int", int)]
        self.strings = [i for i, name in enumerate(names) if i not in self.numbers]
        self.texts = {i for i in self.strings if types[names[i]] in ("str", str)}
        self.fixed = struct.Struct(">" + "q" * len(self.numbers) + "I" * len(self.strings))

    def pack(self, record: Any) -> bytes:
        strings = [_encoded(record[i]) for i in self.strings]
        return self.fixed.pack(*[record[i] for i in self.numbers], *map(len, strings)) + b"".join(strings)

    def unpack(self, payload: bytes) -> list[Any]:
        fixed = self.fixed.unpack_from(payload)
        fields: list[Any] = [None] * (len(self.numbers) + len(self.strings))
        for place, number in enumerate(self.numbers):
            fields[number] = fixed[place]
        at = self.fixed.size
        for place, string in enumerate(self.strings):
            end = at + fixed[len(self.numbers) + place]
            piece = payload[at:end]
            fields[string] = piece.decode("utf-8", "surrogateescape") if string in self.texts else piece
            at = end
        if at != len(payload):
            raise ProtocolError("a record has a wrong length")
        return fields


def _encoded(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def _deferred(kind: Any) -> Any:
    # Python 3.8-3.13 keep the annotations of a NamedTuple as forward references or strings.
    kind.__annotations__ = {
        name: getattr(note, "__forward_arg__", note) for name, note in dict(kind.__annotations__).items()
    }
    return kind


_LAYOUTS = [_Layout(_deferred(kind)) for kind in _KINDS]


def _checksum(tag: int, payload: bytes | memoryview) -> int:
    return zlib.crc32(b"%d" % len(payload) if tag == _CHUNK_TAG else payload)


def encode(record: Record) -> bytes:
    """One frame."""
    tag = _TAGS[type(record)]
    payload = record.content if isinstance(record, Chunk) else _LAYOUTS[tag].pack(record)
    return _HEAD.pack(tag, len(payload), _checksum(tag, payload)) + payload


class Decoder:
    """Turns bytes, cut anywhere, back into records. Holds one frame at most.

    The content of a ``Chunk`` is a view of the buffer that the next bytes go into: it is released, so that any use
    of it is an error, as soon as the next record is asked for.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(FRAME))
        self._start = self._end = 0

    def __repr__(self) -> str:
        return f"<Decoder {self._end - self._start} bytes waiting>"

    def room(self) -> memoryview:
        """Where the next bytes are to be put, never empty: say ``filled`` afterwards.

        All the frames that are complete must have been taken.
        """
        held = self._end - self._start
        if self._start:
            self._buffer[:held] = self._buffer[self._start : self._end]
            self._start, self._end = 0, held
        return self._buffer[held:]

    def filled(self, size: int) -> Iterator[Record]:
        """The records that are complete with ``size`` bytes more.

        Raises ``Garbled``; nothing after that is to be believed.
        """
        self._end += size
        while self._end - self._start >= _HEAD.size:
            tag, length, crc = _HEAD.unpack_from(self._buffer, self._start)
            if tag >= len(_KINDS) or length > (CHUNK if tag == _CHUNK_TAG else LARGEST_OTHER):
                raise ProtocolError("it sent something that is not part of a copy")
            start = self._start + _HEAD.size
            if start + length > self._end:
                return
            self._start = start + length
            with self._buffer[start : self._start] as payload:
                if _checksum(tag, payload) != crc:
                    raise ProtocolError("a checksum does not match")
                yield Chunk(payload) if tag == _CHUNK_TAG else self._record(tag, bytes(payload))

    def feed(self, data: bytes) -> Iterator[Record]:
        """``filled``, with bytes from elsewhere."""
        rest = memoryview(data)
        while rest:
            room = self.room()
            piece, rest = rest[: len(room)], rest[len(room) :]
            room[: len(piece)] = piece
            yield from self.filled(len(piece))

    @staticmethod
    def _record(tag: int, payload: bytes) -> Record:
        try:
            record: Record = _KINDS[tag](*_LAYOUTS[tag].unpack(payload))
        except struct.error as error:
            raise ProtocolError("a record has a wrong length") from error
        return record


def hash_hole(digest: hashlib._Hash, length: int) -> None:
    """A hole counts by its length, not as zeros: a lie about it must not cost hours."""
    digest.update(b"hole %d" % length)
