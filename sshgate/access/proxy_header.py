"""The PROXY protocol's header, versions 1 and 2 (haproxy.org's proxy-protocol.txt), read strictly and bounded."""

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
# Of version 1, with its line's end.
LONGEST_LINE = 107
# Of version 2, behind its first 16 bytes: addresses take 36, certificates of a balancer's TLS the most of the rest.
LONGEST_REST = 4096

_PORT = re.compile(r"(0|[1-9][0-9]{0,4})\Z")
_LOCAL, _PROXY = 0x20, 0x21
_UNKNOWN, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31


class Malformed(ValueError):
    """This is no header; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Both ends of a client's connection: where it comes from, and the address it was made to."""

    source: str
    source_port: int
    server: str = ""
    server_port: int = 0


CLOSED = Peer("", 0)
"""Instead of a client: the balancer has closed without a word, as one does that only looks whether we are there."""


def is_header(data: bytes | memoryview) -> bool:
    """Whether this begins as a header does; neither ssh nor HTTP does."""
    begin = bytes(data[: len(V2)])
    return begin.startswith(V1) or begin == V2


async def read(sock: socket.socket) -> Peer | None:
    """Take the header off a socket that does not block, and nothing behind it. ``None``: the balancer itself talks.

    Raises ``Malformed``, and ``OSError``. The caller bounds the time.
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
    """The line of version 1, its end included. Raises ``Malformed``."""
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
    """What follows the signature and the length of version 2. Raises ``Malformed``."""
    if command not in (_LOCAL, _PROXY):
        raise Malformed("its version or command is unknown")
    if family not in (_UNKNOWN, _TCP4, _TCP6, _UNIX):
        raise Malformed("it is about no TCP connection")
    size = {_TCP4: 4, _TCP6: 16}.get(family, 0)
    if command == _LOCAL or not size:
        return None
    if len(rest) < 2 * size + 4:
        raise Malformed("its addresses are cut off")
    _check_values(rest[2 * size + 4 :])
    ports = struct.unpack("!HH", rest[2 * size : 2 * size + 4])
    source, server = (str(ip_address(rest[start : start + size])) for start in (0, size))
    return _peer(source, ports[0], server, ports[1])


def _check_values(values: bytes) -> None:
    """Nothing of them is used, but what does not add up was not written by a balancer."""
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
