"""A connection before its first packet: its peer address, and how it is refused. Base class of ``Reading``."""

from __future__ import annotations

import asyncio

import asyncssh

from sshgate.access.proxy_header import Peer, is_header

# sshd's message to clients that it refuses before the version exchange. OpenSSH's client shows it.
TURNED_AWAY = b"Not allowed at this time\r\n"
# Seconds that refused clients have to read it, and how many may be reading at the same time.
READING_SECONDS = 1.0
MOST_TURNED_AWAY = 100


class IncomingConnection(asyncssh.SSHServerConnection):
    """Adds the connection's real addresses, as behind a load balancer the socket has the balancer's."""

    # `SshServer` sets both on each object.
    peer = Peer("", 0)
    turned_away: set[asyncio.Transport] = set()  # noqa: RUF012

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
