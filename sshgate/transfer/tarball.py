"""Converts between records and tar archives. ``tarfile`` handles the headers only; it never extracts anything.

An archive from a sandbox is not trusted: a name that would leave the destination ends the copy, and the size of headers
is limited. The archive becomes records, which ``receiver`` puts in place by descriptors.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Literal, cast

from sshgate.transfer.partial_file import display_path
from sshgate.transfer.records import (
    CHUNK,
    Broken,
    Chunk,
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

# The most bytes that all headers of one entry may have, such as long names and extended attributes.
_HEADERS = 1024 * 1024
_LONGEST_REFUSAL = 64 * 1024
_ZEROS = bytes(CHUNK)
_SPECIAL = {
    tarfile.FIFOTYPE: "is a FIFO, which cannot be copied",
    tarfile.CHRTYPE: "is a character device, which cannot be copied",
    tarfile.BLKTYPE: "is a block device, which cannot be copied",
}


# --- records to an archive ---


class Packer:
    """Turns records into one archive: the tree under ``t/``, then the files by which the far end verifies it.

    Args:
        extended: The far tar supports extended headers (mtimes with fractions); otherwise only GNU's long names.
        names: Collects the path of each regular file, each followed by NUL, for the check at the far end.
    """

    def __init__(self, extended: bool, names: IO[bytes]) -> None:
        self._format: Literal[1, 2] = 2 if extended else 1  # tarfile.PAX_FORMAT, tarfile.GNU_FORMAT
        self._names = names
        self._entered: list[Enter] = []
        self._pad = 0
        self._digest = hashlib.sha256()
        self._modes = b""

    def pack(self, record: Record) -> Iterator[bytes]:
        """Yield the bytes of one record. Raises ``OSError`` for ``Broken``: an archive cannot take a file back."""
        if isinstance(record, Chunk):
            yield self._content(record.content)
        elif isinstance(record, Hole):
            left = record.length
            while left:
                step = min(left, CHUNK)
                yield self._content(_ZEROS[:step])
                left -= step
        elif isinstance(record, Enter):
            self._entered.append(record)
            mode = record.mode if self._format == 2 else record.mode | 0o700
            yield self._header(b"", tarfile.DIRTYPE, mode, record.mtime)
        elif isinstance(record, Leave):
            if self._format == 1:  # a simple tar sets a directory's time before its contents: repeat the directory
                entered = self._entered[-1]
                yield self._header(b"", tarfile.DIRTYPE, entered.mode | 0o700, entered.mtime)
                if entered.mode & 0o700 != 0o700:  # a mode without access for its owner must be set after them
                    self._modes += b"%04o\0%s\0" % (entered.mode, self._path(b""))
            self._entered.pop()
        elif isinstance(record, File):
            self._pad = -record.size % 512
            self._names.write(self._path(record.name) + b"\0")
            yield self._header(record.name, tarfile.REGTYPE, record.mode, record.mtime, record.size)
        elif isinstance(record, (Sum, Broken)):
            if isinstance(record, Broken):
                raise OSError(record.reason)
            yield bytes(self._pad)
        elif isinstance(record, Symlink):
            yield self._header(record.name, tarfile.SYMTYPE, 0o777, record.mtime, link=record.target)
        elif isinstance(record, Hardlink):
            target = record.target.removeprefix(b"./")
            yield self._header(record.name, tarfile.LNKTYPE, 0o644, 0, link=b"t/" + target)

    def finish(self) -> Iterator[bytes]:
        """Yield the list of names, the modes to set at the end, the checksum, and the end of the archive."""
        size = self._names.tell()
        yield self._plain(b"names", size)
        self._names.seek(0)
        while content := self._names.read(CHUNK):
            yield content
        yield bytes(-size % 512)
        yield self._plain(b"modes", len(self._modes)) + self._modes + bytes(-len(self._modes) % 512)
        text = self._digest.hexdigest().encode()
        yield self._plain(b"sum", len(text)) + text + bytes(-len(text) % 512)
        yield bytes(10240)

    def _content(self, content: bytes | memoryview) -> bytes:
        self._digest.update(content)
        return bytes(content)

    def _path(self, name: bytes) -> bytes:
        names = [entry.name for entry in self._entered if entry.name != b"."]
        return b"/".join([b"t", *names, *([name] if name else [])])

    def _header(self, name: bytes, kind: bytes, mode: int, mtime: int, size: int = 0, link: bytes = b"") -> bytes:
        info = tarfile.TarInfo(_text(self._path(name)))
        info.type, info.mode, info.size, info.linkname = kind, mode, size, _text(link)
        info.mtime = mtime // 1_000_000_000
        if self._format == 2 and mtime % 1_000_000_000:
            seconds, fraction = divmod(abs(mtime), 1_000_000_000)
            info.pax_headers = {"mtime": f"{'-' * (mtime < 0)}{seconds}.{fraction:09d}"}
        return info.tobuf(self._format, "utf-8", "surrogateescape")

    def _plain(self, name: bytes, size: int) -> bytes:
        info = tarfile.TarInfo(_text(name))
        info.size = size
        return info.tobuf(self._format, "utf-8", "surrogateescape")


# --- an archive to records ---


class ArchiveStream:
    """A received archive as a file object for ``tarfile``, which hashes what is read.

    It can seek forward, and back by the one byte that ``tarfile`` reads ahead before each header. ``budget`` is the
    number of bytes that may be read until it is set again.

    Args:
        more: Blocks, and returns the next bytes, ``b""`` at the end.
    """

    def __init__(self, more: Callable[[], bytes]) -> None:
        self.digest = hashlib.sha256()
        self.budget = _HEADERS
        self._more = more
        self._buffer = bytearray()
        self._position = 0
        self._last = b""
        self._again = False

    def peek(self) -> bytes:
        """Return the next byte without reading it."""
        self._fill(1)
        return bytes(self._buffer[:1])

    def rest(self) -> bytes:
        """Return what was received after the trailer."""
        return bytes(self._buffer)

    def refusal(self) -> str:
        """Return why the source is not copied, if the far end sends ``P``, the reason, newline, a name and NUL instead.

        Raises ``ProtocolError`` if that does not end.
        """
        while (end := self._buffer.find(0)) < 0:
            before = len(self._buffer)
            self._fill(before + 1)
            if len(self._buffer) == before or before > _LONGEST_REFUSAL:
                raise ProtocolError("it sent something that is not part of a copy")
        reason, _, _ = self._buffer[1:end].partition(b"\n")
        del self._buffer[: end + 1]
        return reason.decode("utf-8", "replace")

    def tell(self) -> int:
        """Return the position in the archive."""
        return self._position - self._again

    def seek(self, position: int) -> None:
        """Move forward to ``position``, or to the end if that comes first; or back by one byte."""
        self._again = False
        if position == self._position - 1:
            self._again = True
        while self._position < position:
            before = self._position
            self.budget = _HEADERS
            self.read(min(CHUNK, position - self._position))
            if self._position == before:
                return

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, fewer only at the end. Raises ``ProtocolError`` when ``budget`` is exceeded."""
        if self._again and size:
            self._again = False
            return self._last + self.read(size - 1)
        self.budget -= size
        if self.budget < 0:
            raise ProtocolError("it sent an entry whose headers do not end")
        self._fill(size)
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self.digest.update(taken)
        self._position += len(taken)
        self._last = taken[-1:] or self._last
        return taken

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            data = self._more()
            if not data:
                break
            self._buffer += data

    def trailer(self) -> tuple[int, bytes, bool]:
        """Read what follows the archive: tar's exit status, the checksum, and whether tar left out sockets.

        Raises ``ProtocolError`` if the archive is incomplete.
        """
        seen = b""
        while b"\2" not in seen:
            kept = self._buffer.lstrip(b"\0") if not seen else self._buffer
            if not seen:
                self.digest.update(bytes(len(self._buffer) - len(kept)))
            seen += bytes(kept)
            self._buffer.clear()
            if seen and (seen[0] != 1 or len(seen) > 1024):
                raise ProtocolError("its archive ended in the middle")
            if b"\2" not in seen:
                data = self._more()
                if not data:
                    raise ProtocolError("its archive was cut")
                self._buffer += data
        size, _, rest = seen[1:].partition(b"\2")
        self._buffer += rest
        fields = [field for field in size.split() if field != b"socket"]
        if len(fields) < 2 or not fields[0].isdigit():
            raise ProtocolError("its archive has no checksum")
        return int(fields[0][:4]), fields[1], b"socket" in size


