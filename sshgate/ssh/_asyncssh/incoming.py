"""The receiving side of a connection: its peer's address, how it is refused, and bounds on what it may send.

asyncssh processes all received data at once, so a client that sends small packets without pause delays all others. Here
each connection has a budget (``sshgate.stream.turns``). Waiting data is bounded in bytes. Before login there is also a
bound on the total, which no real login comes near to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_DEBUG,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_REQUEST,
)
from asyncssh.misc import DisconnectError
from asyncssh.packet import SSHPacket

from sshgate.access.proxy_header import Peer, is_header
from sshgate.stream import turns

# sshd's message to clients that it refuses before the version exchange. OpenSSH's client shows it.
TURNED_AWAY = b"Not allowed at this time\r\n"
# Seconds that refused clients have to read it, and how many may be reading at the same time.
READING_SECONDS = 1.0
MOST_TURNED_AWAY = 100
# No packet before login needs more than a large certificate and its signature.
PACKET_BEFORE_LOGIN = 64 * 1024
# A login takes 10 packets and two more for each key that is tried; with large certificates, some hundred KiB.
PACKETS_BEFORE_LOGIN = 200
# Of messages that are handled in one piece, whatever they ask for: an offer of algorithms (OpenSSH's takes 1.6 KiB) is
# searched name by name, and a request with a MiB of terminal modes would take 0.15 s.
LONGEST_REQUEST = 8 * 1024
BYTES_BEFORE_LOGIN = 1 << 20
# The size of one read of the event loop, which may come on top of an incomplete packet.
ONE_READ = 256 * 1024

# Seconds charged for work that a message causes in another task: a key pair, a check of a signature, a session.
PRICES = {MSG_KEXINIT: 0.0005, MSG_USERAUTH_REQUEST: 0.0005, MSG_CHANNEL_OPEN: 0.001}
# Key exchanges that a client may begin: so many at once, and per second. More have to wait. OpenSSH begins one for each
# packet if its RekeyLimit is very small.
REKEYS_AT_ONCE = 50
REKEYS_PER_SECOND = 10.0

_Handler = Callable[["BoundedInput", int, int, SSHPacket], Any]


def _after_kexinit(handler: _Handler) -> _Handler:
    """Refuse a message before the first key exchange. RFC 4253 allows these at any time, but no client needs that."""

    def process(self: BoundedInput, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        if not self._client_kexinit:
            raise asyncssh.ProtocolError("Unexpected message before key exchange")
        return handler(self, pkttype, pktid, packet)

    return process


_HANDLERS = cast("dict[int, _Handler]", asyncssh.SSHServerConnection._packet_handlers)


class BoundedInput(asyncssh.SSHServerConnection):
    """A connection that processes its input in bounded pieces, one per turn of the event loop."""

    # `SshServer` sets both on each object. Behind a load balancer the socket has the balancer's address.
    peer = Peer("", 0)
    turned_away: set[asyncio.Transport] = set()  # noqa: RUF012

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop, options)
        hold, release = partial(self._hold, "turn"), partial(self._release, "turn")
        self.budget = turns.budget(self._work_off, hold, release, self._force_close, loop)
        """The budget for processing what the client sends, and for sending to it."""
        self._max_recv_pktlen = PACKET_BEFORE_LOGIN  # `userauth` raises it after login
        self._held: set[str] = set()
        self._early_packets = 0
        self._early_bytes = 0
        self._rekeys_paid_until = 0.0

    @property
    def greeted(self) -> bool:
        """Whether the client has sent its version string."""
        return bool(self._client_version)

    def turn_away(self) -> None:
        """Refuse the connection with a message, before anything is read from it.

        The socket is closed in the background, after ``READING_SECONDS``. With ``MOST_TURNED_AWAY`` clients waiting
        already, it is closed at once and without the message.
        """
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self._loop.call_soon(self._cleanup, None)
        others = self.turned_away
        if len(others) >= MOST_TURNED_AWAY:
            transport.abort()
            return
        # The client's data stays unread, so closing at once would send a RST and the client would lose the message.
        others.add(transport)
        transport.pause_reading()
        transport.write(TURNED_AWAY)
        transport.write_eof()

        def gone() -> None:
            others.discard(transport)
            transport.abort()

        self._loop.call_later(READING_SECONDS, gone)

    def _recv_version(self) -> bool:
        if is_header(self._inpbuf):
            raise asyncssh.ProtocolError("a PROXY header from an address that ssh.proxy_protocol does not list")
        return super()._recv_version()

    # --- packets ---

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        self._inpbuf = b"".join((self._inpbuf, data)) if self._inpbuf else data
        self.budget.schedule()
        self._bound_input()

    def _work_off(self) -> bool:
        """Process packets until the share is used up. Returns whether some are left."""
        # Like asyncssh's `_recv_data`, but it stops.
        self._reset_keepalive_timer()
        over = self.budget.exhausted
        try:
            while self._transport is not None and self._do_next():
                if over():
                    return True
        except DisconnectError as error:
            self._end(error)
        except ValueError:
            # asyncssh lets some pass, of a version line or a packet without content. It is the client's mistake: what
            # reaches the budget is logged with a traceback, each time.
            self._end(asyncssh.ProtocolError("Malformed packet"))
        return False

    def _do_next(self) -> bool:
        """Do one piece of the work that has arrived. Returns whether there was one."""
        return bool(self._inpbuf) and "requests" not in self._held and self._recv_handler()

    def _end(self, error: DisconnectError) -> None:
        self._send_disconnect(error.code, error.reason, error.lang)
        self._force_close(error)

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        # Charged ahead: the task runs in a later turn, and the next messages should wait for it.
        if price := PRICES.get(pkttype):
            self.budget.charge(price)
        return super().process_packet(pkttype, pktid, packet)

    def _finish_recv_packet(
        self, pkttype: int, seq: int, task: asyncio.Task[None] | None = None, is_async: bool = False
    ) -> None:
        super()._finish_recv_packet(pkttype, seq)
        if not self._auth_complete:
            self._count_early()
        if "input" in self._held and len(self._inpbuf) <= self._max_recv_pktlen + ONE_READ:
            self._release("input")
        if is_async and self._inpbuf:
            self.budget.schedule()

    def _count_early(self) -> None:
        self._early_packets += 1
        self._early_bytes += self._pktlen
        if self._early_packets > PACKETS_BEFORE_LOGIN or self._early_bytes > BYTES_BEFORE_LOGIN:
            # Not raised, as this is also called when a task ends.
            self._end(asyncssh.ProtocolError("Too much sent before authentication"))

    def _process_kexinit_if_due(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        if self._session_id and not self._auth_complete:
            raise asyncssh.ProtocolError("Unexpected key exchange before authentication")
        if len(packet.get_remaining_payload()) > LONGEST_REQUEST:
            raise asyncssh.ProtocolError("Too many algorithms")
        if self._session_id and not self._kexinit_sent:
            self._pace_rekeys()
        return self._process_kexinit(pkttype, pktid, packet)

    def _pace_rekeys(self) -> None:
        """Read no further for a while if the client begins key exchanges too often."""
        now = self._loop.time()
        earliest = now - REKEYS_AT_ONCE / REKEYS_PER_SECOND
        self._rekeys_paid_until = max(self._rekeys_paid_until, earliest) + 1 / REKEYS_PER_SECOND
        if self._rekeys_paid_until > now:
            self._hold("rekeys")
            self._loop.call_later(self._rekeys_paid_until - now, self._release, "rekeys")

    def _cleanup(self, exc: Exception | None) -> None:
        self.budget.close()
        super()._cleanup(exc)

    # --- reading is paused while there is a reason ---

    def _bound_input(self) -> None:
        # While a task handles a packet (key exchange, authentication), asyncssh appends all input to its buffer:
        # 47 MiB in 2.5 s were measured. An incomplete packet alone cannot be this long.
        if len(self._inpbuf) > self._max_recv_pktlen + ONE_READ:
            self._hold("input")

    def _hold(self, reason: str) -> None:
        if not self._held and self._transport is not None:
            self._transport.pause_reading()
        self._held.add(reason)

    def _release(self, reason: str) -> None:
        if reason in self._held:
            self._held.remove(reason)
            if not self._held and self._transport is not None:
                self._transport.resume_reading()
            if reason == "requests":
                self.budget.schedule()

    # asyncssh dispatches through this table, so overridden methods would not be called.
    _packet_handlers = {  # noqa: RUF012
        **asyncssh.SSHServerConnection._packet_handlers,
        MSG_KEXINIT: _process_kexinit_if_due,
        **{kind: _after_kexinit(_HANDLERS[kind]) for kind in (MSG_IGNORE, MSG_UNIMPLEMENTED, MSG_DEBUG)},
    }
