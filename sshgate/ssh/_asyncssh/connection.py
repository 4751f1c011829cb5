"""asyncssh's server connection with corrections and bounds.

``Transport`` is a connection; its base classes are ``userauth.UserAuth`` (logins) and ``incoming.BoundedInput``
(input). Its channels are ``AsyncsshSessionChannel`` and ``AsyncsshForwardChannel``. They add bounds that asyncssh lacks
(work per turn of the loop, input before login, output to a peer that does not read, queued requests), and fix problems
with real clients. ``fast_path.FastTransport`` makes the path of each packet cheaper.
"""

from __future__ import annotations

import asyncio
import copy
import socket
import sys
from collections.abc import Awaitable, Sequence
from typing import Any, cast

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_USERAUTH_REQUEST,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
)
from asyncssh.constants import OPEN_RESOURCE_SHORTAGE as SHORTAGE
from asyncssh.packet import SSHPacket, String, UInt32

from sshgate.forwarding.destinations import Tcp, Unix
from sshgate.ssh._asyncssh.channel import (
    SMALLEST_PACKET,
    AsyncsshForwardChannel,
    AsyncsshSessionChannel,
    channel_and_packet_size,
    is_open,
    tcp,
    unix,
)
from sshgate.ssh._asyncssh.incoming import LONGEST_REQUEST
from sshgate.ssh._asyncssh.userauth import UserAuth
from sshgate.stream.tasks import Event

# Bytes waiting in the TCP transport above which channels stop writing, and at which they continue.
OUTPUT_HIGH = 256 * 1024
OUTPUT_LOW = 64 * 1024
# Replies (to keepalives, unknown requests, ...) ignore flow control, so above this reading stops.
OUTPUT_STUCK = 1 << 20
# Receive window of a forwarded connection.
FORWARD_WINDOW = 512 * 1024
# Queued global requests at which reading stops. They wait for each other, and setting up a listener takes time: the
# first may wait for a session, whose request comes after those for all other listeners (`ssh.forwards_per_connection`).
WAITING_REQUESTS = 250

# Packets that wait for the end of a key exchange. Channels stop writing meanwhile, so these are replies.
MAX_DEFERRED = 4096

# Where Linux's struct tcp_info has tcpi_bytes_acked and tcpi_notsent_bytes (since 4.6; before, the answer is shorter).
BYTES_ACKED = slice(120, 128)
BYTES_NOT_SENT = slice(144, 148)

# OpenSSH's PROTOCOL, section 1.9.
MSG_PING, MSG_PONG = 192, 193

_NO_MORE_SESSIONS = String("no-more-sessions@openssh.com")