def read_archive(stream: ArchiveStream, contents: bool) -> Iterator[Record]:
    """Yield the records of one archive, without ``End``.

    Args:
        contents: The archive holds the contents of the destination itself.

    Raises:
        ProtocolError: The archive is damaged, was cut, or has names that would leave the destination.
    """
    entered: list[bytes] = []
    if contents:
        yield Enter(0o755, 0, b".")
    try:
        archive = tarfile.open(  # noqa: SIM115 - nothing to close, the bytes are not its own
            fileobj=cast(IO[bytes], stream), mode="r:", encoding="utf-8", errors="surrogateescape"
        )
        while True:
            stream.budget = _HEADERS
            member = archive.next()
            if member is None:
                break
            archive.members = []  # type: ignore[attr-defined]  # it would keep all headers
            archive.pax_headers = {}  # and global headers, without a limit
            path = _components(member.name)
            directory = path if member.isdir() else path[:-1]
            if not path:
                continue
            yield from _moves(entered, directory[:-1] if member.isdir() and entered != path else directory)
            yield from _entry(stream, member, path, entered)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        raise ProtocolError("its archive is damaged") from error
    while entered:
        entered.pop()
        yield Leave()
    if contents:
        yield Leave()


def _entry(stream: ArchiveStream, member: tarfile.TarInfo, path: list[bytes], entered: list[bytes]) -> Iterator[Record]:
    name, mtime, mode = path[-1], _nanoseconds(member), member.mode & 0o7777
    if member.isdir():
        if entered != path:
            entered.append(name)
            yield Enter(mode, mtime, name)
    elif member.type in _SPECIAL:
        yield Problem(b"/".join(path), _SPECIAL[member.type])
    elif member.issym():
        yield Symlink(mtime, name, _bytes(member.linkname))
    elif member.islnk():
        yield Hardlink(name, b"/".join(_components(member.linkname)))
    elif member.isreg():
        yield from _file(stream, member, File(mode, mtime, member.size, 0, name))
    else:
        yield Problem(b"/".join(path), "is of a kind that cannot be copied")


