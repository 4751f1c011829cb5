"""The files of a sandbox without an sftp-server: each operation is a line for a shell there.

Correct, though slower than a server of the sandbox's own: an operation costs a program or two. A file that is
renamed while it is open is not followed, because a shell knows files by their paths only.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from importlib import resources
from typing import NamedTuple

from sshgate.launcher import escaped, quote
from sshgate.streams import STDOUT, Process

# What is read at once, aligned: most clients read a file from one end to the other, 32 KiB at a time.
BLOCK = 1 << 20
# A listing of 100,000 long names.
LONGEST_ANSWER = 64 << 20
LONGEST_COMPLAINT = 4096

_ERRORS = {
    b"No such file or directory": errno.ENOENT,
    b"Directory nonexistent": errno.ENOENT,
    b"nonexistent directory": errno.ENOENT,
    b"Permission denied": errno.EACCES,
    b"Operation not permitted": errno.EPERM,
    b"File exists": errno.EEXIST,
    b"cannot overwrite existing file": errno.EEXIST,
    b"Not a directory": errno.ENOTDIR,
    b"Is a directory": errno.EISDIR,
    b"Directory not empty": errno.ENOTEMPTY,
    b"No space left on device": errno.ENOSPC,
    b"Disk quota exceeded": errno.EDQUOT,
    b"Read-only file system": errno.EROFS,
    b"File name too long": errno.ENAMETOOLONG,
    b"Too many levels of symbolic links": errno.ELOOP,
    b"Invalid argument": errno.EINVAL,
    b"Function not implemented": errno.ENOSYS,
    b"Text file busy": errno.ETXTBSY,
    b"File too large": errno.EFBIG,
}


class Status(NamedTuple):
    """What a file is; times in seconds."""

    mode: int
    uid: int
    gid: int
    size: int
    accessed: int
    modified: int
    links: int


class Space(NamedTuple):
    """A file system's room, in the order of statvfs(3)."""

    block: int
    fragment: int
    blocks: int
    free: int
    available: int
    files: int
    files_free: int
    longest_name: int


class FilesLost(Exception):
    """The shell in the sandbox has ended or answers nonsense."""


