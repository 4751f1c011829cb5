"""The wire of one forwarded connection: what asyncssh's class lacks or does otherwise. Written against 2.24.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from asyncssh import ChannelOpenError
from asyncssh.channel import SSHForwardChannel
from asyncssh.constants import MSG_CHANNEL_CLOSE, OPEN_RESOURCE_SHORTAGE
from asyncssh.packet import SSHPacket

from sshgate.forwarding.values import Tcp, Unix
from sshgate.ssh._asyncssh.channel import SMALLEST_PACKET, coalesce, deliver_and_adjust_window

if TYPE_CHECKING:
    _ForwardChannel = SSHForwardChannel[bytes]
else:
    _ForwardChannel = SSHForwardChannel


class Session(Protocol):
    """What a channel asks of its session, besides asyncssh's callbacks."""

    def close_received(self) -> None:
        """The other side has closed; bytes that it sent before may follow."""


class AsyncsshForwardChannel(_ForwardChannel):
    """One forwarded connection on the wire, whatever its kind."""

    def set_inbound_peer_names(self, *names: object) -> None:
        """Nothing: nobody asks the channel who is at its ends."""

    async def open_back(self, session: Any, kind: bytes, *arguments: bytes) -> None:
        """Open it from this side, as ``kind``. Raises ``asyncssh.ChannelOpenError``."""
        make: Callable[[], Any] = lambda: session  # noqa: E731
        await self._open_forward(make, kind, *arguments)
        if self._send_pktsize < SMALLEST_PACKET:
            self.abort()
            raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, "its packets are too small")

    def _process_close_and_record(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        # asyncssh tells of the close only after paused input was read. The input is still to be delivered (who
        # closes a connection has not taken back what it sent), but only for so long.
        session = self._session
        super()._process_close(pkttype, pktid, packet)
        if session is not None:
            cast(Session, session).close_received()

    def _accept_data(self, data: bytes, datatype: int | None = None) -> None:
        if not coalesce(self, data):
            super()._accept_data(cast(bytes, bytearray(data)) if self._recv_paused else data, datatype)

    def _deliver_data(self, data: bytes, datatype: int | None = None) -> None:
        deliver_and_adjust_window(self, data, datatype)

    _packet_handlers = {  # noqa: RUF012
        **SSHForwardChannel._packet_handlers,
        MSG_CHANNEL_CLOSE: _process_close_and_record,
    }

    def log_sent_packet(self, *args: Any, **kwargs: Any) -> None:
        """Nothing, as in ``Transport``."""

    def log_received_packet(self, *args: Any, **kwargs: Any) -> None:
        """Nothing, as in ``Transport``."""


def is_open(channel: Any) -> bool:
    """Whether a channel is being opened, or not yet closed by both sides."""
    # asyncssh keeps a closed one for another turn of the loop, in which the client may open its next.
    opening = channel._open_waiter is not None
    return opening or channel._recv_state != "closed" or channel._send_chan is not None


def tcp(packet: SSHPacket) -> Tcp:
    """The address that a global request names."""
    host, port = packet.get_string(), packet.get_uint32()
    packet.check_end()
    return Tcp(host.decode("ascii", "replace"), port)


def unix(packet: SSHPacket) -> Unix:
    """The path that a global request names."""
    path = packet.get_string()
    packet.check_end()
    return Unix(path.decode("utf-8", "surrogateescape"))
