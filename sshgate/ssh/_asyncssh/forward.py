"""asyncssh's channel of a forwarded connection, with corrections and bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from asyncssh import ChannelOpenError
from asyncssh.channel import SSHForwardChannel
from asyncssh.constants import MSG_CHANNEL_CLOSE, OPEN_RESOURCE_SHORTAGE
from asyncssh.packet import SSHPacket

from sshgate.forwarding.destinations import Tcp, Unix
from sshgate.ssh._asyncssh.channel import SMALLEST_PACKET, BoundedChannel

if TYPE_CHECKING:
    _ForwardChannel = SSHForwardChannel[bytes]
else:
    _ForwardChannel = SSHForwardChannel


class Session(Protocol):
    """Callbacks of a channel to its session, in addition to asyncssh's."""

    def close_received(self) -> None:
        """The client has closed the channel. Bytes that it sent before may follow."""


class AsyncsshForwardChannel(BoundedChannel, _ForwardChannel):
    """The channel of one forwarded connection of any kind."""

    def set_inbound_peer_names(self, *names: object) -> None:
        """Do nothing: nothing reads the peer names of a channel."""

    async def open_back(self, session: Any, kind: bytes, *arguments: bytes) -> None:
        """Open a channel to the client.

        Args:
            session: Receives asyncssh's callbacks, and those of ``Session``.
            kind: The channel type of RFC 4254, such as ``forwarded-tcpip``.
            arguments: Encoded fields that follow in the open request.

        Raises:
            asyncssh.ChannelOpenError: The client refuses, or its maximum packet is too small.
        """
        make: Callable[[], Any] = lambda: session  # noqa: E731
        await self._open_forward(make, kind, *arguments)
        if self._send_pktsize < SMALLEST_PACKET:
            self.abort()
            raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, "its packets are too small")

    def _process_close_and_record(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        # asyncssh reports the close only after paused input was read. The session must know it at once, to bound the
        # time in which the remaining input is delivered.
        session = self._session
        super()._process_close(pkttype, pktid, packet)
        if session is not None:
            cast(Session, session).close_received()

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
