"""An SFTP version 3 server in the gateway, for sandboxes without an sftp-server.

It behaves as OpenSSH's sftp-server, which clients expect: status codes follow errno, trailing bytes of a request are
ignored, and a malformed packet ends the session. Requests are handled one after the other.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from sshgate.sandbox.shell_files import FilesLost, ShellFiles, Space, Status
from sshgate.ssh import sftp_packets as packets
from sshgate.ssh.sftp_packets import LONGEST_PACKET, Attrs, Packet, Requests, Unreadable
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import Client, Exited, Lost, Outcome
from sshgate.stream.tasks import first_of

VERSION = 3
# OpenSSH's limits: bytes per read and write, entries per reply, open handles.
MOST_BYTES = LONGEST_PACKET - 1024
MOST_NAMES = 100
MOST_HANDLES = 1000

_READ, _WRITE, _APPEND, _CREATE, _TRUNCATE, _EXCLUSIVE = 1, 2, 4, 8, 16, 32
_CODES = {
    errno.ENOENT: packets.NO_SUCH_FILE, errno.ENOTDIR: packets.NO_SUCH_FILE, errno.EBADF: packets.NO_SUCH_FILE,
    errno.ELOOP: packets.NO_SUCH_FILE, errno.EPERM: packets.PERMISSION_DENIED, errno.EACCES: packets.PERMISSION_DENIED,
    errno.ENAMETOOLONG: packets.BAD_MESSAGE, errno.EINVAL: packets.BAD_MESSAGE, errno.ENOSYS: packets.UNSUPPORTED,
}  # fmt: skip


async def serve_files(
    client: Client, files: ShellFiles, traffic: Traffic, buffered_input: bytes = b"", eof: bool = False
) -> Outcome | None:
    """Serve one channel until the client ends its input or disconnects. Cancellation stops serving.

    Args:
        traffic: Updated as bytes pass.
        buffered_input: Input that was already read from the client.
        eof: Whether the client's input has already ended.

    Returns:
        ``Exited`` after the end of input; with status 127 if the sandbox lacks the programs for it. ``Lost`` if the
        sandbox's shell has failed. ``None`` if the client disconnected.
    """
    serving = _serve(Requests(client, traffic, buffered_input, eof), files)
    outcome: Outcome | None = (await first_of(serving, client.wait_closed()))[1]
    return outcome


async def _serve(requests: Requests, files: ShellFiles) -> Outcome:
    try:
        await files.begin()
        return Exited(await _Server(files).run(requests))
    except OSError as error:
        await requests.complain(
            f"this sandbox has no sftp-server, and cannot do without: {error.strerror}; "
            "install openssh-sftp-server in its image."
        )
        return Exited(127)
    except FilesLost as error:
        return Lost(f"{error}.")


@dataclass(slots=True)
class _File:
    """An open file: its path, how it was opened, and the mode to set when it is closed (``None``: keep it).

    A new file whose mode forbids its owner to write is kept writable until then, as each write opens it again.
    """

    path: bytes
    reads: bool
    writes: bool
    append: bool
    last_mode: int | None


@dataclass(slots=True)
class _Directory:
    """An open directory, and the entries that have not been sent yet."""

    entries: AsyncIterator[tuple[bytes, Status]]


class _Refused(Exception):
    """A request fails with an SFTP status that does not come from an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Server:
    """Translates SFTP requests to operations on a sandbox's files. Each handler parses a packet and returns a reply."""

    def __init__(self, files: ShellFiles) -> None:
        self._files = files
        self._handles: dict[bytes, _File | _Directory] = {}
        self._next_handle = 0

    async def run(self, requests: Requests) -> int:
        """Answer all requests and return the exit status. Raises ``FilesLost``."""
        begun = False
        try:
            while (packet := await requests.next()) is not None:
                kind = packet.byte()
                if kind == packets.INIT:
                    packet.u32()
                    begun = True
                    await requests.answer(bytes([packets.VERSION]) + packets.u32(VERSION) + _EXTENSIONS)
                    continue
                if not begun:
                    raise Unreadable
                number = packet.take(4)
                answer = await self._answered(kind, packet)
                await requests.answer(answer[:1] + number + answer[1:])
        except Unreadable as error:
            return error.status
        return 0

    async def _answered(self, kind: int, packet: Packet) -> bytes:
        word: int | bytes = packet.string() if kind == packets.EXTENDED else kind
        handler = _HANDLERS.get(word)
        try:
            if handler is None:
                raise _Refused(packets.UNSUPPORTED)
            answer = await handler(self, packet)
            return packets.status(packets.OK) if answer is None else answer
        except _Refused as refusal:
            return packets.status(refusal.code)
        except OSError as error:
            code = _CODES.get(error.errno or 0, packets.FAILURE)
            return packets.status(code, (error.strerror or "") if code == packets.FAILURE else "")

    # --- open files ---

    async def _open(self, packet: Packet) -> bytes:
        path, flags, attrs = packet.path(), packet.u32(), packet.attrs()
        writes = bool(flags & _WRITE)
        reads = bool(flags & _READ) or not writes
        letters = b"".join(
            letter
            for letter, wanted in (
                (b"r", reads), (b"w", writes), (b"c", flags & _CREATE), (b"t", flags & _TRUNCATE),
                (b"x", flags & _EXCLUSIVE and flags & _CREATE),
            )
            if wanted
        )  # fmt: skip
        mode = 0o666 if attrs.mode is None else attrs.mode
        self._room_for_handle()
        made = await self._files.open(path, letters, mode)
        last_mode = mode if made and not mode & stat.S_IWUSR else None
        return self._handle(_File(path, reads, writes, bool(flags & _APPEND), last_mode))

    async def _close(self, packet: Packet) -> None:
        opened = self._handles.pop(packet.string(), None)
        if opened is None:
            raise _Refused(packets.NO_SUCH_FILE)
        # There is nothing to flush: every write was done before its reply.
        if isinstance(opened, _File) and opened.last_mode is not None:
            await self._files.change(opened.path, mode=opened.last_mode)

    async def _read(self, packet: Packet) -> bytes:
        name, offset, size = packet.string(), packet.u64(), packet.u32()
        file = self._file(name)
        _checked(offset)
        if size and not file.reads:
            raise _Refused(packets.NO_SUCH_FILE)
        data = await self._files.read(file.path, offset, min(size, MOST_BYTES)) if size else b""
        if size and not data:
            raise _Refused(packets.EOF)
        return bytes([packets.DATA]) + packets.string(data)

    async def _write(self, packet: Packet) -> None:
        name, offset, data = packet.string(), packet.u64(), packet.string()
        file = self._file(name)
        if not file.append:
            _checked(offset)
        if not file.writes:
            raise _Refused(packets.NO_SUCH_FILE)
        if file.append:
            offset = (await self._files.status(file.path, follow=True)).size
        await self._files.write(file.path, offset, data)

    async def _fstat(self, packet: Packet) -> bytes:
        return _attributes_reply(await self._files.status(self._file(packet.string()).path, follow=True))

    async def _fsetstat(self, packet: Packet) -> None:
        name, attrs = packet.string(), packet.attrs()
        file = self._file(name)
        if attrs.mode is not None:
            file.last_mode = None
        refusal = None
        if attrs.size is not None and not file.writes:
            attrs, refusal = replace(attrs, size=None), OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        await self._set(file.path, attrs, refusal=refusal)

    async def _fsync(self, packet: Packet) -> None:
        await self._files.act(b"synced", self._file(packet.string(), otherwise=packets.NO_SUCH_FILE).path)

    async def _fstatvfs(self, packet: Packet) -> bytes:
        return await self._space(self._file(packet.string()).path)

    async def _copy_data(self, packet: Packet) -> None:
        first, start, size = packet.string(), packet.u64(), packet.u64()
        second, end = packet.string(), packet.u64()
        source, target = self._file(first), self._file(second)
        if not source.reads or not target.writes or source is target:
            raise _Refused(packets.FAILURE)
        left = size or 1 << 63
        while left and (data := await self._files.read(source.path, start, min(left, MOST_BYTES))):
            await self._files.write(target.path, end, data)
            start, end, left = start + len(data), end + len(data), left - len(data)

    # --- directories ---

    async def _opendir(self, packet: Packet) -> bytes:
        path = packet.path()
        self._room_for_handle()
        return self._handle(_Directory(await self._files.entries(path)))

    async def _readdir(self, packet: Packet) -> bytes:
        opened = self._handles.get(packet.string())
        if not isinstance(opened, _Directory):
            raise _Refused(packets.FAILURE)
        found = []
        async for name, status in opened.entries:
            found.append(packets.entry(name, status))
            if len(found) == MOST_NAMES:
                break
        if not found:
            raise _Refused(packets.EOF)
        return bytes([packets.NAME]) + packets.u32(len(found)) + b"".join(found)

    # --- paths ---

    async def _stat(self, packet: Packet) -> bytes:
        return _attributes_reply(await self._files.status(packet.path(), follow=True))

    async def _lstat(self, packet: Packet) -> bytes:
        return _attributes_reply(await self._files.status(packet.path(), follow=False))

    async def _setstat(self, packet: Packet) -> None:
        await self._set(packet.path(), packet.attrs())

    async def _lsetstat(self, packet: Packet) -> None:
        path, attrs = packet.path(), packet.attrs()
        if attrs.size is not None:
            raise _Refused(packets.BAD_MESSAGE)  # a link has no size to set
        await self._set(path, attrs, follow=False)

    async def _set(self, path: bytes, attrs: Attrs, follow: bool = True, refusal: OSError | None = None) -> None:
        """Set each attribute even if others fail, as sftp-server does, and raise the last error."""
        for size, mode, times, owner in (
            (attrs.size, None, None, None), (None, attrs.mode, None, None), (None, None, attrs.times, None),
            (None, None, None, attrs.owner),
        ):  # fmt: skip
            try:
                await self._files.change(path, size=size, mode=mode, times=times, owner=owner, follow=follow)
            except OSError as error:
                refusal = error
        if refusal is not None:
            raise refusal

    async def _mkdir(self, packet: Packet) -> None:
        path, attrs = packet.path(), packet.attrs()
        await self._files.make_directory(path, 0o777 if attrs.mode is None else attrs.mode)

    async def _realpath(self, packet: Packet) -> bytes:
        return packets.one_name(await self._files.resolved(packet.path() or b"."))

    async def _readlink(self, packet: Packet) -> bytes:
        return packets.one_name(await self._files.target(packet.path()))

    async def _symlink(self, packet: Packet) -> None:
        # OpenSSH's order of the two paths, which differs from the protocol's draft.
        await self._files.act(b"symlinked", packet.text(), packet.path())

    async def _statvfs(self, packet: Packet) -> bytes:
        return await self._space(packet.path())

    async def _expand(self, packet: Packet) -> bytes:
        path = packet.text()
        if path == b"~" or path.startswith(b"~/"):
            path = path[2:].lstrip(b"/")  # relative paths start at the home directory
        elif path.startswith(b"~"):
            raise _Refused(packets.FAILURE)
        return packets.one_name(await self._files.resolved(path if path.startswith(b"/") else b"./" + path))

    async def _limits(self, packet: Packet) -> bytes:
        return bytes([packets.EXTENDED_REPLY]) + struct.pack(
            ">4Q", LONGEST_PACKET, MOST_BYTES, MOST_BYTES, MOST_HANDLES
        )

    async def _space(self, path: bytes) -> bytes:
        room = Space(*map(packets.as_u64, await self._files.space(path)))
        return bytes([packets.EXTENDED_REPLY]) + struct.pack(
            ">11Q", room.block, room.fragment, room.blocks, room.free, room.available, room.files, room.files_free,
            room.files_free, 0, 0, room.longest_name,
        )  # fmt: skip

    # --- handles ---

    def _room_for_handle(self) -> None:
        if len(self._handles) >= MOST_HANDLES:
            raise _Refused(packets.FAILURE)

    def _handle(self, opened: _File | _Directory) -> bytes:
        name = packets.u32(self._next_handle)
        self._next_handle = (self._next_handle + 1) & 0xFFFFFFFF
        self._handles[name] = opened
        return bytes([packets.HANDLE]) + packets.string(name)

    def _file(self, name: bytes, otherwise: int = packets.FAILURE) -> _File:
        opened = self._handles.get(name)
        if not isinstance(opened, _File):
            raise _Refused(otherwise)
        return opened


