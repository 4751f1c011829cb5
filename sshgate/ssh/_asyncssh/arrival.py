"""A connection before its first packet: where it comes from, and how it is turned away. Below ``Reading`` alone."""

from __future__ import annotations

import asyncio

import asyncssh

from sshgate.access.proxy_header import Peer, is_header

# What sshd says to those whom it does not let in; OpenSSH's client shows it.
TURNED_AWAY = b"Not allowed at this time\r\n"
# They have so long to read it, so many at a time.
READING_SECONDS = 1.0
MOST_TURNED_AWAY = 100


class Arrival(asyncssh.SSHServerConnection):
    """Adds both ends of the connection as they are, where its socket's are a balancer's."""

    # The server puts its own in their place.
    peer = Peer("", 0)
    turned_away: set[asyncio.Transport] = set()  # noqa: RUF012

    @property
    def greeted(self) -> bool:
        """Whether the client has said which version of ssh it speaks."""
        return bool(self._client_version)

    def turn_away(self) -> None:
        """End it before it has begun."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self._loop.call_soon(self._cleanup, None)
        others = self.turned_away
        if len(others) >= MOST_TURNED_AWAY:
            transport.abort()
            return
        # What the client has sent is left unread, and to close at once would take the line back (RST).
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
