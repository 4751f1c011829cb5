"""Writes files under temporary names until they are complete and verified. Also runs in the sandbox (Python 3.8).

Every call is relative to an open directory and follows no link.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat

from sshgate.transfer.records import CHUNK, File, ProtocolError, Symlink, Whole, hash_hole

FSYNC_FROM = 1024 * 1024
_FLUSH = 8 * 1024 * 1024
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# File systems of a container's root, which end with the container.
_EPHEMERAL = (b"overlay", b"tmpfs")
_BUSY = "is being written by another copy; try again when that has ended"
# A longer path was made up by the far end, or is too long for any system call.
_SHOWN = 4096
# What a disk reports late: bytes that it had taken are lost.
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
# 16 TiB: the limit of ext4 with blocks of 4 KiB.
LARGEST_FILE = 1 << 44


class Stopped(Exception):
    """The copy cannot go on at this end. The text is one sentence for the user."""


class PartialFile:
    """A file under its temporary name. Owns ``fd``; with ``owner`` also ``directory``, which otherwise stays open."""

    def __init__(self, fd: int, directory: int, temporary: bytes, name: bytes, owner: bool = False) -> None:
        self.fd = fd
        self.directory = directory
        self._owner = owner
        self._holes = False
        self._flushed = 0
        self.persistent = False
        """Whether to sync it to the disk; see ``is_persistent``."""
        self.temporary = temporary
        self.name = name
        self.record = File(0, 0, 0, 0, name)
        self.position = 0
        self.keep = False
        self.digest = hashlib.sha256()

    def write(self, content: bytes | memoryview) -> None:
        """Append content. Raises ``ProtocolError`` beyond the announced size, or ``OSError``."""
        if self.position + len(content) > self.record.size:
            raise ProtocolError(f"it sent more of {display_path(self.name)} than it had announced")
        self.digest.update(content)
        view = memoryview(content)
        while view:
            written = os.pwrite(self.fd, view, self.position)
            self.position += written
            view = view[written:]
        if self.persistent and self.position - self._flushed >= _FLUSH:
            # Starts write-back now, so that the fsync at the end has little left to do.
            os.posix_fadvise(self.fd, self._flushed, self.position - self._flushed, os.POSIX_FADV_DONTNEED)
            self._flushed = self.position

    def hole(self, length: int) -> None:
        """Append a hole. Raises ``ProtocolError`` beyond the announced size."""
        if length <= 0 or self.position + length > self.record.size:
            raise ProtocolError(f"it sent more of {display_path(self.name)} than it had announced")
        hash_hole(self.digest, length)
        self._holes = True
        self.position += length

    def complete(self, digest: bytes, mask: int) -> None:
        """Verify the file, set mode and time, and rename it. Raises ``OSError``; then ``discard`` must follow."""
        record = self.record
        if self.position != record.size:
            raise OSError(errno.EBADMSG, f"is incomplete: {self.position:,} of {record.size:,} bytes came")
        if digest and digest != self.digest.digest():
            raise OSError(errno.EBADMSG, "arrived with a wrong checksum")
        if self._holes or record.offset:  # a hole at the end, or data left by an earlier copy
            os.ftruncate(self.fd, record.size)
        os.fchmod(self.fd, record.mode & mask)
        os.utime(self.fd, ns=(record.mtime, record.mtime))
        if self.persistent and record.size >= FSYNC_FROM:
            os.fsync(self.fd)
        rename_into_place(self.directory, self.temporary, self.name)
        self._close()

    def discard(self) -> None:
        """Remove the file, unless ``keep`` is set, and close it. Idempotent."""
        if self.fd < 0:
            return
        if not self.keep:
            unlink(self.temporary, self.directory)
        self._close()

    def _close(self) -> None:
        os.close(self.fd)
        if self._owner:
            os.close(self.directory)
        self.fd = -1


def display_path(path: bytes) -> str:
    """Return a path for messages: at most ``_SHOWN`` bytes of it. Escapes what is not printable on a terminal."""
    text = path[:_SHOWN].decode("utf-8", "backslashreplace") + ("..." if len(path) > _SHOWN else "")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_file(
    directory: int, name: bytes, record: File, temporary: bytes, resumed: PartialFile | None, shared: bool
) -> PartialFile:
    """Start a file, or go on with ``resumed`` if the record does. Raises ``ProtocolError`` or ``OSError``.

    ``shared``: other copies use the same temporary name.
    """
    if not 0 <= record.size <= LARGEST_FILE or not 0 <= record.offset <= record.size or record.mode < 0:
        raise ProtocolError("it sent an impossible size")
    if resumed is not None:
        if record.offset == resumed.position and record.offset and resumed.name == name:
            resumed.record = record
            return resumed
        resumed.keep = False
        resumed.discard()
    if record.offset:
        raise ProtocolError("it resumes a file that is not there")
    try:
        fd = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    except FileExistsError:  # left by an earlier copy of another content
        left = open_existing(directory, temporary, os.O_RDWR)
        try:
            if left is not None and not lock(left, directory, temporary):
                raise OSError(errno.EBUSY, _BUSY) from None
            os.unlink(temporary, dir_fd=directory)
        finally:
            if left is not None:
                os.close(left)
        fd = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    if shared and not lock(fd, directory, temporary):
        os.close(fd)
        raise OSError(errno.EBUSY, _BUSY)
    unfinished = PartialFile(fd, directory, temporary, name)
    unfinished.record = record
    return unfinished


def lock(fd: int, directory: int, temporary: bytes) -> bool:
    """Lock an unfinished file against other copies. Returns whether it is ours, and still has its temporary name."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(temporary, dir_fd=directory))
    except OSError:
        return False


