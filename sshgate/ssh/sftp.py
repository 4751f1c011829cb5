"""The SFTP protocol spoken by the gateway itself, for sandboxes without an sftp-server.

asyncssh knows the protocol; here its server is given a sandbox's files. It is not exported by asyncssh's package,
so this is the only file that takes it from the module below.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncssh
from asyncssh.logging import logger
from asyncssh.sftp import MAX_SFTP_READ_LEN, SFTPServerHandler

from sshgate.bridge import Traffic
from sshgate.sandbox.files import FilesLost, ShellFiles, Status
from sshgate.streams import STDERR, STDOUT, Client, Exited, Lost, Outcome
from sshgate.tasks import first_of

# The version that every client knows and OpenSSH speaks.
VERSION = 3


async def serve_files(
    client: Client, files: ShellFiles, traffic: Traffic, early: bytes = b"", eof: bool = False
) -> Outcome | None:
    """Serve one channel until the client ends its requests (``Exited``) or has gone (``None``).

    ``early`` is input that was read already, ``eof`` that no more will come.
    """
    writer = _Writer(client, traffic)
    reader = _Reader(client, files, traffic, writer, early, eof)
    _, outcome = await first_of(_serve(client, files, reader, writer), client.wait_closed())
    return cast("Outcome | None", outcome)


async def _serve(client: Client, files: ShellFiles, reader: _Reader, writer: _Writer) -> Outcome:
    try:
        await files.begin()
    except OSError as error:
        await client.write(
            STDERR,
            f"sshgate: this sandbox has no sftp-server, and cannot do without: {error.strerror}; "
            "install openssh-sftp-server in its image.\n".encode(),
        )
        return Exited(127)
    except FilesLost as error:
        return Lost(f"{error}.")
    handler = SFTPServerHandler(_Tree(files), cast(Any, reader), cast(Any, writer), VERSION)
    await handler.run()
    await writer.flush()
    return Lost(f"{files.lost}.") if files.lost is not None else Exited(0)


class _Reader:
    """Requests as asyncssh's handler reads them. Answers go out before the next request is waited for."""

    logger = logger

    def __init__(
        self, client: Client, files: ShellFiles, traffic: Traffic, writer: _Writer, early: bytes, eof: bool
    ) -> None:
        self._client = client
        self._files = files
        self._traffic = traffic
        self._writer = writer
        self._eof = eof
        self._buffer = bytearray(early)
        traffic.up += len(early)

    async def readexactly(self, size: int) -> bytes:
        await self._writer.flush()
        while len(self._buffer) < size:
            data = None if self._eof or self._files.lost is not None else await self._client.read()
            if data is None:
                raise asyncio.IncompleteReadError(bytes(self._buffer), size)
            self._traffic.up += len(data)
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        # OpenSSH sends the two paths of a symbolic link in the order that its own server expects.
        return getattr(self._client, name, default)


class _Writer:
    """Answers as asyncssh's handler writes them, one or two at a time."""

    logger = logger

    def __init__(self, client: Client, traffic: Traffic) -> None:
        self._client = client
        self._traffic = traffic
        self._waiting: list[bytes] = []
        self.channel = self

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self._waiting.append(data)

    def close(self) -> None:
        """The channel is finished by whoever serves it."""

    async def flush(self) -> None:
        data, self._waiting = b"".join(self._waiting), []
        if data:
            if not self._traffic.down:
                self._traffic.begins()
            self._traffic.down += len(data)
            await self._client.write(STDOUT, data)


class _Open:
    """An open file: a path, what it was opened for, and the mode to give it at the end.

    A new file that its owner may not write is writable until then: each write opens it again.
    """

    def __init__(self, path: bytes, append: bool, last_mode: int | None) -> None:
        self.path = path
        self.append = append
        self.last_mode = last_mode


