"""Reader for PROXY protocol headers, versions 1 and 2 (haproxy's proxy-protocol.txt): strict and bounded."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from sshgate.access.identity import endpoint

V1 = b"PROXY "
V2 = b"\r\n\r\n\0\r\nQUIT\n"
# Bytes of a version 1 header, including its line end.
LONGEST_LINE = 107
# Bytes of a version 2 header after the first 16. Two IPv6 addresses take 36; the rest is mostly TLVs, such as client
# certificates from a balancer that terminates TLS.
LONGEST_REST = 4096

_PORT = re.compile(r"(0|[1-9][0-9]{0,4})\Z")
_LOCAL, _PROXY = 0x20, 0x21
_UNKNOWN, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31


class Malformed(ValueError):
    """The header is missing, broken or too long. The message is a phrase about the header, such as "it is cut off"."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Both ends of a client's connection: its own address, and the address that it connected to."""

    source: str
    source_port: int
    server: str = ""
    server_port: int = 0


CLOSED = Peer("", 0)
"""Returned by ``read`` when the peer closed without sending anything, as a balancer's TCP health check does."""


def is_header(data: bytes | memoryview) -> bool:
    """Return whether the data starts like a PROXY header. No SSH or HTTP client sends such a start."""
    begin = bytes(data[: len(V2)])
    return begin.startswith(V1) or begin == V2


async def read(sock: socket.socket) -> Peer | None:
    """Read exactly the header from a non-blocking socket, and nothing after it.

    There is no time limit here: the caller sets one. After cancellation the socket can only be closed, because a part
    of the header has been consumed.

    Returns:
        The client's connection; ``None`` if the header names no client (``UNKNOWN``, ``LOCAL``, a Unix socket), so
        the socket's own peer counts; ``CLOSED`` if the peer closed without sending anything.

    Raises:
        Malformed: this is not a valid header.
        OSError: the connection failed.
    """
    begin = await _exactly(sock, len(V2), at_first=True)
    if not begin:
        return CLOSED
    if begin == V2:
        four = await _exactly(sock, 4)
        (length,) = struct.unpack("!H", four[2:])
        if length > LONGEST_REST:
            raise Malformed(f"{length} bytes are too many")
        return parse_v2(four[0], four[1], await _exactly(sock, length))
    if not begin.startswith(V1):
        raise Malformed("it is missing")
    line = begin
    while not line.endswith(b"\n"):
        if len(line) >= LONGEST_LINE:
            raise Malformed("its line does not end")
        line += await _exactly(sock, 1)
    return parse_v1(line)


def parse_v1(line: bytes) -> Peer | None:
    """Parse a version 1 header, including its line end; ``None`` for ``UNKNOWN``. Raises ``Malformed``."""
    if len(line) > LONGEST_LINE or not line.endswith(b"\r\n") or not line.isascii() or b"%" in line:
        raise Malformed("its line is broken")
    words = line[:-2].decode().split(" ")
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return None
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in ("TCP4", "TCP6"):
        raise Malformed("its line is broken")
    kind = IPv4Address if words[1] == "TCP4" else IPv6Address
    try:
        ends = [kind(text) for text in words[2:4]]
    except ValueError:
        raise Malformed(f"an address is none of {words[1]}") from None
    ports = [int(text) for text in words[4:] if _PORT.match(text)]
    if len(ports) != 2 or max(ports) > 65_535:
        raise Malformed("a port is none")
    return _peer(str(ends[0]), ports[0], str(ends[1]), ports[1])


def parse_v2(command: int, family: int, rest: bytes) -> Peer | None:
    """Parse a version 2 header. Raises ``Malformed``.

    Args:
        command: the byte with version and command.
        family: the byte with address family and protocol.
        rest: what follows the length field: addresses, then TLVs.

    Returns:
        ``None`` for the command ``LOCAL``, an unspecified family, or a Unix socket.
    """
    if command not in (_LOCAL, _PROXY):
        raise Malformed("its version or command is unknown")
    if command == _LOCAL:
        return None  # what follows is to be ignored, the family too
    if family not in (_UNKNOWN, _TCP4, _TCP6, _UNIX):
        raise Malformed("it is about no TCP connection")
    size = {_TCP4: 4, _TCP6: 16}.get(family, 0)
    if not size:
        return None
    if len(rest) < 2 * size + 4:
        raise Malformed("its addresses are cut off")
    _check_values(rest[2 * size + 4 :])
    ports = struct.unpack("!HH", rest[2 * size : 2 * size + 4])
    source, server = (str(ip_address(rest[start : start + size])) for start in (0, size))
    return _peer(source, ports[0], server, ports[1])


def _check_values(values: bytes) -> None:
    """Check that the TLVs fill the rest exactly. They are not used, but a balancer would not send broken ones."""
    while values:
        length = struct.unpack("!H", values[1:3])[0] if len(values) >= 3 else len(values)
        if len(values) < 3 + length:
            raise Malformed("its values are cut off")
        values = values[3 + length :]


def _peer(source: str, source_port: int, server: str, server_port: int) -> Peer:
    return Peer(*endpoint((source, source_port)), *endpoint((server, server_port)))


async def _exactly(sock: socket.socket, number: int, at_first: bool = False) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < number:
        more = await loop.sock_recv(sock, number - len(data))
        if not more and at_first and not data:
            return b""
        if not more:
            raise Malformed("it is cut off")
        data += more
    return data
