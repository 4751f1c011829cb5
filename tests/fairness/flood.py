"""A peer that floods a gateway, as a process of its own: what it sends is made in advance, so sending costs nothing.

``python -m tests.fairness.flood KIND PORT KEY CONNECTIONS MIB`` prints ``ready`` once all its connections are where
the flood begins, floods from the first line of input on, and prints what it has sent, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DEBUG,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_SERVICE_REQUEST,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_REQUEST,
)
from asyncssh.packet import Boolean, SSHPacket, String, UInt32

from sshgate.ssh._asyncssh.connection import MSG_PING
from sshgate.ssh._asyncssh.fast_path import FastGcm
from tests.hostile.peer import Peer, peer

# A flood that is never taken ends by itself.
SECONDS = 2.0
PIECE = 256 * 1024
USER = b"dev"
# The server's keys, once one connection has logged in.
HOST_KEYS: list[bytes] = []


# --- messages ---


def ignore() -> bytes:
    return bytes([MSG_IGNORE]) + String(b"")


def debug() -> bytes:
    return bytes([MSG_DEBUG]) + Boolean(False) + String(b"") + String(b"")


def unimplemented() -> bytes:
    return bytes([MSG_UNIMPLEMENTED]) + UInt32(0)


def service() -> bytes:
    return bytes([MSG_SERVICE_REQUEST]) + String(b"ssh-userauth")


def ask_none() -> bytes:
    return bytes([MSG_USERAUTH_REQUEST]) + String(USER) + String(b"ssh-connection") + String(b"none")


def kexinit() -> bytes:
    return bytes([MSG_KEXINIT]) + bytes(16) + String(b"x") * 10 + Boolean(False) + UInt32(0)


def unknown_message() -> bytes:
    return bytes([200])


def opening(kind: bytes, *more: bytes) -> bytes:
    return bytes([MSG_CHANNEL_OPEN]) + String(kind) + UInt32(7) + UInt32(1 << 20) + UInt32(32768) + b"".join(more)


def refused_open() -> bytes:
    """To a port that no key may reach: there is none of this number."""
    return opening(b"direct-tcpip", String(b"localhost"), UInt32(1), String(b""), UInt32(0))


def global_request(name: bytes, *more: bytes) -> bytes:
    return bytes([MSG_GLOBAL_REQUEST]) + String(name) + Boolean(True) + b"".join(more)


def on(message: int, channel: int, *more: bytes) -> bytes:
    return bytes([message]) + UInt32(channel) + b"".join(more)


def request(channel: int, name: bytes, *more: bytes) -> bytes:
    return on(MSG_CHANNEL_REQUEST, channel, String(name), Boolean(True), *more)


@dataclass(frozen=True)
class Kind:
    """What is sent. ``at``: "start" (no keys yet), "keys", "login", "channel" or "session" (a program runs in it)."""

    at: str
    message: Callable[[int], bytes] | None
    """Of the number of the message; ``None`` for what takes answers of the server."""


KINDS = {
    "ignore before KEXINIT": Kind("start", lambda _: ignore()),
    "debug before KEXINIT": Kind("start", lambda _: debug()),
    "unimplemented before KEXINIT": Kind("start", lambda _: unimplemented()),
    "ignore before login": Kind("keys", lambda _: ignore()),
    "debug before login": Kind("keys", lambda _: debug()),
    "unimplemented before login": Kind("keys", lambda _: unimplemented()),
    "unknown before login": Kind("keys", lambda _: unknown_message()),
    "userauth": Kind("keys", lambda number: ask_none() if number else service()),
    "rekeys before login": Kind("keys", lambda _: kexinit()),
    "ignore": Kind("login", lambda _: ignore()),
    "debug": Kind("login", lambda _: debug()),
    "unknown": Kind("login", lambda _: unknown_message()),
    "keepalives": Kind("login", lambda _: global_request(b"keepalive@openssh.com")),
    "unknown requests": Kind("login", lambda _: global_request(b"?")),
    "listeners": Kind(
        "login", lambda _: global_request(b"tcpip-forward", String(b"localhost"), UInt32(99999))
    ),
    "ends of listeners": Kind(
        "login", lambda _: global_request(b"cancel-tcpip-forward", String(b"localhost"), UInt32(9))
    ),
    "proofs of host keys": Kind(
        "login", lambda _: global_request(b"hostkeys-prove-00@openssh.com", String(max(HOST_KEYS, key=len)))
    ),
    "pings": Kind("login", lambda _: bytes([MSG_PING]) + String(b"x")),
    "rekeys": Kind("login", None),
    "refused opens": Kind("login", lambda _: refused_open()),
    "unknown opens": Kind("login", lambda _: opening(b"?")),
    "sessions": Kind("login", lambda _: opening(b"session")),
    "opened and closed": Kind("login", None),
    "variables refused": Kind("channel", lambda n: request(0, b"env", String(b"LC_%d" % n), String(b"x"))),
    "many modes": Kind(
        "channel", lambda _: request(
            0, b"pty-req", String(b"xterm"), *(UInt32(9),) * 4, String((b"\1" + UInt32(3)) * 40_000)
        )
    ),
    "userauth after login": Kind("login", lambda _: ask_none()),
    "window adjusts": Kind("session", lambda _: on(MSG_CHANNEL_WINDOW_ADJUST, 0, UInt32(1))),
    "bytes": Kind("session", lambda _: on(MSG_CHANNEL_DATA, 0, String(b"x"))),
    "empty data": Kind("session", lambda _: on(MSG_CHANNEL_DATA, 0, String(b""))),
    "variables": Kind("session", lambda n: request(0, b"env", String(b"LC_%d" % n), String(b"x"))),
    "signals": Kind("session", lambda _: request(0, b"signal", String(b"USR1"))),
    "sizes": Kind(
        "session", lambda n: request(0, b"window-change", *(UInt32(size) for size in (80 + n % 50, 24, 0, 0)))
    ),
    "terminals": Kind(
        "session", lambda _: request(0, b"pty-req", String(b"xterm"), *(UInt32(9),) * 4, String(b"\0"))
    ),
    "commands": Kind("session", lambda _: request(0, b"exec", String(b"true"))),
    "subsystems": Kind("session", lambda _: request(0, b"subsystem", String(b"?"))),
}  # fmt: skip


# --- packets ---


def plain(message: bytes) -> bytes:
    """A packet without keys (RFC 4253 section 6)."""
    padding = 4 + -(5 + len(message) + 4) % 8
    return struct.pack(">IB", 1 + len(message) + padding, padding) + message + bytes(padding)


def sealer(client: Peer) -> Callable[[bytes], bytes]:
    """Makes the packets that follow what ``client`` has sent."""
    cipher = client._send_encryption._cipher  # type: ignore[union-attr]
    fast = FastGcm(cipher._key, cipher._iv)

    def seal(message: bytes) -> bytes:
        padding = 4 + -(1 + len(message) + 4) % 16
        header = (1 + len(message) + padding).to_bytes(4, "big")
        return header + fast.seal(header, bytes([padding]) + message + bytes(padding))

    return seal


def flood(messages: Iterator[bytes], packet: Callable[[bytes], bytes], size: int) -> tuple[bytes, int]:
    """So many bytes of packets, and how many those are."""
    made: list[bytes] = []
    total = 0
    while total < size:
        made.append(packet(next(messages)))
        total += len(made[-1])
    return b"".join(made), len(made)


# --- connections ---


class Sink(asyncio.Protocol):
    """Hears all and keeps nothing."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.heard = 0

    def data_received(self, data: bytes) -> None:
        self.heard += len(data)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self.room.set()