class _Tree(asyncssh.SFTPServer):
    """A sandbox's files in the words of SFTP version 3."""

    def __init__(self, files: ShellFiles) -> None:
        super().__init__(cast(Any, None))
        self._files = files

    @property
    def logger(self) -> Any:
        return logger

    # --- files ---

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        letters = b"".join(
            letter
            for letter, flag in (
                (b"r", asyncssh.FXF_READ),
                (b"w", asyncssh.FXF_WRITE),
                (b"c", asyncssh.FXF_CREAT),
                (b"t", asyncssh.FXF_TRUNC),
                (b"x", asyncssh.FXF_EXCL),
            )
            if pflags & flag
        )
        mode = 0o666 if attrs.permissions is None else attrs.permissions
        made = await self._files.open(_path(path), letters, mode)
        return _Open(
            _path(path), bool(pflags & asyncssh.FXF_APPEND), mode if made and not mode & stat.S_IWUSR else None
        )

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        # asyncssh bounds what is written at once, and tells this bound to clients, but does not keep to it.
        return await self._files.read(_opened(file_obj).path, offset, min(size, MAX_SFTP_READ_LEN))

    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        file = _opened(file_obj)
        if file.append:
            offset = (await self._files.status(file.path, follow=True)).size
        await self._files.write(file.path, offset, data)
        return len(data)

    async def close(self, file_obj: object) -> None:
        """Everything was written when it was answered."""
        file = _opened(file_obj)
        if file.last_mode is not None:
            await self._files.change(file.path, mode=file.last_mode)

    async def fstat(self, file_obj: object) -> asyncssh.SFTPAttrs:
        return await self.stat(_opened(file_obj).path)

    async def fsetstat(self, file_obj: object, attrs: asyncssh.SFTPAttrs) -> None:
        file = _opened(file_obj)
        if attrs.permissions is not None:
            file.last_mode = None
        await self.setstat(file.path, attrs)

    async def fsync(self, file_obj: object) -> None:
        await self._files.act(b"synced", _opened(file_obj).path)

    async def fstatvfs(self, file_obj: object) -> asyncssh.SFTPVFSAttrs:
        return await self.statvfs(_opened(file_obj).path)

    # --- paths ---

    async def lstat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return _attrs(await self._files.status(_path(path), follow=False))

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return _attrs(await self._files.status(_path(path), follow=True))

    async def setstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        owner = None if attrs.uid is None or attrs.gid is None else (attrs.uid, attrs.gid)
        times = None if attrs.atime is None or attrs.mtime is None else (int(attrs.atime), int(attrs.mtime))
        await self._files.change(_path(path), size=attrs.size, owner=owner, mode=attrs.permissions, times=times)

    async def lsetstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        if stat.S_ISLNK((await self._files.status(_path(path), follow=False)).mode):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        await self.setstat(path, attrs)

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        for name, status in await self._files.listing(_path(path)):
            yield asyncssh.SFTPName(name, attrs=_attrs(status))

    async def realpath(self, path: bytes) -> bytes:
        return await self._files.resolved(_path(path))

    async def readlink(self, path: bytes) -> bytes:
        return await self._files.target(_path(path))

    async def statvfs(self, path: bytes) -> asyncssh.SFTPVFSAttrs:
        room = await self._files.space(_path(path))
        return asyncssh.SFTPVFSAttrs(
            bsize=room.block, frsize=room.fragment, blocks=room.blocks, bfree=room.free, bavail=room.available,
            files=room.files, ffree=room.files_free, favail=room.files_free, fsid=0, flags=0,
            namemax=room.longest_name,
        )  # fmt: skip

    async def remove(self, path: bytes) -> None:
        await self._files.act(b"removed", _path(path))

    async def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        await self._files.make_directory(_path(path), 0o777 if attrs.permissions is None else attrs.permissions)

    async def rmdir(self, path: bytes) -> None:
        await self._files.act(b"undirectory", _path(path))

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self._files.act(b"renamed", _path(oldpath), _path(newpath))

    async def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self._files.act(b"replaced", _path(oldpath), _path(newpath))

    async def link(self, oldpath: bytes, newpath: bytes) -> None:
        await self._files.act(b"linked", _path(oldpath), _path(newpath))

    async def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        await self._files.act(b"symlinked", oldpath, _path(newpath))

    def format_user(self, uid: int | None) -> str:
        """Numbers: the names of this machine would be wrong."""
        return str(uid)

    def format_group(self, gid: int | None) -> str:
        return str(gid)


def _path(path: bytes) -> bytes:
    """A path that no program can take for an option."""
    return path if path.startswith(b"/") else b"./" + path


def _opened(file_obj: object) -> _Open:
    assert isinstance(file_obj, _Open)
    return file_obj


def _attrs(status: Status) -> asyncssh.SFTPAttrs:
    return asyncssh.SFTPAttrs(
        size=status.size, uid=status.uid, gid=status.gid, permissions=status.mode, atime=status.accessed,
        mtime=status.modified, nlink=status.links,
    )  # fmt: skip