class Transport(UserAuth):
    """One SSH connection, below the ``Owner`` that decides for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop, options)
        self.writable = Event()
        """Set while channels may write: the TCP transport has room, and no key exchange is under way."""
        self._output_full = False
        self._request_due = False

    @property
    def waiting_output(self) -> int:
        """Bytes that have not been handed to the kernel yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def answers(self) -> bool:
        """Ask the client for a sign of life and wait for it. Returns false once the connection has ended."""
        try:
            await self._make_global_request(b"keepalive@openssh.com")
        except asyncssh.Error:
            return False
        return self._transport is not None

    def progress(self) -> int | None:
        """Return how much the client's TCP has confirmed, while output waits that it could not be sent yet.

        ``None``: none waits, or that cannot be known.
        """
        sock = self.get_extra_info("socket")
        if sock is None or sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            known = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_NOT_SENT.stop)
        except OSError:
            return None
        waiting = int.from_bytes(known[BYTES_NOT_SENT], sys.byteorder) + self.waiting_output
        return int.from_bytes(known[BYTES_ACKED], sys.byteorder) if waiting else None

    @property
    def open_sessions(self) -> int:
        """The number of session channels that are not closed by both sides."""
        return sum(isinstance(one, AsyncsshSessionChannel) and is_open(one) for one in self._channels.values())

    @property
    def open_forwards(self) -> int:
        """The number of forwarded connections that are being opened or not closed by both sides."""
        return sum(isinstance(one, AsyncsshForwardChannel) and is_open(one) for one in self._channels.values())

    # --- TCP ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).set_write_buffer_limits(OUTPUT_HIGH, OUTPUT_LOW)
        super().connection_made(transport)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if not self._channels:
            self._acknowledge_now()
        super().data_received(data)

    def _acknowledge_now(self) -> None:
        # Until its first session OpenSSH's client leaves Nagle's algorithm on, and waits 40 ms of every login for our
        # delayed acknowledgement after NEWKEYS. The kernel resets the option, so it is set at every read.
        sock = self.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_QUICKACK") and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def pause_writing(self) -> None:
        # asyncssh does nothing here: only the window, which the peer chooses, would bound the output in memory.
        self._output_full = True
        self.writable.clear()

    def resume_writing(self) -> None:
        self._output_full = False
        self._open_for_channels()
        self._release("output")

    def _open_for_channels(self) -> None:
        if self._kex_complete and not self._output_full:
            self.writable.set()

    def _send(self, data: bytes) -> None:
        super()._send(data)
        self._bound_output()

    def _bound_output(self) -> None:
        if self._output_full and self.waiting_output > OUTPUT_STUCK:
            self._hold("output")

    def send_data(self, channel: int, data: bytes) -> bool:
        """Send data to the client's ``channel`` in a cheaper way. Returns false if there is none."""
        return False

    def _cleanup(self, exc: Exception | None) -> None:
        self.writable.set()
        super()._cleanup(exc)

    # --- packets ---

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        super().send_packet(pkttype, *args, handler=handler)
        if len(self._deferred_packets) > MAX_DEFERRED:
            self._deferred_packets = []
            self._end(asyncssh.ProtocolError("Key exchange not finished"))

    def log_sent_packet(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: asyncssh would format a text for every packet, even if it is not logged."""

    def log_received_packet(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, as above."""

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        # OpenSSH's client hides the timing of keystrokes only if the server answers its pings.
        self._extensions_to_send[b"ping@openssh.com"] = b"0"
        super().send_newkeys(k, h)
        if self._kex_complete:  # else the next exchange has begun
            # Only the exchange's hash needed them, 1 to 3 KiB. What is left says that there was one.
            self._client_kexinit, self._server_kexinit = self._client_kexinit[:1], b""
        self._open_for_channels()
        if self.owner is not None:
            self.owner.keys_exchanged()

    # --- key exchange ---

    def _send_kexinit(self) -> None:
        super()._send_kexinit()
        # asyncssh keeps all packets until the exchange is done, and the client decides when that is.
        self.writable.clear()

    async def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        # asyncssh treats a guess as wrong if the chosen method is not the client's first. By RFC 4253 section 7 it is
        # also wrong if both sides' first methods, or first host key types, differ. dropbear follows the RFC, and
        # would be disconnected with "Key exchange not in progress".
        await super()._process_kexinit(pkttype, pktid, packet)
        offer = SSHPacket(self._client_kexinit[17:])
        lists = [offer.get_namelist() for _ in range(10)]
        follows = offer.get_boolean()
        ours = (self._kex_algs[0], next(iter(self._server_host_key_algs or ()), b""))
        theirs = (next(iter(lists[0]), b""), next(iter(lists[1]), b""))
        self._ignore_first_kex = follows and ours != theirs
        if not self._session_id:
            self._first_offer(lists)

    def _first_offer(self, lists: Sequence[Sequence[bytes]]) -> None:
        """Look at the lists of names of the client's first KEXINIT (RFC 4253 section 7.1)."""

    def choose_server_host_key(self, peer_host_key_algs: Sequence[bytes]) -> bool:
        # asyncssh stores the chosen RSA hash in the key object, which all connections share, so concurrent logins
        # could use each other's hash. Each connection gets a copy of the key.
        if not super().choose_server_host_key(peer_host_key_algs):
            return False
        chosen = next(alg for alg in peer_host_key_algs if alg in self._server_host_keys)
        self._server_host_key = copy.copy(self._server_host_keys[chosen])
        if chosen != self._server_host_key.algorithm:
            self._server_host_key.set_sig_algorithm(chosen)
        return True

    def _process_ping(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Answer a ping of OpenSSH. Like sshd, drop it during a key exchange rather than queue the answer."""
        data = packet.get_string()
        packet.check_end()
        if self._kex_complete:
            self.send_packet(MSG_PONG, String(data))

    # --- requests ---

    def _process_global_request_bounded(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if len(packet.get_remaining_payload()) > LONGEST_REQUEST:
            raise asyncssh.ProtocolError("Request too long")
        if len(self._global_request_queue) >= WAITING_REQUESTS:
            self._hold("requests")
        if packet.get_remaining_payload().startswith(_NO_MORE_SESSIONS) and self.owner is not None:
            # Handled out of order: a listener that is being set up may be waiting for a session.
            self.owner.sessions_ended()
        super()._process_global_request(pkttype, pktid, packet)

    def _process_tcpip_forward_global_request(self, packet: SSHPacket) -> None:
        self._listen(tcp(packet))

    def _process_streamlocal_forward_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        self._listen(unix(packet))

    def _process_cancel_tcpip_forward_global_request(self, packet: SSHPacket) -> None:
        self._report_global_response(self.owner is not None and self.owner.unlisten(tcp(packet)))

    def _process_cancel_streamlocal_forward_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        self._report_global_response(self.owner is not None and self.owner.unlisten(unix(packet)))

    def _report_global_response(self, result: bool | bytes) -> None:
        super()._report_global_response(result)
        if len(self._global_request_queue) < WAITING_REQUESTS:
            self._release("requests")

    def _service_next_global_request(self) -> None:
        # asyncssh serves the next request from within the answer to the last, a whole queue deep. Here it is work.
        self._request_due = True
        self.budget.schedule()

    def _do_next(self) -> bool:
        if not self._request_due:
            return super()._do_next()
        self._request_due = False
        super()._service_next_global_request()
        return True

    def _listen(self, where: Tcp | Unix) -> None:
        if self.owner is None:
            self._report_global_response(False)
        else:
            self.create_task(self._answer(where, self.owner.listen(where)))

    async def _answer(self, where: Tcp | Unix, listening: Awaitable[int | None]) -> None:
        port = await listening
        chosen = port if isinstance(where, Tcp) and where.port == 0 else None
        self._report_global_response(UInt32(chosen) if chosen is not None else port is not None)

    def _process_hostkeys_prove_00_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        # asyncssh signs as often as the client asks. OpenSSH's asks once for each key.
        if len(packet.get_remaining_payload()) > sum(len(String(key)) for key in self._all_server_host_keys):
            self._report_global_response(False)
        else:
            super()._process_hostkeys_prove_00_at_openssh_dot_com_global_request(packet)

    def _process_channel_open_bounded(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        opening = packet.get_remaining_payload()
        number, size = channel_and_packet_size(opening)
        if 0 < size < SMALLEST_PACKET:
            self.send_channel_open_failure(number, SHORTAGE, "your packets are too small", "")
        elif len(opening) > LONGEST_REQUEST:
            self.send_channel_open_failure(number, SHORTAGE, "the address is too long", "")
        else:
            super()._process_channel_open(pkttype, pktid, packet)

    # asyncssh ends the connection, and all its sessions with it, if a destination is not UTF-8. One program that uses
    # `-D` can choose such a name, and a path may be any bytes.

    def _process_direct_tcpip_open(self, packet: SSHPacket) -> tuple[Any, Any]:
        host, port = packet.get_string(), packet.get_uint32()
        return self._to_destination(packet, Tcp(host.decode("utf-8", "surrogateescape"), port))

    def _process_direct_streamlocal_at_openssh_dot_com_open(self, packet: SSHPacket) -> tuple[Any, Any]:
        return self._to_destination(packet, Unix(packet.get_string().decode("utf-8", "surrogateescape")))

    def _to_destination(self, packet: SSHPacket, destination: Tcp | Unix) -> tuple[Any, Any]:
        packet.get_string(), packet.get_uint32()  # the originator
        packet.check_end()
        if self.owner is None:
            raise asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, "not logged in")
        session = self.owner.connect(destination)
        return self.create_tcp_channel(), session

    def create_tcp_channel(self, *args: Any, **kwargs: Any) -> Any:
        """Return the channel object of a new forwarded connection of any kind."""
        return AsyncsshForwardChannel(self, self._loop, None, "strict", FORWARD_WINDOW, self._max_pktsize)

    def _process_no_more_sessions_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        packet.check_end()
        self._report_global_response(True)

    def create_server_channel(
        self, encoding: str | None = "", errors: str = "", window: int = 0, max_pktsize: int = 0
    ) -> asyncssh.SSHServerChannel[Any]:
        return AsyncsshSessionChannel(
            self, self._loop, self._allow_pty, False, False, 0, 0, None, "strict", self._window, self._max_pktsize
        )

    # asyncssh dispatches through this table, so overridden methods would not be called.
    _packet_handlers = {  # noqa: RUF012
        **UserAuth._packet_handlers,
        MSG_USERAUTH_REQUEST: UserAuth._process_userauth_exactly,
        MSG_GLOBAL_REQUEST: _process_global_request_bounded,
        MSG_CHANNEL_OPEN: _process_channel_open_bounded,
        MSG_PING: _process_ping,
    }