@dataclass
class Flooding:
    """One connection and what it will send."""

    transport: asyncio.Transport
    blob: bytes
    messages: int
    sent: int = 0

    @property
    def taken(self) -> int:
        """How many messages the server has taken."""
        return self.messages * self.sent // len(self.blob)

    async def send(self) -> bool:
        """Send it; whether it was taken to the end in time, or the server had enough."""
        sink = Sink()
        self.transport.set_protocol(sink)
        self.transport.resume_reading()
        until = time.monotonic() + SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                for start in range(0, len(self.blob), PIECE):
                    if sink.lost.is_set() or time.monotonic() > until:
                        break
                    self.transport.write(self.blob[start : start + PIECE])
                    await sink.room.wait()
                    self.sent = min(start + PIECE, len(self.blob)) - self.transport.get_write_buffer_size()
                await asyncio.wait_for(sink.lost.wait(), max(0.0, until - time.monotonic()))
        cut = sink.lost.is_set()
        self.transport.abort()
        return cut


@dataclass
class Rekeying:
    """One connection that exchanges keys again and again."""

    client: Peer
    taken: int = 0
    sent: int = 0

    async def send(self) -> bool:
        """Do so; whether the server had enough."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and not self.client.lost.is_set():
            if self.client._kex_complete:
                self.client._send_kexinit()
                self.client._kexinit_sent = True
                self.taken += 1
            await asyncio.sleep(0)
        return self.client.lost.is_set()


@dataclass
class Cycling:
    """One connection that opens, ends and closes sessions, a few at a time."""

    client: Peer
    taken: int = 0
    sent: int = 0

    async def send(self) -> bool:
        """Do so; whether the server had enough."""
        client, until = self.client, time.monotonic() + SECONDS
        while time.monotonic() < until and not client.lost.is_set():
            for _ in range(20):
                self._say(opening(b"session"))
            answers = [await client.hear(MSG_CHANNEL_OPEN_CONFIRMATION) for _ in range(20)]
            for _, answer in answers:
                channel = int.from_bytes(answer[-12:-8], "big")
                self._say(on(MSG_CHANNEL_EOF, channel))
                self._say(on(MSG_CHANNEL_CLOSE, channel))
                self.taken += 3
            for _ in range(20):
                await client.hear(MSG_CHANNEL_CLOSE)
        return client.lost.is_set()

    def _say(self, message: bytes) -> None:
        self.client.say(message[0], message[1:])


async def prepared(
    stack: contextlib.AsyncExitStack, kind: Kind, port: int, key: Path, size: int
) -> Flooding | Rekeying | Cycling:
    """A connection that is where the flood begins."""
    messages = (kind.message(number) for number in count()) if kind.message is not None else iter(())
    if kind.at == "start":
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Sink, "127.0.0.1", port)
        blob, number = flood(messages, plain, size)
        return Flooding(transport, b"SSH-2.0-flood\r\n" + blob, number)
    client = await stack.enter_async_context(peer(port, encryption_algs=["aes128-gcm@openssh.com"]))
    if kind.at != "keys":
        await client.log_in(asyncssh.read_private_key(key), USER)
        packet = SSHPacket((await client.hear(MSG_GLOBAL_REQUEST))[1])
        assert packet.get_string() == b"hostkeys-00@openssh.com"
        packet.get_boolean()
        while packet:
            HOST_KEYS.append(packet.get_string())
    if kind.at in ("channel", "session"):
        await client.open_channel(window=0)
    if kind.at == "session":
        client.request(0, b"exec", String(b"exec cat >/dev/null"))
        await client.hear(99)
    if kind.message is None:
        return Cycling(client) if kind is KINDS["opened and closed"] else Rekeying(client)
    assert client._transport is not None
    client._transport.pause_reading()
    blob, number = flood(messages, sealer(client), size)
    return Flooding(client._transport, blob, number)


async def main(kind: str, port: str, key: str, connections: str, mib: str) -> None:
    """Flood as the command line says."""
    async with contextlib.AsyncExitStack() as stack:
        size = int(float(mib) * (1 << 20))
        floods = [await prepared(stack, KINDS[kind], int(port), Path(key), size) for _ in range(int(connections))]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        cut = await asyncio.gather(*(one.send() for one in floods))
        sent = sum(one.sent for one in floods)
        messages = sum(one.taken for one in floods)
        print(json.dumps({"bytes": sent, "messages": messages, "cut": sum(cut)}), flush=True)
        os._exit(0)  # its peers have no more to say, and the server is not to be waited for


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main(*sys.argv[1:]))
