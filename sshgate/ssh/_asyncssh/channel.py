"""asyncssh's channels of sessions and of forwarded connections, with corrections and bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

import asyncssh
from asyncssh.channel import SSHChannel, SSHForwardChannel
from asyncssh.constants import MSG_CHANNEL_CLOSE, MSG_CHANNEL_EOF, MSG_CHANNEL_WINDOW_ADJUST, OPEN_RESOURCE_SHORTAGE
from asyncssh.packet import Boolean, SSHPacket, String, UInt32

from sshgate.forwarding.destinations import Tcp, Unix
from sshgate.ssh._asyncssh.incoming import LONGEST_REQUEST
from sshgate.stream.tasks import Event

# Data that arrives while a channel is paused is joined up to this size.
COALESCE_LIMIT = 32 * 1024
# Clients with a smaller maximum packet are refused: sending one-byte packets would keep the whole gateway busy.
SMALLEST_PACKET = 256


class Session(Protocol):
    """Callbacks of a channel to its session, in addition to asyncssh's."""

    def env_received(self, name: bytes, value: bytes) -> bool:
        """The client sets an environment variable. Returns whether it is accepted."""

    def output_refused(self) -> None:
        """The client reads no more output (eow@openssh.com)."""

    def agent_offered(self) -> bool:
        """The client offers its agent. Returns whether it is accepted."""

    def close_received(self) -> bool:
        """The client has closed the channel. Returns whether the session goes on for a while; it ends it then."""


def channel_and_packet_size(opening: bytes) -> tuple[int, int]:
    """Return the client's channel number and maximum packet size from its channel open request.

    Raises ``PacketDecodeError``.
    """
    packet = SSHPacket(opening)
    packet.get_string()
    number, _window, size = (packet.get_uint32() for _ in range(3))
    return number, size


async def wait_writable(gone: Event, *rooms: Event) -> None:
    """Wait until each of ``rooms`` (the channel's window, the TCP transport) is set, or the channel is ``gone``."""
    while not gone.is_set():
        full = next((room for room in rooms if not room.is_set()), None)
        if full is None:
            return
        await full.wait()


