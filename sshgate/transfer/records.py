"""The records that the two ends of a copy exchange, and their framing. Pure. Also runs in the sandbox (Python 3.8).

A tree is sent depth first: ``Enter`` a directory, its contents, ``Leave``. Names are single path components, so no
record can refer to a place outside of the current directory. A ``File`` is followed by ``Chunk`` and ``Hole`` records
and ends with ``Sum`` (complete, with this SHA-256) or ``Broken``. A small file is one record, ``Whole``, because
the cost of thousands of small files is that of their records.

A frame is ``tag, length, CRC-32, payload``. The CRC of a ``Chunk`` covers only its length: its file's ``Sum`` verifies
the content, and a second checksum over all bytes would double the cost. Only ``End``, answered by ``Done``, completes
a copy: a stream that stops anywhere else was cut.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Union, get_args

_HEAD = struct.Struct(">BII")
# The longest frame, and the content that fits into it. A large file is sent in frames of exactly this size, a power of
# two, which fill messages and buffers without a remainder.
FRAME = 256 * 1024
CHUNK = FRAME - _HEAD.size
# The longest payload of any record but Chunk: one or two paths, or a sentence.
LARGEST_OTHER = 64 * 1024
# The longest target of a hard link, and path in a message.
LONGEST_TARGET = 32 * 1024
# The largest file that is sent as one record. Its payload with the name is at most LARGEST_OTHER.
WHOLE_UP_TO = 32 * 1024


class Enter(NamedTuple):
    """Start of a directory. ``name`` is ``.`` for the destination itself (a source that ends in ``/.``)."""

    mode: int
    mtime: int  # nanoseconds since 1970
    name: bytes


class Leave(NamedTuple):
    """End of the current directory. Its mode and time are set now, after its contents."""


class File(NamedTuple):
    """Start of a regular file. The receiver already has its first ``offset`` bytes."""

    mode: int
    mtime: int
    size: int
    offset: int
    name: bytes


class Chunk(NamedTuple):
    """The next bytes of the file. A view is valid only until the next record is requested."""

    content: bytes | memoryview


class Hole(NamedTuple):
    """The next ``length`` bytes of the file are a hole: zeros that take no space on the disk."""

    length: int


class Sum(NamedTuple):
    """End of a complete file. ``digest``: SHA-256 of its content (holes: ``hash_hole``); empty: not known."""

    digest: bytes


class Broken(NamedTuple):
    """The file could not be read to its end. What was sent of it is discarded."""

    reason: str


class Whole(NamedTuple):
    """A regular file of at most ``WHOLE_UP_TO`` bytes, complete, with its SHA-256."""

    mode: int
    mtime: int
    name: bytes
    content: bytes
    digest: bytes


class Symlink(NamedTuple):
    """A symbolic link. ``target`` may be any bytes and is never followed."""

    mtime: int
    name: bytes
    target: bytes


class Hardlink(NamedTuple):
    """Another name of a file of this copy. ``target`` is that file's path from the destination directory."""

    name: bytes
    target: bytes


class Offer(NamedTuple):
    """Asks what the receiver already has of a large file, before it is sent. Answered by ``Have``."""

    size: int
    name: bytes


class Have(NamedTuple):
    """The receiver has ``length`` bytes with this SHA-256. ``complete``: 1 if under the final name, else 0."""

    length: int
    complete: int
    digest: bytes


class Same(NamedTuple):
    """The receiver has the offered file already. Only its mode and time are to be set."""

    mode: int
    mtime: int
    name: bytes


class Problem(NamedTuple):
    """An entry was not copied. ``path`` is for messages, ``reason`` is a clause such as ``is a FIFO``."""

    path: bytes
    reason: str


class Totals(NamedTuple):
    """How much will be sent, for a progress bar."""

    files: int
    size: int


class End(NamedTuple):
    """The sender has sent everything: the number of entries and of bytes of content."""

    entries: int
    size: int


class Done(NamedTuple):
    """The receiver's answer to ``End``: what it has put in place, synced to the disk where that is of use."""

    entries: int
    size: int


Record = Union[  # noqa: UP007 - Python 3.8 in a sandbox cannot evaluate X | Y
    Enter, Leave, File, Chunk, Hole, Sum, Broken, Symlink, Hardlink, Offer, Have, Same, Problem, Totals, End, Done,
    Whole,
]  # fmt: skip


class ProtocolError(Exception):
    """The other end violates the protocol; nothing that it sends can be trusted. The text is a clause."""


_KINDS: tuple[Any, ...] = get_args(Record)
_TAGS = {kind: tag for tag, kind in enumerate(_KINDS)}
_CHUNK_TAG = _TAGS[Chunk]


class _Layout:
    """The layout of one kind of record: all integers, the length of each string, the strings."""

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
    # Annotations of a NamedTuple are forward references or strings, by version of Python; unify them to strings.
    kind.__annotations__ = {
        name: getattr(note, "__forward_arg__", note) for name, note in dict(kind.__annotations__).items()
    }
    return kind


_LAYOUTS = [_Layout(_deferred(kind)) for kind in _KINDS]


def _checksum(tag: int, payload: bytes | memoryview) -> int:
    return zlib.crc32(b"%d" % len(payload) if tag == _CHUNK_TAG else payload)


def encode(record: Record) -> bytes:
    """Return a record as one frame. The path of a ``Problem`` is cut, as deep trees have paths of any length."""
    tag = _TAGS[type(record)]
    if isinstance(record, Problem):
        record = record._replace(path=record.path[:LONGEST_TARGET])
    payload = record.content if isinstance(record, Chunk) else _LAYOUTS[tag].pack(record)
    return _HEAD.pack(tag, len(payload), _checksum(tag, payload)) + payload


class Decoder:
    """Decodes frames from bytes that are split anywhere. Buffers one frame at most.

    The content of a ``Chunk`` is a view of this buffer. It is released when the next record is requested, after which
    any use of it raises ``ValueError``.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(FRAME))
        self._start = self._end = 0

    def __repr__(self) -> str:
        return f"<Decoder {self._end - self._start} bytes waiting>"

    def room(self) -> memoryview:
        """Return the space for the next bytes, never empty. Call ``filled`` after writing to it.

        The iterator of the last ``filled`` must be exhausted.
        """
        held = self._end - self._start
        if self._start:
            self._buffer[:held] = self._buffer[self._start : self._end]
            self._start, self._end = 0, held
        return self._buffer[held:]

    def filled(self, size: int) -> Iterator[Record]:
        """Add the ``size`` bytes that were written to ``room``, and yield the records that are now complete.

        Raises ``ProtocolError``; the decoder must not be used after that.
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
        """Add ``data``, and yield the records that are now complete. Raises as ``filled``."""
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
    """Hash a hole by its length instead of its zeros, as hashing a huge false hole would take hours."""
    digest.update(b"hole %d" % length)
