"""Turns records into a tree of files. Also runs in the sandbox (Python 3.8).

The sender is not trusted: names are single components, every step is relative to an open directory and follows no
link, sizes and counts are limited. A file is written under a temporary name in its directory, verified, and renamed.
Large files are synced to the disk before the rename and all others before ``Done``, except on the file system of a
sandbox itself, which does not survive a crash (``is_persistent``).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable

from sshgate.transfer.destination import Budget, WriteOptions, open_destination
from sshgate.transfer.dirwalk import DirectoryStack, device_and_inode, make_directory, remove_empty
from sshgate.transfer.partial_file import (  # fmt: skip
    FSYNC_FROM,
    PartialFile,
    Stopped,
    display_path,
    hash_file,
    is_persistent,
    lock,
    make_hardlink,
    make_symlink,
    open_existing,
    open_file,
    sync,
    sync_directory,
    write_whole,
)
from sshgate.transfer.records import (  # fmt: skip
    Broken,
    Chunk,
    Done,
    End,
    Enter,
    File,
    Hardlink,
    Have,
    Hole,
    Leave,
    Offer,
    Problem,
    ProtocolError,
    Record,
    Same,
    Sum,
    Symlink,
    Totals,
    Whole,
)
from sshgate.transfer.sender import OFFERED_FROM, reason

# After these errors every further entry would fail as well.
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}


class Receiver:
    """Puts a tree in place from records, one by one. ``close`` must be called in every case.

    ``report`` is called with the path and a clause for each entry that cannot be put in place. ``token`` returns a new
    hexadecimal string for a temporary name.
    """

    _budget: Budget  # set by `_begin`, before the first entry

    def __init__(self, writing: WriteOptions, report: Callable[[bytes, str], None], token: Callable[[], str]) -> None:
        self.writing = writing
        self.entries = 0
        self.size = 0
        self.failed = 0
        self._large = 0
        self._report_to = report
        self._token = token
        self._directories: DirectoryStack | None = None
        self._renamed: bytes | None = None
        self._first = b""
        self._entered: list[Enter] = []
        self._new = [False]  # for each open directory, whether this copy created it
        self._skipping = 0
        self._file: PartialFile | None = None
        self._ignored_file = False
        self._offered: PartialFile | None = None
        self._compared: tuple[int, int] | None = None

    def apply(self, record: Record) -> Record | None:
        """Apply one record. Returns the answer, if any. Raises ``Stopped`` or ``ProtocolError`` to end the copy."""
        if isinstance(record, Chunk):
            self._chunk(record.content)
            return None
        if isinstance(record, (Totals, Problem)):
            return None
        try:
            return self._end() if isinstance(record, End) else self._entry(record)
        except OSError as error:
            if error.errno in _FATAL:
                where = self._display_name(getattr(record, "name", b""))
                raise Stopped(f"{where}: {reason(error)}; the copy was stopped.") from error
            raise

    def withdraw(self, path: bytes) -> None:
        """Remove an empty file that was put in place wrongly. ``path`` is the sender's path of it."""
        assert self._directories is not None
        parts = path.split(b"/")
        if self._renamed is not None:
            parts[0] = self._renamed
        self.entries -= remove_empty(self._directories.root, parts)

    def close(self) -> None:
        """Close everything and remove an unfinished file; ``resume`` keeps a large one. Idempotent, never raises."""
        for unfinished in (self._file, self._offered):
            if unfinished is not None:
                unfinished.discard()
        self._file = self._offered = None
        if self._directories is not None:
            self._directories.close()
            self._directories = None

    # --- the destination ---

    def _begin(self, record: Record) -> DirectoryStack:
        """Open the directory for the top-level entries, before the first of them."""
        fd, self._renamed = open_destination(self.writing, contents=getattr(record, "name", b"") == b".")
        self._directories = DirectoryStack(fd)
        self._budget = Budget(self.writing, fd)
        return self._directories

    def _name(self, name: bytes) -> bytes:
        """Return the name under which an entry is put. Raises ``ProtocolError`` if it would leave the directory."""
        if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
            raise ProtocolError(f"it sent the name {display_path(name)}, which would leave the destination")
        self._check_asked(name)
        if self._renamed is not None and self._directories is not None and self._directories.depth == 0:
            if self.entries and not self._entered and name != self._first:
                raise ProtocolError("it sent more than was asked for")
            self._first = name
            return self._renamed
        return name

    def _check_asked(self, name: bytes) -> None:
        """Raise ``ProtocolError`` if nobody has asked for what has this name at the top."""
        asked, at_top = self.writing.names, not self._entered
        if at_top and asked is not None and name not in asked:
            raise ProtocolError(f"it sent {display_path(name)}, which was not asked for")

    # --- entries ---

    def _entry(self, record: Record) -> Record | None:
        if self._skipping:
            self._skipping += isinstance(record, Enter) - isinstance(record, Leave)
            return None
        if self._file is not None or self._ignored_file:
            self._finish(record)
            return None
        if isinstance(record, Leave):
            self._leave()
            return None
        directories = self._directories or self._begin(record)
        self._budget.charge_entry()
        name = getattr(record, "name", b"")
        try:
            return self._put(record, directories)
        except OSError as error:
            if error.errno in _FATAL:
                raise
            self._fail(name, reason(error))
            if isinstance(record, Enter):
                self._skipping = 1
            elif isinstance(record, File):
                self._ignored_file = True
            return Have(0, 0, b"") if isinstance(record, Offer) else None

    def _put(self, record: Record, directories: DirectoryStack) -> Record | None:
        if isinstance(record, Enter):
            self._enter(record, directories)
        elif isinstance(record, File):
            name = self._name(record.name)
            resumed, self._offered = self._offered, None
            resumes, temporary = self._resumes(record.size), self._temporary(name, record.size)
            self._file = open_file(directories.fd, name, record, temporary, resumed, resumes)
            self._file.keep = resumes
            self._file.persistent = record.size >= FSYNC_FROM and is_persistent(directories.fd)
        elif isinstance(record, Whole):
            self._whole(record, self._name(record.name), directories.fd)
        elif isinstance(record, Symlink):
            self._symlink(record, self._name(record.name), directories.fd)
        elif isinstance(record, Hardlink):
            self._hardlink(record, self._name(record.name), directories)
        elif isinstance(record, Offer):
            return self._have(record, self._name(record.name), directories.fd)
        elif isinstance(record, Same):
            self._same(record, self._name(record.name), directories.fd)
        else:
            raise ProtocolError("its records are in a wrong order")
        return None

    def _enter(self, record: Enter, directories: DirectoryStack) -> None:
        if record.name == b"." and directories.depth == 0 and not self._entered:
            self._check_asked(record.name)
            self._entered.append(record)  # the destination itself keeps its mode and time
            return
        name = self._name(record.name)
        new = make_directory(directories.fd, name)
        directories.down(name)
        self._entered.append(record)
        self._new.append(new)

    def _leave(self) -> None:
        if not self._entered or self._directories is None:
            raise ProtocolError("its records are in a wrong order")
        record = self._entered.pop()
        self.entries += 1
        if record.name == b".":
            return
        try:
            os.fchmod(self._directories.fd, record.mode & (self.writing.mask | 0o1000))
            os.utime(self._directories.fd, ns=(record.mtime, record.mtime))
        except OSError as error:  # the directory existed and belongs to another user
            if error.errno in _FATAL:
                raise
            self._fail(record.name, f"its mode and time cannot be set: {reason(error)}")
        self._new.pop()
        if self._directories.crossed and is_persistent(self._directories.fd):
            sync(self._directories.fd)
        self._directories.up()

    def _symlink(self, record: Symlink, name: bytes, fd: int) -> None:
        if b"\0" in record.target:
            raise ProtocolError(f"it sent the link {display_path(name)} to a path that cannot be")
        make_symlink(fd, self._temporary(name, 0), name, record)
        self.entries += 1

    def _hardlink(self, record: Hardlink, name: bytes, directories: DirectoryStack) -> None:
        parts = record.target.split(b"/")
        asked = self.writing.names
        if asked is not None and b"." not in asked and parts[0] not in asked:
            raise ProtocolError(f"it sent a hard link to {display_path(record.target)}, which was not asked for")
        if parts[0] == b".":
            parts.pop(0)
        elif self._renamed is not None:
            parts[0] = self._renamed
        if not parts or any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
            raise ProtocolError(f"it sent a hard link to {display_path(record.target)}, outside the destination")
        there = DirectoryStack(os.dup(directories.root))
        try:
            for part in parts[:-1]:
                there.down(part)
            make_hardlink(there.fd, parts[-1], directories.fd, self._temporary(name, 0), name)
        finally:
            there.close()
        self.entries += 1

    # --- resuming ---

    def _resumes(self, size: int) -> bool:
        return self.writing.resume and size >= OFFERED_FROM

    def _temporary(self, name: bytes, size: int) -> bytes:
        mark = hashlib.sha256(name).hexdigest()[:16] if self._resumes(size) else self._token()
        return b".sshgate-" + mark.encode() + b".part"

    def _have(self, record: Offer, name: bytes, fd: int) -> Have:
        if self._offered is not None:
            self._offered.discard()
            self._offered = None
        if not self._resumes(record.size):
            raise ProtocolError("its records are in a wrong order")
        complete = open_existing(fd, name, os.O_RDONLY)
        if complete is not None:
            try:
                if os.fstat(complete).st_size == record.size:
                    self._budget.charge_comparison(record.size)
                    digest = hashlib.sha256()
                    length = hash_file(complete, digest)
                    if length == record.size:
                        self._compared = device_and_inode(complete)
                        return Have(length, 1, digest.digest())
            finally:
                os.close(complete)
        temporary = self._temporary(name, record.size)
        partial = open_existing(fd, temporary, os.O_RDWR)
        if partial is None:
            return Have(0, 0, b"")
        held = os.fstat(partial).st_size
        # From another file, or of another copy that still writes it: `open_file` starts again, or fails.
        if held > record.size or not lock(partial, fd, temporary):
            os.close(partial)
            return Have(0, 0, b"")
        self._budget.charge_comparison(held)
        self._offered = PartialFile(partial, os.dup(fd), temporary, name, owner=True)
        self._offered.keep = True
        self._offered.position = hash_file(partial, self._offered.digest)
        return Have(self._offered.position, 0, self._offered.digest.copy().digest())

    def _same(self, record: Same, name: bytes, fd: int) -> None:
        compared, self._compared = self._compared, None
        if compared is None:
            raise ProtocolError("its records are in a wrong order")
        file = open_existing(fd, name, os.O_RDONLY)
        if file is None:
            raise OSError(errno.ESTALE, "changed during the copy")
        try:
            if device_and_inode(file) != compared:
                raise OSError(errno.ESTALE, "changed during the copy")
            os.fchmod(file, record.mode & self.writing.mask)
            os.utime(file, ns=(record.mtime, record.mtime))
            self.size += os.fstat(file).st_size
        finally:
            os.close(file)
        self.entries += 1

    # --- contents ---

    def _chunk(self, content: bytes | memoryview) -> None:
        if self._file is None:
            if not (self._ignored_file or self._skipping):
                raise ProtocolError("its records are in a wrong order")
            return
        self._budget.charge(len(content))
        try:
            self._file.write(content)
        except OSError as error:
            if error.errno in _FATAL:
                raise Stopped(
                    f"{self._display_name(self._file.name)}: {reason(error)}; the copy was stopped."
                ) from error
            self._drop(reason(error))

    def _whole(self, record: Whole, name: bytes, fd: int) -> None:
        self._budget.charge(len(record.content))
        write_whole(fd, self._temporary(name, 0), name, record, self.writing.mask, self._new[-1])
        self.entries += 1
        self.size += len(record.content)

    def _finish(self, record: Record) -> None:
        """Apply a record within a file other than a chunk: a hole, or the file's end."""
        if isinstance(record, Hole):
            if self._file is not None:
                self._file.hole(record.length)
                self._budget.charge_hole(record.length)
            return
        if not isinstance(record, (Sum, Broken)):
            raise ProtocolError("its records are in a wrong order")
        if self._file is None:
            self._ignored_file = False
            return
        if isinstance(record, Broken):
            self._drop(record.reason)
            self._ignored_file = False
            return
        file = self._file
        try:
            file.complete(record.digest, self.writing.mask)
        except OSError as error:
            if error.errno in _FATAL:
                raise
            self._drop(reason(error))
            self._ignored_file = False
            return
        self._file = None
        self.entries += 1
        self._large += file.record.size >= FSYNC_FROM
        self.size += file.record.size

    def _drop(self, why: str) -> None:
        if self._file is not None:
            self._file.keep = False
            self._file.discard()
            self._fail(self._file.name, why)
            self._file = None
            self._ignored_file = True

    def _end(self) -> Done:
        if self._file is not None or self._entered or self._skipping or self._ignored_file:
            raise ProtocolError("it ended in the middle of a file")
        if self._directories is not None and is_persistent(self._directories.root):
            if self._large == self.entries:
                sync_directory(self._directories.root)  # the files themselves are synced already
            else:
                sync(self._directories.root)
        return Done(self.entries, self.size)

    def _display_name(self, name: bytes) -> str:
        return display_path(self._path(name))

    def _fail(self, name: bytes, why: str) -> None:
        self.failed += 1
        self._report_to(self._path(name), why)

    def _path(self, name: bytes) -> bytes:
        """Return the path of an entry of the current directory, for messages."""
        names = [entry.name for entry in self._entered if entry.name != b"."] + ([name] if name else [])
        if self._renamed is not None:
            names = names[1:]  # the first of them is the destination
        base = self.writing.destination
        return b"/".join([base.rstrip(b"/"), *names]) if names else base