def _file(stream: ArchiveStream, member: tarfile.TarInfo, file: File) -> Iterator[Record]:
    yield file
    stream.seek(member.offset_data)
    sparse = cast("list[tuple[int, int]] | None", getattr(member, "sparse", None))
    at = 0
    for start, length in sparse if sparse is not None else [(0, member.size)]:
        if start < at or length < 0 or start + length > member.size:
            raise ProtocolError("it sent a map of holes that cannot be")
        if start > at:
            yield Hole(start - at)
        at = start + length
        while length:
            stream.budget = CHUNK
            content = stream.read(min(CHUNK, length))
            if not content:
                raise ProtocolError("its archive was cut")
            length -= len(content)
            yield Hole(len(content)) if content == _ZEROS[: len(content)] else Chunk(content)
    if at < member.size:
        yield Hole(member.size - at)
    stream.budget = _HEADERS
    yield Sum(b"")


def _moves(entered: list[bytes], directory: list[bytes]) -> Iterator[Record]:
    """Yield the records that lead from one directory to another."""
    while entered != directory[: len(entered)]:
        entered.pop()
        yield Leave()
    for name in directory[len(entered) :]:
        entered.append(name)
        yield Enter(0o755, 0, name)


def _components(name: str) -> list[bytes]:
    path = _bytes(name)
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if path.startswith(b"/") or b".." in parts or b"\0" in path:
        raise ProtocolError(f"it sent the name {display_path(path)}, which would leave the destination")
    return parts


def _nanoseconds(member: tarfile.TarInfo) -> int:
    seconds, _, fraction = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
    whole = int(seconds) if seconds.lstrip("-").isdigit() and len(seconds) < 12 else 0
    nanoseconds = int(fraction[:9].ljust(9, "0")) if fraction.isdigit() else 0
    return whole * 1_000_000_000 + (-nanoseconds if seconds.startswith("-") else nanoseconds)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
