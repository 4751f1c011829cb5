"""File operations in a sandbox without an sftp-server: each is a line for a shell there.

They are correct, but slower than an sftp-server in the sandbox: an operation costs a program or two. A file that is
renamed while it is open is not followed, because a shell knows files only by their paths.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from typing import NamedTuple

from sshgate.sandbox.launcher import escaped, quote
from sshgate.sandbox.shares import Shares
from sshgate.stream.interfaces import STDOUT, Process
from sshgate.stream.turns import budget

# Bytes that are read at once, aligned: most clients read a file in sequence, 32 KiB at a time.
BLOCK = 1 << 20
# Entries of a directory that are requested at once: half a MiB with the longest names.
PAGE = 2000
# Bytes. A long answer is a block or a page; every other one is a line or two.
LONGEST_ANSWER = 2 << 20
SHORT_ANSWER = 64 << 10
LONGEST_COMPLAINT = 4096
LONGEST_PATH = 4096  # PATH_MAX, with its NUL
# Names of a directory. A shell in hostile hands could report any number, and answer for its pages without an end.
MOST_NAMES = 10_000_000
LONGEST_NUMBER = 32
# Seconds that a long answer may take, because it holds one of the users' shares.
ANSWER_SECONDS = 60.0

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
    b"cannot overwrite non-directory": errno.ENOTDIR,
    b"to a subdirectory of itself": errno.EINVAL,
    b"hard link not allowed for directory": errno.EPERM,
    b"Function not implemented": errno.ENOSYS,
    b"Text file busy": errno.ETXTBSY,
    b"File too large": errno.EFBIG,
}


class Status(NamedTuple):
    """The attributes of a file; times in POSIX seconds."""

    mode: int
    uid: int
    gid: int
    size: int
    accessed: int
    modified: int
    links: int


class Space(NamedTuple):
    """The size and free room of a file system, in the order of statvfs(3)."""

    block: int
    fragment: int
    blocks: int
    free: int
    available: int
    files: int
    files_free: int
    longest_name: int


class FilesLost(Exception):
    """The shell in the sandbox has ended, or its answers cannot be parsed."""


class ShellFiles:
    """File operations by a shell that evaluates one escaped line after the other (see ``launcher.FILES_LOOP``).

    Call ``begin`` first. Only one task may call at a time. Paths are bytes; a relative one starts at the home
    directory. Every method raises ``OSError`` for what the sandbox refuses and ``FilesLost`` when the shell is gone.
    After a cancelled call the object must not be used any more: the shell's answer is still to come.

    Args:
        process: the launched sftp subsystem, without a server.
        answers: a place in it is held for a long answer while it is read; ``None``: no other shares it.
        user: whose place.
    """

    def __init__(self, process: Process, answers: Shares | None = None, user: str = "") -> None:
        self.lost: str | None = None
        """Why no more answers can arrive; ``None`` while they can."""
        self._process = process
        self._answers = answers if answers is not None else Shares(1, 1)
        self._user = user
        self._budget = budget()
        self._token = secrets.token_hex(16).encode()
        self._umask = 0o022
        self._block: tuple[bytes, int, bytes] | None = None
        self._names: tuple[object, int] | None = None
        self._page: tuple[object, int, list[tuple[bytes, Status]]] | None = None

    async def begin(self) -> None:
        """Send the script of the operations. Raises ``OSError`` where the sandbox lacks the programs for them."""
        text = resources.files("sshgate.sandbox").joinpath("files.sh").read_text("ascii")
        script = re.sub(r"(?m)^\s*#.*\n|^\s+", "", text).encode() + b"token=" + self._token
        await self._process.write(escaped(script) + b"\n")
        self._umask = _number(await self._ask(b"hello"), 8)

    async def status(self, path: bytes, follow: bool) -> Status:
        """The attributes of a file; with ``follow`` of a symbolic link's target, else of the link (lstat)."""
        return _status((await self._ask(b"status_behind" if follow else b"status", path)).split())

    async def entries(self, path: bytes) -> AsyncIterator[tuple[bytes, Status]]:
        """The entries of a directory, ``.`` and ``..`` too, as of this call.

        The shell keeps their names, and stats a page of them when its first entry is needed. It keeps the names of one
        directory only: if two are read alternately, each is listed again.
        """
        listing = object()
        await self._list(listing, path)
        return self._entries(listing, path)

    async def _entries(self, listing: object, path: bytes) -> AsyncIterator[tuple[bytes, Status]]:
        start = 0
        while start < await self._list(listing, path):
            index = 0
            # The page is not kept in this generator: a client may have many directories open.
            while (found := await self._entry(listing, path, start, index)) is not None:
                index += 1
                yield found
            start += PAGE

    async def _entry(self, listing: object, path: bytes, start: int, index: int) -> tuple[bytes, Status] | None:
        if self._page is None or self._page[:2] != (listing, start):
            await self._list(listing, path)
            self._block = self._page = None
            answer = await self._ask(b"page", b"%d" % start, b"%d" % PAGE, long=True, names=True)
            page: list[tuple[bytes, Status]] = []
            await self._budget.run(_page(answer, page))
            self._page = listing, start, page
        page = self._page[2]
        return page[index] if index < len(page) else None

    async def _list(self, listing: object, path: bytes) -> int:
        """Make the shell keep the names of ``listing``; returns how many there are."""
        if self._names is None or self._names[0] is not listing:
            self._names = None
            _check(path)
            # Not in a function, because the shell's own parameters hold the names. Patterns without a match stay as
            # they are, and name a file that does not exist.
            names = b'd=%s;set -- "$d"/* "$d"/.[!.]* "$d"/..?* "$d/." "$d/..";count=$#;' % quote(path)
            self._names = listing, min(MOST_NAMES, _number(await self._ask(b"listable", first=names)))
        return self._names[1]

    async def open(self, path: bytes, letters: bytes, mode: int) -> bool:
        """Check a file that is going to be read or written, and create or truncate it; see ``opened`` in files.sh.

        Returns whether it was created; then its owner can write it whatever ``mode`` is.
        """
        self._block = None
        return await self._ask(b"opened", path, letters, b"%o" % (mode & ~self._umask & 0o7777 | 0o200)) == b"new"

    async def read(self, path: bytes, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end of the file.

        OpenSSH's scp would truncate the file after a short answer (9.2: to what arrived in order).
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
            self._block = self._page = None
            answer = await self._ask(b"block", path, b"%d" % number, b"%d" % BLOCK, long=True)
            self._block = path, number, answer
        return self._block[2][start : start + size]

    async def write(self, path: bytes, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset``."""
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
        follow: bool = True,
    ) -> None:
        """Set the attributes that are given, in the order of the parameters.

        Args:
            size: the new length in bytes.
            owner: uid and gid.
            mode: permission bits.
            times: POSIX seconds of the last access and of the last modification.
            follow: change the target of a symbolic link, not the link itself. The size is always the target's.
        """
        self._block = None
        if size is not None:
            await self._ask(b"sized", path, b"%d" % size)
        link = [] if follow else [b"-h"]
        if owner is not None:
            await self._ask(b"owned", path, b"%d" % owner[0], b"%d" % owner[1], *link)
        if mode is not None:
            await self._ask(b"moded", path, b"%o" % (mode & 0o7777), *link)
        if times is not None:
            await self._ask(b"timed", path, b"%d" % times[0], b"%d" % times[1], *link)

    async def make_directory(self, path: bytes, mode: int) -> None:
        """Make a directory, as mkdir(2); the umask applies."""
        await self._ask(b"directory", path, b"%o" % (mode & ~self._umask & 0o7777))

    async def act(self, operation: bytes, *paths: bytes) -> None:
        """Carry out an operation of files.sh: removed, undirectory, renamed, replaced, linked, symlinked or synced."""
        self._block = None
        await self._ask(operation, *paths)

    async def target(self, path: bytes) -> bytes:
        """The target of a symbolic link, as written in it."""
        return (await self._ask(b"target", path)).removesuffix(b"\n")

    async def resolved(self, path: bytes) -> bytes:
        """The absolute path without links; for a file that does not exist, that of its directory plus its name."""
        try:
            return (await self._ask(b"resolved", path)).removesuffix(b"\n")
        except OSError as error:
            # Old versions of readlink require the last name to exist as well.
            head, _, last = path.rpartition(b"/")
            if error.errno != errno.ENOENT or last in (b"", b".", b".."):
                raise
            parent = await self._ask(b"resolved", head + b"/")
            return parent.removesuffix(b"\n").rstrip(b"/") + b"/" + last

    async def space(self, path: bytes) -> Space:
        """The room of the file system that holds ``path``. Raises ``OSError`` (ENOSYS) where it is not known."""
        numbers = [_number(word) for word in (await self._ask(b"space", path)).split()]
        if len(numbers) != len(Space._fields):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return Space(*numbers)

    async def _ask(
        self,
        operation: bytes,
        *words: bytes,
        fed: bytes = b"",
        first: bytes = b"",
        names: bool = False,
        long: bool = False,
    ) -> bytes:
        """Carry out an operation and return its output.

        ``fed`` is its stdin, ``first`` is shell code that runs before it, ``names`` adds the names that the shell keeps
        to its arguments, and ``long`` allows a long answer, which needs one of the users' shares.
        """
        for word in words:
            _check(word)
        how = [b"fed %d" % len(fed)] if fed else [b"answer"]
        asked = first + b" ".join([*how, operation, *map(quote, words), *([b'"$@"'] if names else [])])
        await self._process.write(escaped(asked) + b"\n")
        if fed:
            await self._process.write(fed)
        if not long:
            return await self._answer(SHORT_ANSWER)
        async with self._answers.hold(self._user):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await self._answer(LONGEST_ANSWER)
            except TimeoutError:
                raise self._lose("the sandbox's shell did not answer within a minute") from None

    async def _answer(self, longest: int) -> bytes:
        mark = b"\n" + self._token + b" "
        seen = bytearray()
        other = 0
        at = -1
        while at < 0 or seen.find(b"\2", at) < 0:
            chunk = await self._process.read()
            if chunk is None:
                raise self._lose("the sandbox's shell has ended")
            if chunk[0] != STDOUT:
                other += len(chunk[1])
            else:
                start = max(0, len(seen) - len(mark))
                seen += chunk[1]
                if at < 0:
                    at = seen.find(mark, start)
            if len(seen) > longest or other > longest or (at >= 0 and len(seen) - at > LONGEST_COMPLAINT * 4):
                raise self._lose("the sandbox's shell answers without an end")
        status, _, complaint = bytes(seen[at + len(mark) :]).partition(b"\2")[0].partition(b" ")
        if status == b"0":
            return bytes(seen[:at])
        raise _error(complaint)

    def _lose(self, why: str) -> FilesLost:
        self.lost = why
        return FilesLost(why)


def _check(path: bytes) -> None:
    """Raise ``OSError`` for a path that no system call accepts, because a shell may change it silently."""
    if b"\0" in path:
        raise OSError(errno.EINVAL, "a path cannot hold a NUL byte")
    if len(path.removeprefix(b"./")) >= LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _error(complaint: bytes) -> OSError:
    for text, number in _ERRORS.items():
        if text in complaint:
            return OSError(number, os.strerror(number))
    name = complaint[:LONGEST_COMPLAINT].decode("utf-8", "replace")
    return OSError(errno.EIO, "".join(c if c.isprintable() else " " for c in name).strip()[:200] or "failed")


def _page(answer: bytes, page: list[tuple[bytes, Status]]) -> Iterator[None]:
    """Parse a page of entries, one per step of the iterator."""
    # A name cannot contain a slash, so a slash and a newline always end it.
    for record in answer.split(b"/\n"):
        numbers, slash, name = record.partition(b" /")
        if slash:
            page.append((name, _status(numbers.split())))
        yield


def _status(words: list[bytes]) -> Status:
    try:
        mode, *numbers = words
        return Status(_number(mode, 16), *map(_number, numbers))
    except (ValueError, TypeError) as error:
        raise OSError(errno.EIO, "the sandbox's stat answers in another form") from error


def _number(word: bytes, base: int = 10) -> int:
    try:
        return int(word[:LONGEST_NUMBER], base)
    except ValueError as error:
        raise OSError(errno.EIO, "the sandbox's shell answers in another form") from error
