"""The destination of a copy, and the budget for what arrives there. Also runs in the sandbox (Python 3.8)."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from sshgate.transfer.partial_file import Stopped, display_path
from sshgate.transfer.records import Chunk, Enter, File, Hardlink, Hole, Record, Same, Symlink, Whole
from sshgate.transfer.sender import reason

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Bytes of disk that an entry takes besides its content.
_BLOCK = 4096


class WriteOptions(NamedTuple):
    """Where and how to write. ``destination`` is the path as given, with a trailing slash if it has one.

    ``many``: there are several sources, so it must be a directory. ``mask``: mode bits that files keep.
    ``max_bytes`` and ``max_entries``: limits; 0: the free space of the disk, less a reserve. ``names``: what was asked
    for, by the names of ``sender.destination_name``; ``None``: anything.
    """

    destination: bytes
    many: bool = False
    resume: bool = False
    mask: int = 0o7777
    max_bytes: int = 0
    max_entries: int = 0
    names: frozenset[bytes] | None = None


def open_destination(writing: WriteOptions, contents: bool) -> tuple[int, bytes | None]:
    """Open the directory for the top-level entries. Returns its descriptor, and the new name of a single source.

    The name is ``None`` if sources keep theirs. ``contents``: the source is the contents of a directory; then, or with
    a trailing slash, a missing directory is created. Raises ``Stopped`` if the sources cannot go there.
    """
    path = writing.destination or b"."
    try:
        return os.open(path, _DIRECTORY), None
    except FileNotFoundError:
        if contents or path.endswith(b"/"):
            return _create(path), None
        if writing.many:
            raise Stopped(f"{display_path(path)} is not a directory, so several sources cannot go there.") from None
    except NotADirectoryError:
        if contents or path.endswith(b"/") or writing.many:
            raise Stopped(f"{display_path(path)} exists and is not a directory; name another destination.") from None
    except OSError as error:
        raise Stopped(f"{display_path(path)}: {reason(error)}.") from error
    head, _, renamed = path.rpartition(b"/")
    head = head or (b"/" if path.startswith(b"/") else b".")
    try:
        return os.open(head, _DIRECTORY), renamed
    except OSError as error:
        raise Stopped(f"{display_path(head)}: {reason(error)}; make that directory first.") from error


def _create(path: bytes) -> int:
    bare = re.sub(rb"(?:/+\.?)+\Z", b"", path) or path
    try:
        os.mkdir(bare)  # noqa: PTH102 - bytes
        return os.open(bare, _DIRECTORY)
    except OSError as error:
        raise Stopped(f"{display_path(bare)}: {reason(error)}; make the directory above it first.") from error


class Budget:
    """The bytes and entries that may still arrive in the file system of ``fd``; ``None``: at the far end.

    That end's disk is its own limit.
    """

    def __init__(self, writing: WriteOptions, fd: int | None = None) -> None:
        size = free = entries = 1 << 62
        if fd is not None:
            disk = os.fstatvfs(fd)
            size = disk.f_blocks * disk.f_frsize
            free = max(disk.f_bavail * disk.f_frsize - min(size // 20, 1 << 30), 0)
            entries = disk.f_favail * 9 // 10 if disk.f_files else entries
        self._max_bytes = writing.max_bytes
        self._place = display_path(writing.destination)
        self._room = writing.max_bytes or free
        # Bytes of holes and of existing files. A sender that exceeds the size of the disk is lying, or sends holes.
        self._untouched = max(size, writing.max_bytes)
        self._entries = writing.max_entries or entries

    def __repr__(self) -> str:
        return f"<Budget {self._room} bytes, {self._entries} entries>"

    def charge_record(self, record: Record) -> None:
        """Account for what is sent, as the far end would for what it receives. Raises ``Stopped``."""
        if isinstance(record, (Enter, File, Hardlink, Same, Symlink, Whole)):
            self.charge_entry()
        if isinstance(record, (Chunk, Whole)):
            self.charge(len(record.content))
        elif isinstance(record, Hole):
            self.charge_hole(record.length)

    def charge_entry(self) -> None:
        """Account for one more file, directory or link. Raises ``Stopped``."""
        self._entries -= 1
        if self._entries < 0:
            raise Stopped(f"{self._place}: there are more files than this disk or --max-files allows.")
        self.charge(_BLOCK)

    def charge_hole(self, length: int) -> None:
        """Account for a hole, which takes no space here but does in copies and archives. Raises ``Stopped``."""
        if self._max_bytes:
            self.charge(length)
        else:
            self.charge_comparison(length)

    def charge_comparison(self, length: int) -> None:
        """Account for existing bytes to hash, else a sender could keep this side busy for hours. Raises ``Stopped``."""
        self._untouched -= length
        if self._untouched < 0:
            raise Stopped(
                f"{self._place}: the holes of the copy, or the files to compare, are larger than this disk; it was "
                "stopped; --max-bytes allows more."
            )

    def charge(self, amount: int) -> None:
        """Account for ``amount`` bytes on the disk. Raises ``Stopped``."""
        self._room -= amount
        if self._room < 0:
            limit = f"limit of {self._max_bytes:,} bytes (--max-bytes)"
            raise Stopped(
                f"{self._place}: the copy needs more than the "
                f"{limit if self._max_bytes else 'free space of this disk, less a reserve'}; it was stopped."
            )
