"""Turns a tree of files into records. Also runs in the sandbox (Python 3.8).

Directories are read by descriptor and no link is followed, except a source with a trailing slash. What cannot be read
or is not a file is reported as a ``Problem``, and the rest is still sent.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Generator, Iterator
from typing import NamedTuple

from sshgate.transfer.dirwalk import DirectoryStack
from sshgate.transfer.records import (
    CHUNK,
    LONGEST_TARGET,
    WHOLE_UP_TO,
    Broken,
    Chunk,
    End,
    Enter,
    File,
    Hardlink,
    Have,
    Hole,
    Leave,
    Offer,
    Problem,
    Record,
    Same,
    Sum,
    Symlink,
    Totals,
    Whole,
    hash_hole,
)

# glibc returns freed blocks of a chunk's size to the kernel until a larger block was freed once (mallopt(3),
# M_MMAP_THRESHOLD). Otherwise each chunk gets new pages, whose faults and zeroing are half of a sender's time.
_KEPT_BY_MALLOC = 4 * 1024 * 1024

# Smaller files are sent without asking what the receiver has: that would cost more than sending them.
OFFERED_FROM = 1024 * 1024

# Files whose size is wrong, as in /proc and /sys, are read whole before they are announced, up to this size.
UNSIZED_UP_TO = 64 * 1024 * 1024

_KINDS = {
    stat.S_IFIFO: "is a FIFO, which cannot be copied",
    stat.S_IFSOCK: "is a socket, which cannot be copied",
    stat.S_IFCHR: "is a character device, which cannot be copied",
    stat.S_IFBLK: "is a block device, which cannot be copied",
}
SAME_NAME = "has the same name as an earlier source; copy it on its own"
_KERNEL_LINK = "is a link of the kernel's to what a process uses, which cannot be copied"


class ReadOptions(NamedTuple):
    """How to read: ``resume`` offers large files before sending them, ``totals`` counts all files first.

    ``wholes`` sends each small file as one record.
    """

    resume: bool = False
    totals: bool = False
    wholes: bool = False


def destination_name(source: bytes) -> bytes:
    """Return a source's name at the destination; ``.`` for the contents of a directory (``dir/.``, ``..``, ``/``)."""
    name = source.rstrip(b"/").rpartition(b"/")[2]
    return b"." if name in (b"", b".", b"..") else name