def _attributes_reply(of: Status) -> bytes:
    return bytes([packets.ATTRS]) + packets.attributes(of)


def _checked(offset: int) -> int:
    if offset >= 1 << 63:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return offset


_Handler = Callable[[_Server, Packet], Awaitable[bytes | None]]


def _acting(operation: bytes, paths: int) -> _Handler:
    """Return the handler of a request that is one operation of files.sh on so many paths."""

    def handle(server: _Server, packet: Packet) -> Awaitable[None]:
        return server._files.act(operation, *(packet.path() for _ in range(paths)))

    return handle


_HANDLERS: dict[int | bytes, _Handler] = {
    3: _Server._open, 4: _Server._close, 5: _Server._read, 6: _Server._write, 7: _Server._lstat, 8: _Server._fstat,
    9: _Server._setstat, 10: _Server._fsetstat, 11: _Server._opendir, 12: _Server._readdir, 13: _acting(b"removed", 1),
    14: _Server._mkdir, 15: _acting(b"undirectory", 1), 16: _Server._realpath, 17: _Server._stat,
    18: _acting(b"renamed", 2), 19: _Server._readlink, 20: _Server._symlink,
    b"posix-rename@openssh.com": _acting(b"replaced", 2), b"statvfs@openssh.com": _Server._statvfs,
    b"fstatvfs@openssh.com": _Server._fstatvfs, b"hardlink@openssh.com": _acting(b"linked", 2),
    b"fsync@openssh.com": _Server._fsync, b"lsetstat@openssh.com": _Server._lsetstat,
    b"limits@openssh.com": _Server._limits, b"expand-path@openssh.com": _Server._expand,
    b"copy-data": _Server._copy_data,
}  # fmt: skip
_EXTENSIONS = b"".join(
    packets.string(name) + packets.string(b"2" if b"statvfs" in name else b"1")
    for name in _HANDLERS
    if isinstance(name, bytes)
)
