"""The PROXY protocol's header: what is one, what is none, and that nothing behind it is taken."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.access.proxy_header import CLOSED, LONGEST_LINE, LONGEST_REST, V2, Malformed, Peer, is_header, read

CLIENT = Peer("192.0.2.7", 40_000, "198.51.100.1", 22)
CLIENT_6 = Peer("2001:db8::7", 40_000, "2001:db8::1", 22)


def v2(rest: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return V2 + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


def ends(peer: Peer) -> bytes:
    addresses = ip_address(peer.source).packed + ip_address(peer.server).packed
    return addresses + struct.pack("!HH", peer.source_port, peer.server_port)


async def taken(data: bytes, close: bool = True) -> tuple[Peer | None, bytes]:
    """What is read off a socket that brings ``data``, and what is left there."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(data)
        if close:
            theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(5):
            peer = await read(ours)
        try:
            return peer, ours.recv(1 << 16)
        except BlockingIOError:
            return peer, b""


@pytest.mark.parametrize(
    ("header", "peer"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 22\r\n", CLIENT),
        (b"PROXY TCP6 2001:db8::7 2001:DB8:0::1 40000 22\r\n", CLIENT_6),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 40000 22\r\n", CLIENT),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", None),
        (v2(ends(CLIENT)), CLIENT),
        (v2(ends(CLIENT_6), family=0x21), CLIENT_6),
        (v2(ends(CLIENT) + b"\x04\0\x03abc\x05\0\0"), CLIENT),
        (v2(b"", command=0x20, family=0), None),
        (v2(ends(CLIENT), command=0x20), None),
        (v2(b"", command=0x20, family=0x12), None),
        (v2(b"x" * 216, family=0x31), None),
        (v2(b"", family=0x00), None),
    ],
)
async def test_a_header_is_taken_to_the_byte(header: bytes, peer: Peer | None) -> None:
    assert is_header(header)
    for behind in (b"", b"SSH-2.0-x\r\n", b"\r\n\r\nPROXY "):
        assert await taken(header + behind) == (peer, behind)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 22\n", b"PROXY TCP4 192.0.2.7  198.51.100.1 40000 22\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 040000 22\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 22\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 4e4 22\r\n",
        b"PROXY TCP4 192.0.2.007 198.51.100.1 4 22\r\n", b"PROXY TCP4 2001:db8::7 2001:db8::1 4 22\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 4 22\r\n", b"PROXY UDP4 192.0.2.7 198.51.100.1 4 22\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::1 4 22\r\n", "PROXY TCP4 ١٩٢.0.2.7 198.51.100.1 4 22\r\n".encode(),
        b"PROXY " + b"x" * LONGEST_LINE, b"PROXY UNKNOWN " + b"x" * LONGEST_LINE + b"\r\n", b"PROXY TCP4 192.0.2.7",
        V2, V2 + b"\x21", v2(ends(CLIENT))[:-1], v2(ends(CLIENT)[:-1]), v2(ends(CLIENT_6)[:20], family=0x21),
        v2(ends(CLIENT), command=0x11), v2(ends(CLIENT), command=0x22), v2(ends(CLIENT), family=0x12),
        v2(ends(CLIENT), family=0x41), v2(b"x" * 100, length=LONGEST_REST + 1),
        v2(ends(CLIENT) + b"\x04\0\x09abc"), v2(ends(CLIENT) + b"\x04\0"),
    ],
)  # fmt: skip
async def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        await taken(data)


async def test_no_more_is_read_than_a_header_may_have() -> None:
    with pytest.raises(Malformed, match="does not end"):
        await taken(b"PROXY " + b"x" * 10_000, close=False)
    with pytest.raises(Malformed, match="too many"):
        await taken(v2(b"", length=65_535), close=False)


async def test_a_balancer_that_only_looks_is_no_mistake() -> None:
    assert (await taken(b""))[0] is CLOSED


@given(data=st.binary(max_size=300), begin=st.sampled_from([b"", b"PROXY ", V2, V2 + b"\x21\x11", v2(ends(CLIENT))]))
def test_nothing_but_a_refusal_comes_of_garbage(data: bytes, begin: bytes) -> None:
    async def work() -> None:
        try:
            await taken(begin + data)
        except Malformed:
            pass

    asyncio.run(work())
