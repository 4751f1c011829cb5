"""A peer that speaks SSH's transport correctly and may say anything above it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncssh
from asyncssh.connection import SSHClientConnection
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_REQUEST,
    MSG_DISCONNECT,
    MSG_IGNORE,
    MSG_KEX_LAST,
    MSG_KEXINIT,
    MSG_SERVICE_REQUEST,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from asyncssh.packet import Boolean, SSHPacket, String, UInt32

Message = tuple[int, bytes]


class Peer(SSHClientConnection):
    """A client whose messages above the key exchange come from the test, and whose answers go to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHClientConnectionOptions) -> None:
        super().__init__(loop, options, wait="kex")
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.farewell = ""

    # asyncssh drops what it does not expect; this peer wants to hear everything.
    def open_up(self) -> None:
        """Called once keys are exchanged."""
        self._kex_complete = True
        self._auth_complete = True
        self._auth = cast(Any, self)
        self._channels = cast(Any, _Everything(self))

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        if pkttype == MSG_DISCONNECT:
            packet.get_uint32()
            self.farewell = packet.get_string().decode()
            self.lost.set()
        if pkttype <= MSG_IGNORE or MSG_KEXINIT <= pkttype <= MSG_KEX_LAST:
            return super().process_packet(pkttype, pktid, packet)
        self.heard.put_nowait((pkttype, packet.get_remaining_payload()))
        return True

    def connection_lost(self, exc: Exception | None = None) -> None:
        self.lost.set()
        super().connection_lost(exc)

    def _cleanup(self, exc: Exception | None) -> None:
        self._auth = None
        self._channels = {}
        super()._cleanup(exc)

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        # asyncssh would say MSG_IGNORE before every message, which halves what a test can say in its time.
        if pkttype != MSG_IGNORE or args != (String(b""),):
            super().send_packet(pkttype, *args, handler=handler)

    def begin_rekey(self) -> None:
        """Begin a key exchange that is never finished; what the server says to it is dropped."""
        self.say(MSG_KEXINIT, self._client_kexinit[1:])
        self.process_packet = lambda *_: True  # type: ignore[method-assign]

    def say(self, message: int, *parts: bytes) -> None:
        """Send one message."""
        self.send_packet(message, *parts)

    async def hear(self, *wanted: int) -> Message:
        """The next message of these kinds (none: of any); others before it are dropped."""
        async with asyncio.timeout(10):
            while True:
                message = await self.heard.get()
                if not wanted or message[0] in wanted:
                    return message

    async def until_lost(self, limit: float = 10.0) -> str:
        """Wait for the end of the connection; what the server said."""
        async with asyncio.timeout(limit):
            await self.lost.wait()
        return self.farewell

    def ask_login(self, user: bytes, method: bytes, *more: bytes) -> None:
        """Send an authentication request."""
        self.say(MSG_USERAUTH_REQUEST, String(user), String(b"ssh-connection"), String(method), *more)

    async def begin_login(self) -> None:
        """Ask for the authentication service."""
        self.say(MSG_SERVICE_REQUEST, String(b"ssh-userauth"))
        await self.hear(6)

    async def log_in(self, key: asyncssh.SSHKey, user: bytes = b"user") -> None:
        """Log in as it should be done."""
        await self.begin_login()
        self.ask_login(user, b"publickey", *self.signed(key, user))
        kind, _ = await self.hear(MSG_USERAUTH_SUCCESS, MSG_USERAUTH_FAILURE)
        assert kind == MSG_USERAUTH_SUCCESS

    def signed(self, key: asyncssh.SSHKey, user: bytes) -> tuple[bytes, ...]:
        """The rest of a publickey request, signed for ``user``."""
        algorithm = key.sig_algorithms[0]
        fields = (Boolean(True), String(algorithm), String(key.public_data))
        head = (String(user), String(b"ssh-connection"), String(b"publickey"))
        text = String(self._session_id) + bytes([MSG_USERAUTH_REQUEST]) + b"".join((*head, *fields))
        return (*fields, String(key.sign(text, algorithm)))

    async def open_channel(self, number: int = 0, window: int = 1 << 21, packet: int = 32768) -> tuple[int, int]:
        """Open a session channel; the server's number for it and the window it grants."""
        self.say(MSG_CHANNEL_OPEN, String(b"session"), UInt32(number), UInt32(window), UInt32(packet))
        _, answer = await self.hear(MSG_CHANNEL_OPEN_CONFIRMATION)
        # The recipient was read by the dispatch already where the answer is for a channel.
        words = SSHPacket(answer)
        if len(answer) == 16:
            words.get_uint32()
        return words.get_uint32(), words.get_uint32()

    def request(self, channel: int, name: bytes, *more: bytes, reply: bool = True) -> None:
        """Send a channel request."""
        self.say(MSG_CHANNEL_REQUEST, UInt32(channel), String(name), Boolean(reply), *more)


class _Everything(dict[int, Peer]):
    """Every channel number leads to the peer."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self._peer = peer

    def __missing__(self, number: int) -> Peer:
        return self._peer

    def __bool__(self) -> bool:
        return True


@contextlib.asynccontextmanager
async def peer(port: int, kind: type[Peer] | None = None, receive: int = 0, **options: Any) -> AsyncIterator[Peer]:
    """A peer that has exchanged keys with the server on this port and has said nothing more.

    ``receive`` is the size of its kernel's receive buffer (0: as it comes), ``options`` are asyncssh's.
    """
    loop = asyncio.get_running_loop()
    chosen = asyncssh.SSHClientConnectionOptions(
        host="127.0.0.1", port=port, username="x", known_hosts=None, config=None, agent_path=None, client_keys=None,
        **options,
    )  # fmt: skip
    chosen.waiter = loop.create_future()
    sock = socket.socket()
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.connect(("127.0.0.1", port))
    _, made = await loop.create_connection(lambda: (kind or Peer)(loop, chosen), sock=sock)
    try:
        async with asyncio.timeout(10):
            await chosen.waiter
        made.open_up()
        yield made
    finally:
        made.abort()
        await made.wait_closed()
