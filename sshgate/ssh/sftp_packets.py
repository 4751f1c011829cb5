"""The packets of SFTP version 3, as OpenSSH's sftp-server parses and writes them, and the queue of requests."""

from __future__ import annotations

import stat
import struct
import time
from dataclasses import dataclass

from sshgate.sandbox.shell_files import Status
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import STDERR, STDOUT, Client
from sshgate.stream.turns import budget

INIT, VERSION, EXTENDED = 1, 2, 200
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
_SIZE, _UIDGID, _PERMISSIONS, _TIMES, _MORE = 1, 2, 4, 8, 1 << 31

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
TEXTS = {
    OK: "Success", EOF: "End of file", NO_SUCH_FILE: "No such file", PERMISSION_DENIED: "Permission denied",
    FAILURE: "Failure", BAD_MESSAGE: "Bad message", UNSUPPORTED: "Operation unsupported",
}  # fmt: skip

# The longest packet that OpenSSH's server accepts.
LONGEST_PACKET = 256 * 1024
# Seconds charged to the client's budget for each reply: the cost of a request that needs nothing from the sandbox.
REQUEST_SECONDS = 0.00005
# No client sends extended attributes; 32,000 of them fit a packet and would take 32 ms to read.
MAX_EXTENDED = 64


class Unreadable(Exception):
    """A malformed packet. OpenSSH's server exits with ``status`` when it gets one."""

    def __init__(self, status: int = 255) -> None:
        super().__init__(status)
        self.status = status


class Packet:
    """Reads the fields of a request in order. Every method raises ``Unreadable`` if the packet is too short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Read ``size`` bytes."""
        if size > len(self._data) - self._at:
            raise Unreadable
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> int:
        """Read one byte as a number."""
        return self.take(1)[0]

    def u32(self) -> int:
        """Read a uint32."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Read a uint64."""
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """Read a string: a uint32 length and that many bytes."""
        return self.take(self.u32())

    def text(self) -> bytes:
        """Read a string that C can represent: one NUL at its end is removed, others raise ``Unreadable``."""
        text = self.string().removesuffix(b"\0")
        if b"\0" in text:
            raise Unreadable
        return text

    def path(self) -> bytes:
        """Read a path. A relative one gets the prefix ``./``, so that no program takes it for an option."""
        path = self.text()
        return path if path.startswith(b"/") or not path else b"./" + path

    def attrs(self) -> Attrs:
        """Read the attributes of a request that sets them. Extended ones are skipped."""
        flags = self.u32()
        size = self.u64() if flags & _SIZE else None
        owner = (self.u32(), self.u32()) if flags & _UIDGID else None
        mode = self.u32() if flags & _PERMISSIONS else None
        times = (self.u32(), self.u32()) if flags & _TIMES else None
        if flags & _MORE:
            extended = self.u32()
            if extended > MAX_EXTENDED:
                raise Unreadable
            for _ in range(extended):
                self.string()
                self.string()
        return Attrs(size, owner, mode, times)


@dataclass(frozen=True, slots=True)
class Attrs:
    """Attributes that a request sets; ``None``: not set. Times are access and modification, in epoch seconds."""

    size: int | None
    owner: tuple[int, int] | None
    mode: int | None
    times: tuple[int, int] | None


def u32(number: int) -> bytes:
    """Encode a uint32."""
    return number.to_bytes(4, "big")


def as_u64(number: int) -> int:
    """Return what a uint64 holds of a number that a sandbox chose."""
    return number & 0xFFFF_FFFF_FFFF_FFFF


def string(data: bytes) -> bytes:
    """Encode a string: its length and its bytes."""
    return len(data).to_bytes(4, "big") + data


def status(code: int, text: str = "") -> bytes:
    """Return a STATUS reply; without ``text`` it has the usual text of ``code``."""
    return bytes([STATUS]) + u32(code) + string((text or TEXTS[code]).encode()) + string(b"")


def attributes(of: Status) -> bytes:
    """Encode a file's attributes: size, owner, mode and times."""
    times = of.accessed & 0xFFFFFFFF, of.modified & 0xFFFFFFFF
    return struct.pack(
        ">IQIIIII", _SIZE | _UIDGID | _PERMISSIONS | _TIMES, as_u64(of.size), of.uid & 0xFFFFFFFF, of.gid & 0xFFFFFFFF,
        of.mode & 0xFFFFFFFF, *times,
    )  # fmt: skip


def entry(name: bytes, of: Status) -> bytes:
    """Encode one entry of a NAME reply, with its line of `ls -l`, in which owners are numbers and times UTC.

    As in OpenSSH's, a time in a year that no calendar has is left out of the line.
    """
    recent = abs(time.time() - of.modified) < 180 * 86400
    try:
        when = time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.gmtime(of.modified))
    except (OSError, OverflowError):
        when = ""
    mode = stat.filemode(of.mode & 0xFFFFFFFF)
    line = f"{mode} {of.links:3} {of.uid:<8} {of.gid:<8} {of.size:8} {when} ".encode()
    return string(name) + string(line + name) + attributes(of)


def one_name(name: bytes) -> bytes:
    """Return a NAME reply with one name and no attributes."""
    return bytes([NAME]) + u32(1) + string(name) + string(name) + u32(0)


class Requests:
    """The client's requests, one at a time, and the replies to them.

    Args:
        early: Input that was already read from the client.
        eof: Whether the client's input has already ended.
    """

    def __init__(self, client: Client, traffic: Traffic, early: bytes, eof: bool) -> None:
        self._client = client
        self._traffic = traffic
        self._eof = eof
        self._buffer = bytearray(early)
        self._budget = budget()
        traffic.up += len(early)

    async def next(self) -> Packet | None:
        """Return the next packet, or ``None`` after the last complete one. Raises ``Unreadable`` if it is too long."""
        if not await self._has(4):
            return None
        size = int.from_bytes(self._buffer[:4], "big")
        if size > LONGEST_PACKET:
            raise Unreadable(11)
        if not await self._has(4 + size):
            return None
        packet = Packet(bytes(self._buffer[4 : 4 + size]))
        del self._buffer[: 4 + size]
        return packet

    async def _has(self, size: int) -> bool:
        while len(self._buffer) < size and not self._eof:
            data = await self._client.read()
            if data is None:
                self._eof = True
            else:
                self._traffic.up += len(data)
                self._buffer += data
        return len(self._buffer) >= size

    async def answer(self, payload: bytes) -> None:
        """Send a reply; its length is put in front."""
        if not self._traffic.down:
            self._traffic.begins()
        self._traffic.down += 4 + len(payload)
        await self._client.write(STDOUT, string(payload))
        await self._budget.charge_and_wait(REQUEST_SECONDS)

    async def complain(self, sentence: str) -> None:
        """Write a sentence for the user to stderr."""
        await self._client.write(STDERR, f"sshgate: {sentence}\n".encode())
