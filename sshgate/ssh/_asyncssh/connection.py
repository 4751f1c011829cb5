"""What asyncssh lacks on the wire of a connection, by private attributes, each with its reason. Written against 2.24.1.

``Transport`` is the wire of a connection (``reading.Reading`` its input, ``userauth.UserAuth`` its logins),
``wire.ChannelWire`` that of a session. They add the bounds that asyncssh leaves out (work per turn, input before login,
output to a peer that does not read, queued requests), correct what real clients stumble over, and take work off the
path of every packet.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from collections.abc import Awaitable, Sequence
from typing import Any, cast

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_USERAUTH_REQUEST,
)
from asyncssh.constants import OPEN_RESOURCE_SHORTAGE as SHORTAGE
from asyncssh.packet import SSHPacket, String, UInt32

from sshgate.forwarding.values import Tcp, Unix
from sshgate.ssh._asyncssh.channel import SMALLEST_PACKET, AsyncsshSessionChannel, channel_and_packet_size
from sshgate.ssh._asyncssh.forward import AsyncsshForwardChannel, is_open, tcp, unix
from sshgate.ssh._asyncssh.gcm import use_fast_gcm
from sshgate.ssh._asyncssh.userauth import UserAuth

# Output that waits in the TCP transport before channels are asked to stop, and until they may go on.
OUTPUT_HIGH = 256 * 1024
OUTPUT_LOW = 64 * 1024
# What one turn of the event loop says leaves in sends of about this size.
ONE_SEND = 128 * 1024
# Answers (to keepalives, unknown requests, ...) are not asked to stop; from here on no more questions are read.
OUTPUT_STUCK = 1 << 20
# From here on a connection counts as bulk, and takes the best cipher that both sides have.
BULK = 1 << 20
# Input that a forwarded connection may have under way.
FORWARD_WINDOW = 512 * 1024
# Global requests that wait for the one before them, from which on no more is read; a listener takes some time to make.
WAITING_REQUESTS = 100

# OpenSSH's PROTOCOL, section 1.9.
MSG_PING, MSG_PONG = 192, 193

_NO_MORE_SESSIONS = String("no-more-sessions@openssh.com")


class Transport(UserAuth):
    """One SSH connection on the wire."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop, options)
        self.writable = asyncio.Event()
        self.writable.set()
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._bulk_ciphers: list[bytes] = []
        self._usual_rekey_bytes = self._rekey_bytes
        self._bytes_in = 0

    @property
    def waiting_output(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._transport is None else self._outbox_bytes + self._transport.get_write_buffer_size()

    @property
    def open_sessions(self) -> int:
        """Session channels that are not closed by both sides."""
        return sum(isinstance(one, AsyncsshSessionChannel) and is_open(one) for one in self._channels.values())

    @property
    def open_forwards(self) -> int:
        """Forwarded connections that are not closed by both sides, and those that are being opened."""
        return sum(isinstance(one, AsyncsshForwardChannel) and is_open(one) for one in self._channels.values())

    # --- TCP ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).set_write_buffer_limits(OUTPUT_HIGH, OUTPUT_LOW)
        super().connection_made(transport)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if not self._channels:
            self._acknowledge_now()
        super().data_received(data)
        if self._bulk_ciphers:
            self._bytes_in += len(data)
            if self._bytes_in >= BULK and self._auth_complete and self._kex_complete:
                # As asyncssh itself does it, which counts only what it sends.
                self._send_kexinit()
                self._kexinit_sent = True

    def _acknowledge_now(self) -> None:
        # Until its first session OpenSSH's client leaves Nagle's algorithm on and waits for our delayed
        # acknowledgement after NEWKEYS: 40 ms of every login. The option does not last, hence at every read.
        sock = self.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_QUICKACK") and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def pause_writing(self) -> None:
        # Empty in asyncssh: only the window, which the peer chooses, would bound what waits for the network.
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()
        self._release("output")

    def _send(self, data: bytes) -> None:
        # Collected until the turn of the event loop is over: a send for each packet costs bulk a system call, and
        # mostly a switch to the client that it wakes, 32 times for a MiB.
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        if self._outbox_bytes >= ONE_SEND:
            self._flush_outbox()
        elif len(self._outbox) == 1:
            self._loop.call_soon(self._flush_outbox)

    def _flush_outbox(self) -> None:
        outbox, self._outbox, self._outbox_bytes = self._outbox, [], 0
        if outbox:
            super()._send(outbox[0] if len(outbox) == 1 else b"".join(outbox))
            if not self.writable.is_set() and self.waiting_output > OUTPUT_STUCK:
                self._hold("output")

    def _force_close(self, exc: Exception | None) -> None:
        # The reason for the end was written a moment ago.
        self._flush_outbox()
        super()._force_close(exc)

    def _cleanup(self, exc: Exception | None) -> None:
        self.writable.set()
        super()._cleanup(exc)

    # --- packets ---

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        # asyncssh puts a MSG_IGNORE before every packet, against attacks on CBC's chained IV. None of our
        # ciphers chains; without it there is half the work and half the sends for every keystroke.
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    def log_sent_packet(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the text would be put together for every packet, logged or not."""

    def log_received_packet(self, *args: Any, **kwargs: Any) -> None:
        """Nothing, as above."""

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        # OpenSSH's client hides when keys are typed only from a server that answers its pings.
        self._extensions_to_send[b"ping@openssh.com"] = b"0"
        super().send_newkeys(k, h)
        use_fast_gcm(self)
        if self.owner is not None:
            self.owner.keys_exchanged()

    # --- key exchange ---

    def _send_kexinit(self) -> None:
        # The client's order decides, and OpenSSH's has CTR with a MAC before GCM, which costs twice as much. To
        # wait for the client's offer before making ours would cost every login a round trip. So whoever moves
        # more than a little, and has GCM, is asked for new keys once, with GCM alone.
        if self._bulk_ciphers and self._auth_complete:
            self._enc_algs, self._bulk_ciphers = self._bulk_ciphers, []
            self._rekey_bytes = self._usual_rekey_bytes
        super()._send_kexinit()

    def _choose_bulk_ciphers(self, offered: Sequence[Sequence[bytes]]) -> None:
        """Once, at the first exchange: note GCM where the client has it in both directions but prefers another."""
        gcm = [cipher for cipher in self._enc_algs if b"gcm" in cipher]
        both = [cipher for cipher in gcm if all(cipher in ciphers for ciphers in offered)]
        if both and not (self._enc_alg_cs in gcm and self._enc_alg_sc in gcm):
            self._bulk_ciphers = both
            self._rekey_bytes = min(BULK, self._rekey_bytes)

    async def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        # asyncssh calls a guess wrong when the chosen method is not the client's first. RFC 4253 section 7
        # calls it wrong as well when the two first methods, or the two first host key types, differ; dropbear
        # guesses so, and would be cut off with "Key exchange not in progress".
        await super()._process_kexinit(pkttype, pktid, packet)
        offer = SSHPacket(self._client_kexinit[17:])
        lists = [offer.get_namelist() for _ in range(10)]
        follows = offer.get_boolean()
        ours = (self._kex_algs[0], next(iter(self._server_host_key_algs or ()), b""))
        theirs = (next(iter(lists[0]), b""), next(iter(lists[1]), b""))
        self._ignore_first_kex = follows and ours != theirs
        if not self._session_id:
            self._choose_bulk_ciphers(lists[2:4])

    def choose_server_host_key(self, peer_host_key_algs: Sequence[bytes]) -> bool:
        # asyncssh notes the wanted RSA hash in the key object, which all connections share: two logins at a
        # time could sign with each other's. Each gets a copy.
        if not super().choose_server_host_key(peer_host_key_algs):
            return False
        chosen = next(alg for alg in peer_host_key_algs if alg in self._server_host_keys)
        self._server_host_key = copy.copy(self._server_host_keys[chosen])
        if chosen != self._server_host_key.algorithm:
            self._server_host_key.set_sig_algorithm(chosen)
        return True

    def _process_ping(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """A transport message of OpenSSH's own; like sshd's, no answer waits for the end of a key exchange."""
        data = packet.get_string()
        packet.check_end()
        if self._kex_complete:
            self.send_packet(MSG_PONG, String(data))

    # --- requests ---

    def _process_global_request_bounded(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if len(self._global_request_queue) >= WAITING_REQUESTS:
            self._hold("requests")
        if packet.get_remaining_payload().startswith(_NO_MORE_SESSIONS) and self.owner is not None:
            # Heard at once: a listener that is being made ahead of it may wait for a session.
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

    def _listen(self, where: Tcp | Unix) -> None:
        if self.owner is None:
            self._report_global_response(False)
        else:
            self.create_task(self._answer(where, self.owner.listen(where)))

    async def _answer(self, where: Tcp | Unix, listening: Awaitable[int | None]) -> None:
        port = await listening
        chosen = port if isinstance(where, Tcp) and where.port == 0 else None
        self._report_global_response(UInt32(chosen) if chosen is not None else port is not None)

    def _process_channel_open_bounded(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        number, size = channel_and_packet_size(packet.get_remaining_payload())
        if 0 < size < SMALLEST_PACKET:
            self.send_channel_open_failure(number, SHORTAGE, "your packets are too small", "")
        else:
            super()._process_channel_open(pkttype, pktid, packet)

    def create_tcp_channel(self, *args: Any, **kwargs: Any) -> Any:
        """The channel of a forwarded connection."""
        return AsyncsshForwardChannel(self, self._loop, None, "strict", FORWARD_WINDOW, self._max_pktsize)

    def create_unix_channel(self, *args: Any, **kwargs: Any) -> Any:
        """The same for a unix socket."""
        return self.create_tcp_channel()

    def _process_no_more_sessions_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        packet.check_end()
        self._report_global_response(True)

    def create_server_channel(
        self, encoding: str | None = "", errors: str = "", window: int = 0, max_pktsize: int = 0
    ) -> asyncssh.SSHServerChannel[Any]:
        return AsyncsshSessionChannel(
            self, self._loop, self._allow_pty, False, False, 0, 0, None, "strict", self._window, self._max_pktsize
        )

    # asyncssh dispatches by this table, past the methods of a subclass.
    _packet_handlers = {  # noqa: RUF012
        **UserAuth._packet_handlers,
        MSG_USERAUTH_REQUEST: UserAuth._process_userauth_exactly,
        MSG_GLOBAL_REQUEST: _process_global_request_bounded,
        MSG_CHANNEL_OPEN: _process_channel_open_bounded,
        MSG_PING: _process_ping,
    }