def name_sources(sources: list[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield each source with its ``destination_name``, or ``None`` if an earlier source has the same."""
    names: set[bytes] = set()
    for source in sources:
        name = destination_name(source)
        yield source, None if name in names and name != b"." else name
        names.add(name)


def reason(error: OSError) -> str:
    """Describe an error as a clause in lower case."""
    text = error.strerror or "cannot be read"
    return text[:1].lower() + text[1:]


def walk(sources: list[bytes], reading: ReadOptions) -> Generator[Record, Have | None, None]:
    """Yield the records of all sources, then ``End``. After an ``Offer``, ``send`` its answer into the generator."""
    bytes(_KEPT_BY_MALLOC)
    if reading.totals:
        yield _count(sources)
    walker = _Walker(reading)
    for source, name in name_sources(sources):
        if name is None:
            yield Problem(source, SAME_NAME)
        else:
            yield from walker.source(source, name)
    yield End(walker.entries, walker.size)


class _Walker:
    def __init__(self, reading: ReadOptions) -> None:
        self._proc = _proc()
        self.reading = reading
        self.entries = 0
        self.size = 0
        self._linked: dict[tuple[int, int], bytes] = {}

    def source(self, path: bytes, name: bytes) -> Generator[Record, Have | None, None]:
        try:
            if self._proc is not None and _is_proc_link(path, self._proc):
                yield from self._target(path, name)
                return
            parent, last = _open_parent(path, name)
        except OSError as error:
            yield Problem(path, reason(error))
            return
        directories = DirectoryStack(parent)
        try:
            yield from self._tree(directories, last, name, path)
        finally:
            directories.close()

    def _target(self, path: bytes, name: bytes) -> Generator[Record, Have | None, None]:
        """Copy the target of a link of /proc: its text, such as ``pipe:[42]``, means nothing elsewhere."""
        kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116 - bytes
        if kind != stat.S_IFREG:
            yield Problem(path, _KINDS.get(kind, _KERNEL_LINK))
            return
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield from self._regular(file, name)
        finally:
            os.close(file)

    def _tree(
        self, directories: DirectoryStack, last: bytes, name: bytes, display_name: bytes
    ) -> Generator[Record, Have | None, None]:
        """Yield one source with its contents. Not recursive: a tree can be deeper than Python's stack."""
        entered = [(name, display_name)]
        pending: list[Iterator[bytes]] = [iter([last])]
        finished: list[os.stat_result] = []
        while pending:
            item = next(pending[-1], None)
            if item is None:
                pending.pop()
                if not pending:
                    return
                entered.pop()
                finished.pop()
                yield Leave()
                self.entries += 1
                directories.up()
                continue
            at_top = len(pending) == 1
            label = name if at_top else item
            path = entered[-1][0] if at_top else entered[-1][0] + b"/" + item
            show = display_name if at_top else entered[-1][1].rstrip(b"/") + b"/" + item
            try:
                status = os.lstat(item, dir_fd=directories.fd)
                if stat.S_ISDIR(status.st_mode):
                    directories.down(item)
                    try:
                        listing = sorted(map(os.fsencode, os.listdir(directories.fd)))  # noqa: PTH208 - by descriptor
                    except OSError:
                        directories.up()
                        raise
                    entered.append((path, show))
                    finished.append(status)
                    pending.append(iter(listing))
                    yield Enter(stat.S_IMODE(status.st_mode), _mtime(status), label)
                else:
                    yield from self._leaf(directories.fd, item, label, path, show, status)
            except OSError as error:
                yield Problem(show, reason(error))

    def _leaf(
        self, fd: int, item: bytes, label: bytes, path: bytes, show: bytes, status: os.stat_result
    ) -> Generator[Record, Have | None, None]:
        kind = stat.S_IFMT(status.st_mode)
        if kind in _KINDS:
            yield Problem(show, _KINDS[kind])
            return
        if kind == stat.S_IFLNK and status.st_dev == self._proc:
            yield Problem(show, _KERNEL_LINK)
            return
        inode = status.st_dev, status.st_ino
        if status.st_nlink > 1 and self._linked.get(inode, path) != path:
            yield Hardlink(label, self._linked[inode])
            self.entries += 1
            return
        before = self.entries
        if kind == stat.S_IFLNK:
            yield Symlink(_mtime(status), label, os.readlink(item, dir_fd=fd))
            self.entries += 1
        else:
            file = os.open(item, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            try:
                yield from self._regular(file, label)
            finally:
                os.close(file)
        # Only to what was sent: the receiver may have another file of that name.
        if status.st_nlink > 1 and self.entries > before and len(path) <= LONGEST_TARGET:
            self._linked[inode] = path

    def _regular(self, fd: int, label: bytes) -> Generator[Record, Have | None, None]:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ESTALE, "was replaced during the copy")
        size = status.st_size
        if size <= WHOLE_UP_TO and (status.st_blocks * 512 >= size or not status.st_blocks):
            content = _read_all(fd, size)
            if len(content) != size or status.st_blocks * 512 >= size:
                yield from self._read(content, label, status)
                return
        yield from self._file(fd, label, status)

    def _read(self, content: bytes, label: bytes, status: os.stat_result) -> Iterator[Record]:
        """Yield a file whose content was read already."""
        mode, mtime, digest = stat.S_IMODE(status.st_mode), _mtime(status), hashlib.sha256(content).digest()
        if self.reading.wholes and len(content) <= WHOLE_UP_TO:
            yield Whole(mode, mtime, label, content, digest)
        else:
            yield File(mode, mtime, len(content), 0, label)
            for start in range(0, len(content), CHUNK):
                yield Chunk(content[start : start + CHUNK])
            yield Sum(digest)
        self.entries += 1
        self.size += len(content)

    def _file(self, fd: int, label: bytes, status: os.stat_result) -> Generator[Record, Have | None, None]:
        mode, mtime, size = stat.S_IMODE(status.st_mode), _mtime(status), status.st_size
        sparse = status.st_blocks * 512 < size
        digest = hashlib.sha256()
        offset = 0
        if self.reading.resume and size >= OFFERED_FROM:
            have = yield Offer(size, label)
            if have is not None and 0 < have.length <= size and _hash_prefix(fd, have.length, digest) == have.digest:
                offset = have.length
                if have.complete and offset == size:
                    yield Same(mode, mtime, label)
                    self.entries += 1
                    self.size += size
                    return
            else:
                digest = hashlib.sha256()
        yield File(mode, mtime, size, offset, label)
        try:
            for start, end, data in _find_extents(fd, offset, size) if sparse else ((offset, size, True),):
                if not data:
                    yield Hole(end - start)
                    hash_hole(digest, end - start)
                    continue
                for content in _read_range(fd, start, end):
                    digest.update(content)
                    yield Chunk(content)
            if os.pread(fd, 1, size) and os.fstat(fd).st_size == size:
                raise OSError(errno.EIO, "holds more than its size says")
        except OSError as error:
            yield Broken(reason(error))
            return
        self.entries += 1
        self.size += size
        yield Sum(digest.digest())


def _mtime(status: os.stat_result) -> int:
    """Return the time of a file; at most what 64 bits of nanoseconds hold, the years 1677 to 2262."""
    return min(max(status.st_mtime_ns, -(1 << 63)), (1 << 63) - 1)


def _open_parent(path: bytes, name: bytes) -> tuple[int, bytes]:
    """Open the directory to start from. Returns its descriptor and the name in it."""
    follow = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if name == b"." or (path.endswith(b"/") and stat.S_ISLNK(os.lstat(path.rstrip(b"/")).st_mode)):
        return os.open(path, follow), b"."
    head, _, last = path.rstrip(b"/").rpartition(b"/")
    if path.endswith(b"/") and not stat.S_ISDIR(os.lstat(path.rstrip(b"/")).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory")
    return os.open(head or (b"/" if path.startswith(b"/") else b"."), follow), last


def _proc() -> int | None:
    """Return the device number of /proc; ``None`` if nothing is mounted there."""
    try:
        device = os.lstat("/proc").st_dev
        return device if device != os.lstat("/").st_dev else None
    except OSError:
        return None


def _is_proc_link(path: bytes, proc: int) -> bool:
    """Whether a path is a link of /proc, whose target may have no path."""
    status = os.lstat(path)
    return stat.S_ISLNK(status.st_mode) and status.st_dev == proc


def _read_all(fd: int, size: int) -> bytes:
    """Return all content of a file, even if its size is wrong. Raises ``OSError``."""
    # Only the first read of a file in /proc/sys returns data. One byte more shows whether the size is right.
    pieces = [os.pread(fd, size + 1 if size else CHUNK, 0)]
    length = len(pieces[0])
    if length == size:
        return pieces[0]
    while pieces[-1]:
        pieces.append(os.pread(fd, CHUNK, length))
        length += len(pieces[-1])
        if length > UNSIZED_UP_TO:
            raise OSError(errno.EFBIG, "does not say its size, and is longer than 64 MiB")
    if length < size and os.fstat(fd).st_size != size:
        raise OSError(errno.EIO, "became shorter during the copy")
    return b"".join(pieces)


def _read_range(fd: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        content = os.pread(fd, min(CHUNK, end - start), start)
        if not content:
            raise OSError(errno.EIO, "became shorter during the copy")
        start += len(content)
        yield content


def _find_extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Yield data and holes between two offsets as (start, end, is data)."""
    while start < end:
        try:
            data = min(os.lseek(fd, start, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: no more data; else: no support for holes
                yield start, end, True
                return
            data = end
        if data > start:
            yield start, data, False
        if data == end:
            return
        start = min(os.lseek(fd, data, os.SEEK_HOLE), end)
        yield data, start, True


def _hash_prefix(fd: int, length: int, digest: hashlib._Hash) -> bytes:
    try:
        for content in _read_range(fd, 0, length):
            digest.update(content)
    except OSError:
        return b""
    return digest.digest()


def _count(sources: list[bytes]) -> Totals:
    """Count files and bytes for the progress bar. Errors are ignored here: the copy reports them."""
    files = size = 0
    for source in sources:
        stack = [source]
        while stack:
            path = stack.pop()
            try:
                status = os.stat(path, follow_symlinks=path.endswith(b"/"))  # noqa: PTH116 - bytes
                if stat.S_ISDIR(status.st_mode):
                    with os.scandir(path) as listing:
                        stack += [entry.path for entry in listing]
                elif stat.S_ISREG(status.st_mode):
                    files += 1
                    size += status.st_size
            except OSError:
                continue
    return Totals(files, size)
