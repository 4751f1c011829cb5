"""A TCP listener that knows where its clients are: also behind balancers that speak the PROXY protocol.

Every accepted connection becomes a protocol of the door's own, which is given the ``Peer``. From an address that is
listed as a balancer's a PROXY header must come first, in time; it is taken off the socket to the byte, so that what
follows (TLS, ssh, HTTP) finds the connection as if it had come by itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network

import structlog

from sshgate.access import proxy_header as proxyheader
from sshgate.access.identity import endpoint
from sshgate.access.proxy_header import Malformed, Peer
from sshgate.config.model import Address
from sshgate.errors import LimitReached

# Connections that the kernel completes while the loop is busy.
BACKLOG = 1024
# Connections that are accepted in one turn of the loop.
AT_A_TIME = 64
# A balancer sends its header with its first packet.
HEADER_SECONDS = 3.0
# Connections of balancers whose header has not come yet.
MOST_HEADERS = 1000
HANDSHAKE_SECONDS = 10.0
# Without a free descriptor there is nothing to accept with: as asyncio's own server, ask again after a while.
PAUSE_SECONDS = 1.0

log = structlog.get_logger("sshgate.listening")

Cut = Callable[[], None]
Made = Callable[[Peer, Cut], asyncio.Protocol]
"""Makes the protocol of a connection; ``Cut`` ends one that is not made yet (TLS). Raises ``LimitReached``."""


class Listener:
    """``open`` listens, ``start`` accepts, ``close`` accepts no more; connections that are there go on."""

    def __init__(
        self,
        made: Made,
        refused: Callable[[str, str], None],
        proxies: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        unmade: Callable[[asyncio.Protocol], None] = lambda protocol: None,
    ) -> None:
        """``refused`` is called with an address and a reason where a header or a TLS handshake ends a connection.

        ``unmade`` is given a protocol whose connection has ended before it was made.
        """
        self._made = made
        self._unmade = unmade
        self._refused = refused
        self._proxies = [ip_network(text) for text in proxies]
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._headers = 0
        self.addresses: list[Address] = []

    def __repr__(self) -> str:
        where = ", ".join(map(str, self.addresses)) if self._sockets else "nowhere"
        return f"<Listener {where}, {len(self._tasks)} being accepted>"

    async def open(self, wanted: Address) -> list[Address]:
        """Bind and listen; the addresses that were got. Raises ``OSError``."""
        found = await asyncio.get_running_loop().getaddrinfo(
            wanted.host or None, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                made = socket.socket(family, kind, protocol)
                self._sockets.append(made)
                made.setblocking(False)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.bind(address)
                made.listen(BACKLOG)
        except OSError:
            self.close()
            raise
        self.addresses = [Address(*one.getsockname()[:2]) for one in self._sockets]
        return self.addresses

    def start(self) -> None:
        """Accept from now on."""
        for one in self._sockets:
            self._watch(one)

    def close(self) -> None:
        """Accept no more."""
        loop = asyncio.get_running_loop()
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            loop.remove_reader(one)
            one.close()

    # --- one connection ---

    def _watch(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(AT_A_TIME):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("accept.failed", reason=error.strerror, seconds=PAUSE_SECONDS)
                loop.remove_reader(listening)
                loop.call_later(PAUSE_SECONDS, self._watch, listening)
                return
            accepted.setblocking(False)
            task = loop.create_task(self._serve(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        protocol: asyncio.Protocol | None = None
        source = ""
        try:
            peer = peer_of(accepted)
            source = peer.source
            if self._is_proxy(source):
                found = await self._from_header(accepted)
                if found is proxyheader.CLOSED:
                    accepted.close()
                    return
                peer = found or peer

            def cut() -> None:
                task.cancel()

            protocol = made = self._made(peer, cut)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: made, accepted, ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls is not None else None,
            )  # fmt: skip
            return
        except LimitReached:
            pass
        except Malformed as error:
            self._refused(source, f"PROXY header: {error}")
        except ssl.SSLError as error:
            self._refused(source, f"TLS: {error.reason or 'handshake failed'}")
        except OSError:
            pass  # it has gone, or did not shake hands in time
        except asyncio.CancelledError:
            # By ``Cut``, or with the loop: in either case there is nothing to be done after it.
            pass
        except Exception:
            log.exception("accept.broken")
        accepted.close()
        if protocol is not None:
            self._unmade(protocol)

    async def _from_header(self, accepted: socket.socket) -> Peer | None:
        if self._headers >= MOST_HEADERS:
            raise Malformed("too many connections of balancers wait for theirs")
        self._headers += 1
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                return await proxyheader.read(accepted)
        except TimeoutError:
            raise Malformed(f"none came within {HEADER_SECONDS:g} s") from None
        finally:
            self._headers -= 1

    def _is_proxy(self, source: str) -> bool:
        if not self._proxies:
            return False
        address = ip_address(source)
        return any(address in network for network in self._proxies)


def peer_of(accepted: socket.socket) -> Peer:
    """The ends of a connection as the kernel knows them. Raises ``OSError``."""
    return Peer(*endpoint(accepted.getpeername()), *endpoint(accepted.getsockname()))
