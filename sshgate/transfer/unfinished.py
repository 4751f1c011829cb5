"""A file on its way in: under a temporary name until all of it came and its checksum is right.

Every call is relative to an open directory and follows no link. Also runs in the sandbox (Python 3.8).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from sshgate.transfer.records import CHUNK, File, ProtocolError, Symlink, Whole, hash_hole

FSYNC_FROM = 1024 * 1024
_FLUSH = 8 * 1024 * 1024
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What the root of a container is made of.
_PASSING = (b"overlay", b"tmpfs")
# More than any usual file system takes: 16 TiB.
LARGEST_FILE = 1 << 44


class Stopped(Exception):
    """The copy cannot go on. The text is one sentence for the user."""


class Unfinished:
    """A file under its temporary name. Owns ``fd``, and ``directory`` too if it may outlive the visit there."""

    def __init__(self, fd: int, directory: int, temporary: bytes, name: bytes, owner: bool = False) -> None:
        self.fd = fd
        self.directory = directory
        self._owner = owner
        self._holes = False
        self._flushed = 0
        self.lasting = False
        """Whether it is worth forcing to the disk; see ``outlives_us``."""
        self.temporary = temporary
        self.name = name
        self.record = File(0, 0, 0, 0, name)
        self.position = 0
        self.keep = False
        self.digest = hashlib.sha256()

    def write(self, content: bytes | memoryview) -> None:
        if self.position + len(content) > self.record.size:
            raise ProtocolError(f"it sent more of {display_path(self.name)} than it had announced")
        self.digest.update(content)
        view = memoryview(content)
        while view:
            written = os.pwrite(self.fd, view, self.position)
            self.position += written
            view = view[written:]
        if self.lasting and self.position - self._flushed >= _FLUSH:
            # Starts writing to the disk now, so that the fsync at the end has little left to wait for.
            os.posix_fadvise(self.fd, self._flushed, self.position - self._flushed, os.POSIX_FADV_DONTNEED)
            self._flushed = self.position

    def hole(self, length: int) -> None:
        if length <= 0 or self.position + length > self.record.size:
            raise ProtocolError(f"it sent more of {display_path(self.name)} than it had announced")
        hash_hole(self.digest, length)
        self._holes = True
        self.position += length

    def complete(self, digest: bytes, mask: int) -> None:
        """Check, set mode and time, and rename. Raises ``OSError`` if any of it fails."""
        record = self.record
        if self.position != record.size:
            raise OSError(errno.EBADMSG, f"is incomplete: {self.position:,} of {record.size:,} bytes came")
        if digest and digest != self.digest.digest():
            raise OSError(errno.EBADMSG, "arrived with a wrong checksum")
        if self._holes or record.offset:  # a hole at the end, or what a longer earlier try has left
            os.ftruncate(self.fd, record.size)
        os.fchmod(self.fd, record.mode & mask)
        os.utime(self.fd, ns=(record.mtime, record.mtime))
        if self.lasting and record.size >= FSYNC_FROM:
            os.fsync(self.fd)
        into_place(self.directory, self.temporary, self.name)
        self._close()

    def give_up(self) -> None:
        """Remove it, or keep it for the next try; never raises."""
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
    """A path as people can read it and a terminal cannot be harmed by it."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_file(directory: int, name: bytes, record: File, temporary: bytes, resumed: Unfinished | None) -> Unfinished:
    if not 0 <= record.size <= LARGEST_FILE or not 0 <= record.offset <= record.size or record.mode < 0:
        raise ProtocolError("it sent an impossible size")
    if resumed is not None:
        if record.offset == resumed.position and record.offset and resumed.name == name:
            resumed.record = record
            return resumed
        resumed.keep = False
        resumed.give_up()
    if record.offset:
        raise ProtocolError("it resumes a file that is not there")
    try:
        fd = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    except FileExistsError:  # left by an earlier try whose contents did not match
        os.unlink(temporary, dir_fd=directory)
        fd = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    unfinished = Unfinished(fd, directory, temporary, name)
    unfinished.record = record
    return unfinished


def put(directory: int, temporary: bytes, name: bytes, record: Whole, mask: int, new: bool) -> None:
    """A small file, as ``Unfinished`` makes large ones. Raises ``OSError`` if any of it fails; then nothing is left.

    ``new``: the directory holds nothing but what this copy has put there, so no device or FIFO can have the name.
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
            into_place(directory, temporary, name)
    except BaseException:
        unlink(temporary, directory)
        raise
    finally:
        os.close(fd)


def put_symlink(directory: int, temporary: bytes, name: bytes, record: Symlink) -> None:
    """A symbolic link. Raises ``OSError``; then nothing is left."""
    os.symlink(record.target, temporary, dir_fd=directory)
    try:
        os.utime(temporary, ns=(record.mtime, record.mtime), dir_fd=directory, follow_symlinks=False)
        into_place(directory, temporary, name)
    except BaseException:
        unlink(temporary, directory)
        raise


def put_link(there: int, target: bytes, directory: int, temporary: bytes, name: bytes) -> None:
    """Another name of the file ``target`` of the directory ``there``. Raises ``OSError``; then nothing is left."""
    if stat.S_IFMT(os.lstat(target, dir_fd=there).st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
        raise OSError(errno.EPERM, "is a hard link to what is not a file")
    os.link(target, temporary, src_dir_fd=there, dst_dir_fd=directory, follow_symlinks=False)
    try:
        into_place(directory, temporary, name)
    finally:
        # Renaming a link onto another link of the same file does nothing and leaves both.
        unlink(temporary, directory)


def existing(directory: int, name: bytes, flags: int) -> int | None:
    """A regular file, open; or ``None``. To be written, it must be ours, with one name, and nobody else's to write:

    whoever had it open before would write into it after its checksum was found right.
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


def into_place(directory: int, temporary: bytes, name: bytes) -> None:
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
    length = 0
    while True:
        content = os.pread(fd, CHUNK, length)
        if not content:
            return length
        digest.update(content)
        length += len(content)


def unlink(name: bytes, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        pass


def outlives_us(fd: int) -> bool:
    """Whether what is written to the file system of ``fd`` is still there after a crash of the machine.

    A container's own layer and its memory are not: they end with the container, and no crash can leave half of
    a file in them. Volumes and the disks of machines are; so is whatever we know nothing of.
    """
    try:
        if os.fstat(fd).st_dev != os.stat("/").st_dev:  # noqa: PTH116 - also without pathlib
            return True
        with open("/proc/self/mounts", "rb") as mounts:  # noqa: PTH123
            kinds = [fields[2] for fields in map(bytes.split, mounts) if len(fields) > 2 and fields[1] == b"/"]
    except OSError:
        return True
    return not kinds or kinds[-1] not in _PASSING


def sync_directory(fd: int) -> None:
    """The names in a directory to the disk, where its file system knows that."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def sync(fd: int) -> None:
    """Everything of this file system to the disk: one call instead of one per small file."""
    try:
        # Not at the top: a sandbox's own file system needs no sync, and some small Pythons have no ctypes.
        import ctypes

        if ctypes.CDLL(None, use_errno=True).syncfs(fd) == 0:
            return
    except (ImportError, OSError, AttributeError):
        pass
    os.sync()
