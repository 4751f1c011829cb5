"""The packets of SFTP version 3, as OpenSSH's sftp-server reads and writes them. Pure but for the time of day."""

from __future__ import annotations

import stat
import struct
import time
from dataclasses import dataclass

from sshgate.sandbox.shell_files import Status

INIT, VERSION, EXTENDED = 1, 2, 200
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
_SIZE, _UIDGID, _PERMISSIONS, _TIMES, _MORE = 1, 2, 4, 8, 1 << 31

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
TEXTS = {
    OK: "Success", EOF: "End of file", NO_SUCH_FILE: "No such file", PERMISSION_DENIED: "Permission denied",
    FAILURE: "Failure", BAD_MESSAGE: "Bad message", UNSUPPORTED: "Operation unsupported",
}  # fmt: skip


class Unreadable(Exception):
    """A packet that is no request: OpenSSH's server ends at it, with this status."""

    def __init__(self, status: int = 255) -> None:
        super().__init__(status)
        self.status = status


class Packet:
    """Reads the fields of a request. Every method raises ``Unreadable`` where the packet is too short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise Unreadable
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        return self.take(self.u32())

    def text(self) -> bytes:
        """A string that a C program can hold: a NUL only at its end."""
        text = self.string().removesuffix(b"\0")
        if b"\0" in text:
            raise Unreadable
        return text

    def path(self) -> bytes:
        """A path that no program can take for an option; the empty one is no place."""
        path = self.text()
        return path if path.startswith(b"/") or not path else b"./" + path

    def attrs(self) -> Attrs:
        flags = self.u32()
        size = self.u64() if flags & _SIZE else None
        owner = (self.u32(), self.u32()) if flags & _UIDGID else None
        mode = self.u32() if flags & _PERMISSIONS else None
        times = (self.u32(), self.u32()) if flags & _TIMES else None
        if flags & _MORE:
            for _ in range(self.u32()):
                self.string()
                self.string()
        return Attrs(size, owner, mode, times)


@dataclass(frozen=True, slots=True)
class Attrs:
    """What a request sets."""

    size: int | None
    owner: tuple[int, int] | None
    mode: int | None
    times: tuple[int, int] | None


def u32(number: int) -> bytes:
    """A number of four bytes."""
    return number.to_bytes(4, "big")


def string(data: bytes) -> bytes:
    """Bytes behind their length."""
    return len(data).to_bytes(4, "big") + data


def status(code: int, text: str = "") -> bytes:
    """The answer that is nothing but a status."""
    return bytes([STATUS]) + u32(code) + string((text or TEXTS[code]).encode()) + string(b"")


def attributes(of: Status) -> bytes:
    """What a file is, as far as version 3 tells it."""
    times = of.accessed & 0xFFFFFFFF, of.modified & 0xFFFFFFFF
    return struct.pack(
        ">IQIIIII", _SIZE | _UIDGID | _PERMISSIONS | _TIMES, of.size, of.uid & 0xFFFFFFFF, of.gid & 0xFFFFFFFF,
        of.mode & 0xFFFFFFFF, *times,
    )  # fmt: skip


def entry(name: bytes, of: Status) -> bytes:
    """One of a directory's entries, with its line of `ls -l`; owners are numbers."""
    then = time.gmtime(of.modified)
    recent = abs(time.time() - of.modified) < 180 * 86400
    when = time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", then)
    line = f"{stat.filemode(of.mode)} {of.links:3} {of.uid:<8} {of.gid:<8} {of.size:8} {when} ".encode()
    return string(name) + string(line + name) + attributes(of)


def one_name(name: bytes) -> bytes:
    """The answer that is one name, without attributes."""
    return bytes([NAME]) + u32(1) + string(name) + string(name) + u32(0)