def write_whole(directory: int, temporary: bytes, name: bytes, record: Whole, mask: int, new: bool) -> None:
    """Put a small file in place: write, verify and rename. If it raises ``OSError``, nothing is left.

    ``new``: the directory was created by this copy, so no device or FIFO can have the name.
    """
    if hashlib.sha256(record.content).digest() != record.digest:
        raise OSError(errno.EBADMSG, "arrived with a wrong checksum")
    fd = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    try:
        view = memoryview(record.content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, record.mode & mask)
        os.utime(fd, ns=(record.mtime, record.mtime))
        if new:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            rename_into_place(directory, temporary, name)
    except BaseException:
        unlink(temporary, directory)
        raise
    finally:
        os.close(fd)


def make_symlink(directory: int, temporary: bytes, name: bytes, record: Symlink) -> None:
    """Put a symbolic link in place. If it raises ``OSError``, nothing is left."""
    os.symlink(record.target, temporary, dir_fd=directory)
    try:
        os.utime(temporary, ns=(record.mtime, record.mtime), dir_fd=directory, follow_symlinks=False)
        rename_into_place(directory, temporary, name)
    except BaseException:
        unlink(temporary, directory)
        raise


def make_hardlink(there: int, target: bytes, directory: int, temporary: bytes, name: bytes) -> None:
    """Link the file ``target`` of the directory ``there``. If it raises ``OSError``, nothing is left."""
    if stat.S_IFMT(os.lstat(target, dir_fd=there).st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
        raise OSError(errno.EPERM, "is a hard link to what is not a file")
    os.link(target, temporary, src_dir_fd=there, dst_dir_fd=directory, follow_symlinks=False)
    try:
        rename_into_place(directory, temporary, name)
    finally:
        # rename(2) does nothing if both names are links to the same file, so the temporary one is left.
        unlink(temporary, directory)


def open_existing(directory: int, name: bytes, flags: int) -> int | None:
    """Open a regular file; ``None`` if there is none that can be used.

    For writing, it must be our own, have one link, and be writable by no one else: another process could have it open
    and write to it after its checksum was verified.
    """
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    status = os.fstat(fd)
    ours = status.st_nlink == 1 and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    if not stat.S_ISREG(status.st_mode) or (flags == os.O_RDWR and not ours):
        os.close(fd)
        return None
    return fd


def rename_into_place(directory: int, temporary: bytes, name: bytes) -> None:
    """Rename to the final name. Replaces only regular files and symbolic links. Raises ``OSError``."""
    try:
        kind = stat.S_IFMT(os.lstat(name, dir_fd=directory).st_mode)
        if kind == stat.S_IFDIR:
            raise OSError(errno.EISDIR, "a file cannot replace the directory of this name")
        if kind not in (stat.S_IFREG, stat.S_IFLNK):
            raise OSError(errno.EEXIST, "a device, socket or FIFO has this name and is left alone")
    except FileNotFoundError:
        pass
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def hash_file(fd: int, digest: hashlib._Hash) -> int:
    """Hash a file from its beginning. Returns its length. Raises ``OSError``."""
    length = 0
    while True:
        content = os.pread(fd, CHUNK, length)
        if not content:
            return length
        digest.update(content)
        length += len(content)


def unlink(name: bytes, directory: int) -> None:
    """Remove a file if possible. Never raises."""
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        pass


def is_persistent(fd: int) -> bool:
    """Whether the file system of ``fd`` survives a crash of the machine, so that syncing it is of use.

    A container's own layer and its tmpfs do not: they end with the container. Volumes and disks do, and anything
    unknown is assumed to.
    """
    try:
        if os.fstat(fd).st_dev != os.stat("/").st_dev:  # noqa: PTH116 - also without pathlib
            return True
        with open("/proc/self/mounts", "rb") as mounts:  # noqa: PTH123
            kinds = [fields[2] for fields in map(bytes.split, mounts) if len(fields) > 2 and fields[1] == b"/"]
    except OSError:
        return True
    return not kinds or kinds[-1] not in _EPHEMERAL


def sync_directory(fd: int) -> None:
    """Sync the names in a directory to the disk, if its file system supports that. Raises ``OSError``."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def sync(fd: int) -> None:
    """Sync the whole file system to the disk: one call instead of one for each small file.

    Raises ``OSError`` if it has lost anything since ``fd`` was opened (Linux 5.8).
    """
    try:
        # Imported here: most sandboxes need no sync, and some minimal builds of Python lack ctypes.
        import ctypes

        failed = ctypes.CDLL(None, use_errno=True).syncfs(fd)
        number = ctypes.get_errno() if failed else 0
    except (ImportError, OSError, AttributeError):
        number = errno.ENOSYS
    if number in _LOST:
        raise OSError(number, os.strerror(number))
    if number:
        os.sync()