class ShellFiles:
    """File operations by a shell that evaluates one escaped line after the other (see ``launcher.FILES_MARK``).

    ``begin`` first. One task asks. Paths are bytes; a relative one begins at the home directory. Every method raises
    ``OSError`` for what the sandbox refuses and ``FilesLost`` when there is no shell any more.
    """

    def __init__(self, process: Process) -> None:
        self.lost: str | None = None
        """Why no more answers can come."""
        self._process = process
        self._token = secrets.token_hex(16).encode()
        self._umask = 0o022
        self._block: tuple[bytes, int, bytes] | None = None

    def __repr__(self) -> str:
        return f"<ShellFiles {self._process!r}>"

    async def begin(self) -> None:
        """Send the operations. Raises ``OSError`` where the sandbox has not the programs for them."""
        text = resources.files("sshgate.sandbox").joinpath("files.sh").read_text("ascii")
        script = re.sub(r"(?m)^\s*#.*\n|^\s+", "", text).encode() + b"token=" + self._token
        await self._process.write(escaped(script) + b"\n")
        self._umask = int(await self._ask(b"hello"), 8)

    async def status(self, path: bytes, follow: bool) -> Status:
        """What is there; ``follow`` a symbolic link to what it leads to."""
        return _status((await self._ask(b"status_behind" if follow else b"status", path)).split())

    async def listing(self, path: bytes) -> list[tuple[bytes, Status]]:
        """All entries of a directory, ``.`` and ``..`` among them."""
        found = []
        for record in (await self._ask(b"listing", path)).split(b"/\n"):
            numbers, slash, name = record.partition(b" /")
            if slash:
                found.append((name, _status(numbers.split())))
        return found

    async def open(self, path: bytes, letters: bytes, mode: int) -> bool:
        """Check, and make or empty, a file that is going to be read or written; see ``opened`` in files.sh.

        Returns whether it was made; then its owner may write it whatever ``mode`` says.
        """
        self._block = None
        return await self._ask(b"opened", path, letters, b"%o" % (mode & ~self._umask & 0o7777 | 0o200)) == b"new"

    async def read(self, path: bytes, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end of the file.

        OpenSSH's scp cuts a file off where an answer came short (9.2: it truncates to what came in order).
        """
        pieces = []
        while size > 0 and (piece := await self._read_in_block(path, offset, size)):
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(pieces)

    async def _read_in_block(self, path: bytes, offset: int, size: int) -> bytes:
        number, start = divmod(offset, BLOCK)
        if self._block is None or self._block[:2] != (path, number) or len(self._block[2]) <= start:
            self._block = path, number, await self._ask(b"block", path, b"%d" % number, b"%d" % BLOCK)
        return self._block[2][start : start + size]

    async def write(self, path: bytes, offset: int, data: bytes) -> None:
        """Write all of it."""
        self._block = None
        if data:
            size = b"%d" % len(data)
            await self._ask(b"written", path, b"%d" % offset, size, fed=data)

    async def change(
        self,
        path: bytes,
        *,
        size: int | None = None,
        owner: tuple[int, int] | None = None,
        mode: int | None = None,
        times: tuple[int, int] | None = None,
    ) -> None:
        """Set what is given; ``times`` are those of access and of modification, in seconds."""
        self._block = None
        if size is not None:
            await self._ask(b"sized", path, b"%d" % size)
        if owner is not None:
            await self._ask(b"owned", path, b"%d" % owner[0], b"%d" % owner[1])
        if mode is not None:
            await self._ask(b"moded", path, b"%o" % (mode & 0o7777))
        if times is not None:
            await self._ask(b"timed", path, b"%d" % times[0], b"%d" % times[1])

    async def make_directory(self, path: bytes, mode: int) -> None:
        """As mkdir(2)."""
        await self._ask(b"directory", path, b"%o" % (mode & ~self._umask & 0o7777))

    async def act(self, operation: bytes, *paths: bytes) -> None:
        """One of ``removed``, ``undirectory``, ``renamed``, ``replaced``, ``linked``, ``symlinked``, ``synced``."""
        self._block = None
        await self._ask(operation, *paths)

    async def target(self, path: bytes) -> bytes:
        """Where a symbolic link leads to."""
        return (await self._ask(b"target", path)).removesuffix(b"\n")

    async def resolved(self, path: bytes) -> bytes:
        """The absolute path without links; of what is not there, that of its directory and its name."""
        try:
            return (await self._ask(b"resolved", path)).removesuffix(b"\n")
        except OSError:
            head, _, last = path.rstrip(b"/").rpartition(b"/")
            if last in (b"", b".", b".."):
                raise
            parent = await self._ask(b"resolved", head or (b"/" if path.startswith(b"/") else b"."))
            return parent.removesuffix(b"\n").rstrip(b"/") + b"/" + last

    async def space(self, path: bytes) -> Space:
        """The room of the file system that holds ``path``."""
        numbers = [int(word) for word in (await self._ask(b"space", path)).split()]
        if len(numbers) != len(Space._fields):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return Space(*numbers)

    async def _ask(self, operation: bytes, *words: bytes, fed: bytes = b"") -> bytes:
        if any(b"\0" in word for word in words):
            raise OSError(errno.EINVAL, "a path cannot hold a NUL byte")
        how = [b"fed %d" % len(fed)] if fed else [b"answer"]
        line = escaped(b" ".join([*how, operation, *map(quote, words)])) + b"\n"
        await self._process.write(line)
        if fed:
            await self._process.write(fed)
        return await self._answer()

    async def _answer(self) -> bytes:
        mark = b"\n" + self._token + b" "
        seen = bytearray()
        at = -1
        while at < 0 or b"\2" not in seen[at:]:
            chunk = await self._process.read()
            if chunk is None:
                raise self._lose("the sandbox's shell has ended")
            if chunk[0] != STDOUT:
                continue
            start = max(0, len(seen) - len(mark))
            seen += chunk[1]
            if at < 0:
                at = seen.find(mark, start)
            if len(seen) > LONGEST_ANSWER or (at >= 0 and len(seen) - at > LONGEST_COMPLAINT * 4):
                raise self._lose("the sandbox's shell answers without an end")
        status, _, complaint = bytes(seen[at + len(mark) :]).partition(b"\2")[0].partition(b" ")
        if status == b"0":
            return bytes(seen[:at])
        raise _error(complaint)

    def _lose(self, why: str) -> FilesLost:
        self.lost = why
        return FilesLost(why)


def _error(complaint: bytes) -> OSError:
    for text, number in _ERRORS.items():
        if text in complaint:
            return OSError(number, os.strerror(number))
    shown = complaint[:LONGEST_COMPLAINT].decode("utf-8", "replace")
    return OSError(errno.EIO, "".join(c if c.isprintable() else " " for c in shown).strip()[:200] or "failed")


def _status(words: list[bytes]) -> Status:
    try:
        mode, *numbers = words
        return Status(int(mode, 16), *map(int, numbers))
    except (ValueError, TypeError) as error:
        raise OSError(errno.EIO, "the sandbox's stat answers in another form") from error
