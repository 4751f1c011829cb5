"""Walks a directory tree by file descriptors, never by paths. Also runs in the sandbox (Python 3.8).

No step follows a symbolic link, however the tree changes meanwhile. Deep trees do not run out of descriptors: beyond
``MAX_OPEN`` levels those in the middle are closed, and opened again through ``..`` with a check of device and inode.
"""

from __future__ import annotations

import errno
import os
import stat

MAX_OPEN = 64
MAX_DEPTH = 4096
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class DirectoryStack:
    """A stack of open directories, from the root to the current one. Takes ownership of ``fd``, the root."""

    def __init__(self, fd: int) -> None:
        self._levels: list[tuple[int, tuple[int, int]]] = [(fd, device_and_inode(fd))]

    @property
    def depth(self) -> int:
        """The number of levels below the root."""
        return len(self._levels) - 1

    @property
    def fd(self) -> int:
        """The current directory."""
        return self._levels[-1][0]

    @property
    def root(self) -> int:
        """The root, which stays open at any depth."""
        return self._levels[0][0]

    @property
    def crossed(self) -> bool:
        """Whether the current directory is on another file system than its parent."""
        return self.depth > 0 and self._levels[-1][1][0] != self._levels[-2][1][0]

    def down(self, name: bytes) -> None:
        """Enter a subdirectory. Raises ``OSError`` if it is missing, not a directory, a symbolic link, or too deep."""
        if self.depth >= MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, "directories are nested too deep")
        fd = os.open(name, _OPEN, dir_fd=self.fd)
        self._levels.append((fd, device_and_inode(fd)))
        self._close_middle()

    def up(self) -> None:
        """Return to the parent. Raises ``OSError`` if the directory was moved meanwhile."""
        fd, _ = self._levels.pop()
        try:
            parent, known = self._levels[-1]
            if parent < 0:
                parent = os.open("..", _OPEN, dir_fd=fd)
                self._levels[-1] = (parent, known)
                if device_and_inode(parent) != known:
                    raise OSError(errno.ESTALE, "a directory was moved during the copy")
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        for fd, _ in self._levels:
            if fd >= 0:
                os.close(fd)
        self._levels.clear()

    def _close_middle(self) -> None:
        middle = len(self._levels) - MAX_OPEN
        if middle > 0:
            fd, known = self._levels[middle]
            if fd >= 0:
                os.close(fd)
                self._levels[middle] = (-1, known)


def device_and_inode(fd: int) -> tuple[int, int]:
    """Return the device and inode of an open file, which identify it."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def make_directory(fd: int, name: bytes) -> bool:
    """Create a directory in that of ``fd`` unless it exists; whether it was created. Raises ``OSError``."""
    try:
        os.mkdir(name, 0o700, dir_fd=fd)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
            raise OSError(errno.ENOTDIR, "a directory cannot replace what has this name") from None
        return False
    return True


def remove_empty(root: int, parts: list[bytes]) -> bool:
    """Remove an empty file, by its path below ``root``, without following links. Returns whether it was removed."""
    directories = DirectoryStack(os.dup(root))
    try:
        for part in parts[:-1]:
            directories.down(part)
        status = os.lstat(parts[-1], dir_fd=directories.fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size:
            return False
        os.unlink(parts[-1], dir_fd=directories.fd)
    except OSError:
        return False
    finally:
        directories.close()
    return True