class BoundedChannel(SSHChannel[bytes]):
    """A channel of any kind, with bounds on what its client makes it keep."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # asyncio's takes 800 bytes.
        self._close_event = cast(asyncio.Event, Event())

    def _accept_data(self, data: bytes, datatype: int | None = None) -> None:
        # asyncssh queues one object per packet: a window of one-byte packets would take a hundred times its size.
        paused = self._recv_paused
        if paused and self._recv_buf and self._send_state not in {"close_pending", "closed"}:
            last = self._recv_buf[-1][0]
            if isinstance(last, bytearray) and len(last) < COALESCE_LIMIT:
                last += data
                self._recv_window -= len(data)
                return
        super()._accept_data(cast(bytes, bytearray(data)) if paused else data, datatype)

    def _deliver_data(self, data: bytes, datatype: int | None = None) -> None:
        # Open the receive window by what was delivered. asyncssh reopens the whole window at each packet that it
        # delivers, although a channel that was paused may have more undelivered data. Each read of a program slower
        # than its client then let in another window: 720 MiB of one GiB.
        waiting = sum(len(chunk) for chunk, _ in self._recv_buf)
        room = self._init_recv_window - self._recv_window - waiting
        if room > self._init_recv_window / 2:
            self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(room))
            self._recv_window += room
        if self._session is not None:
            self._session.data_received(data, datatype)

    def log_sent_packet(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, as in ``Transport``."""

    def log_received_packet(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, as in ``Transport``."""


class AsyncsshSessionChannel(BoundedChannel, asyncssh.SSHServerChannel[bytes]):
    """A session channel that sends the exit status after the output, and bounds what its client can queue."""

    _end_requests: tuple[tuple[bytes, bytes], ...] = ()

    def end_with_status(self, status: int) -> None:
        """Send EOF, exit-status and close after all output. Returns at once."""
        self._end(b"exit-status", UInt32(status))

    def end_with_signal(self, name: str, core_dumped: bool) -> None:
        """Send EOF, exit-signal and close after all output. Returns at once."""
        self._end(b"exit-signal", String(name) + Boolean(core_dumped) + String("") + String(""))

    def _end(self, request: bytes, arguments: bytes) -> None:
        if self._conn is None or self._send_state in {"close_pending", "closed"}:
            return
        self._end_requests = ((request, arguments),)
        self.close()

    def write(self, data: bytes, datatype: int | None = None) -> None:
        # Fast path: data that fits into one packet and into the window need not go through asyncssh's buffer.
        now = datatype is None and self._send_state == "open" and not self._send_buf
        fits = 0 < len(data) <= min(self._send_window, self._send_pktsize)
        if now and fits and cast(Any, self._conn).send_data(cast(int, self._send_chan), data):
            self._send_window -= len(data)
        else:
            super().write(data, datatype)

    def _close_send(self) -> None:
        # asyncssh would send the status before output that waits for the window, and some clients stop reading
        # when they get the status.
        if self._end_requests and not self._send_buf and self._send_state != "closed":
            requests, self._end_requests = self._end_requests, ()
            self.send_packet(MSG_CHANNEL_EOF)
            for request, arguments in requests:
                self._send_request(request, arguments)
        super()._close_send()

    def _process_close_at_once(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        # asyncssh reports the close only after paused input was read. Here the session gets that, and learns of it.
        session = cast(Any, self._session)
        waiting, self._recv_buf = self._recv_buf, []
        if session is not None and self._send_state == "open":
            for data, datatype in waiting:
                session.data_received(data, datatype)
            if self._recv_state == "eof_pending":
                session.eof_received()
            if session.close_received():
                packet.check_end()
                self._recv_state, self._recv_paused = "close_pending", False
                self._send_buf, self._send_buf_len = [], 0  # nobody reads it
                return
        self._recv_paused = False
        if self._recv_state != "closed":  # by an exception in the session
            super()._process_close(pkttype, pktid, packet)

    def _start_session(self, command: str | None = None, subsystem: str | None = None) -> bool:
        # asyncssh replaces the request by a certificate's force-command. Here the policy does that, for keys and
        # certificates alike, and passes on the original.
        if self._session_started:
            return False
        self._session_started = True
        if command is not None:
            return bool(self._session.exec_requested(command))
        if subsystem is not None:
            return bool(self._session.subsystem_requested(subsystem))
        return bool(self._session.shell_requested())

    def _process_pty_req_request(self, packet: SSHPacket) -> bool:
        # asyncssh reads as many modes as there are; RFC 4254 has less than 160. It ends the connection if the name of
        # the terminal is not ASCII.
        if len(packet.get_remaining_payload()) > LONGEST_REQUEST:
            return False
        term = packet.get_string()
        known = String(term if term.isascii() else b"?")
        return super()._process_pty_req_request(SSHPacket(known + packet.get_remaining_payload()))

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        # asyncssh refuses commands that are not UTF-8, but a command may be any bytes.
        command = packet.get_string()
        packet.check_end()
        return self._start_session(command=command.decode("utf-8", "surrogateescape"))

    def _process_env_request(self, packet: SSHPacket) -> bool:
        # asyncssh stores every variable, without a bound on size and number.
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        return cast(Session, self._session).env_received(name, value)

    def _process_eow_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:
        packet.check_end()
        cast(Session, self._session).output_refused()
        return True

    def _refuse(self, packet: SSHPacket) -> bool:
        # asyncssh would refuse in a task, behind which further requests queue without a bound.
        return False

    _process_x11_req_request = _refuse

    def _process_auth_agent_req_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:  # type: ignore[override]
        # asyncssh would listen on a socket of the gateway's own machine.
        packet.check_end()
        return cast(Session, self._session).agent_offered()

    _packet_handlers = {  # noqa: RUF012
        **asyncssh.SSHServerChannel._packet_handlers,
        MSG_CHANNEL_CLOSE: _process_close_at_once,
    }


class ForwardSession(Protocol):
    """Callbacks of a channel to its session, in addition to asyncssh's."""

    def close_received(self) -> None:
        """The client has closed the channel. Bytes that it sent before may follow."""


class AsyncsshForwardChannel(BoundedChannel, SSHForwardChannel[bytes]):
    """The channel of one forwarded connection of any kind."""

    async def open_back(self, session: Any, kind: bytes, *arguments: bytes) -> None:
        """Open a channel to the client.

        Args:
            session: Receives asyncssh's callbacks, and those of ``ForwardSession``.
            kind: The channel type of RFC 4254, such as ``forwarded-tcpip``.
            arguments: Encoded fields that follow in the open request.

        Raises:
            asyncssh.ChannelOpenError: The client refuses, or its maximum packet is too small.
        """
        make: Callable[[], Any] = lambda: session  # noqa: E731
        await self._open_forward(make, kind, *arguments)
        if self._send_pktsize < SMALLEST_PACKET:
            self.abort()
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, "its packets are too small")

    def _process_close_and_record(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        # asyncssh reports the close only after paused input was read. The session must know it at once, to bound the
        # time in which the remaining input is delivered.
        session = self._session
        super()._process_close(pkttype, pktid, packet)
        if session is not None:
            cast(ForwardSession, session).close_received()

    _packet_handlers = {  # noqa: RUF012
        **SSHForwardChannel._packet_handlers,
        MSG_CHANNEL_CLOSE: _process_close_and_record,
    }


def is_open(channel: Any) -> bool:
    """Return whether a channel is being opened, or not yet closed by both sides."""
    # asyncssh keeps a closed channel for one more turn of the loop, in which the client may open its next.
    opening = channel._open_waiter is not None
    return opening or channel._recv_state != "closed" or channel._send_chan is not None


def tcp(packet: SSHPacket) -> Tcp:
    """Parse the TCP address of a global request."""
    host, port = packet.get_string(), packet.get_uint32()
    packet.check_end()
    return Tcp(host.decode("ascii", "replace"), port)


def unix(packet: SSHPacket) -> Unix:
    """Parse the socket path of a global request."""
    path = packet.get_string()
    packet.check_end()
    return Unix(path.decode("utf-8", "surrogateescape"))
