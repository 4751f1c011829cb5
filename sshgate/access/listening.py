"""A TCP listener that knows its clients' real addresses, also behind load balancers with the PROXY protocol.

Every accepted connection gets a protocol object made by the front end from the ``Peer``. A connection from a listed
balancer must start with a PROXY header within a time limit. Exactly the header is read from the socket, so that TLS,
SSH or HTTP start as on a direct connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence

import structlog

from sshgate.access import proxy_header as proxyheader
from sshgate.access import tls as tlsprotocol
from sshgate.access.connections import network_of
from sshgate.access.identity import comes_from, endpoint
from sshgate.access.proxy_header import Malformed, Peer
from sshgate.config.model import Address
from sshgate.errors import LimitReached
from sshgate.stream.tasks import TaskSet
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Stranger

# The listen backlog: connections that the kernel completes while the event loop is busy.
BACKLOG = 1024
# Connections accepted per iteration of the event loop.
AT_A_TIME = 64
# Time limit for a PROXY header. A balancer sends it in its first packet.
HEADER_SECONDS = 3.0
# Connections of balancers that may wait for their header at the same time.
MOST_HEADERS = 1000
HANDSHAKE_SECONDS = 10.0
# When accept fails, most likely for lack of file descriptors, pause before the next try, as asyncio's server does.
PAUSE_SECONDS = 1.0

log = structlog.get_logger("sshgate.listening")

Abort = Callable[[], None]
ConnectionFactory = Callable[[Peer, Abort], asyncio.Protocol]
"""Makes the protocol object of a new connection. Raises ``LimitReached`` to refuse it: it is closed without a reply.

``Cut`` closes the connection before ``connection_made`` was called, that is during the TLS handshake."""


class Accepting:
    """Listening sockets. ``came`` is called with each accepted one, which does not block; it must not raise."""

    def __init__(self, came: Callable[[socket.socket], object]) -> None:
        self._came = came
        self.sockets: list[socket.socket] = []

    async def open(self, wanted: Address, shared: bool = False) -> None:
        """Bind and listen on every address that the host resolves to. Nothing is accepted before ``start``.

        Raises ``OSError``; then nothing is left bound.
        """
        self.sockets = await asyncio.to_thread(bind, wanted, shared)
        for one in self.sockets:
            one.listen(BACKLOG)

    def start(self) -> None:
        """Start to accept connections."""
        for one in self.sockets:
            self._watch(one)

    def close(self) -> None:
        """Stop listening. Idempotent. Connections that are accepted go on."""
        loop = asyncio.get_running_loop()
        sockets, self.sockets = self.sockets, []
        for one in sockets:
            loop.remove_reader(one)
            one.close()

    def _watch(self, listening: socket.socket) -> None:
        if listening in self.sockets:
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
            self._came(accepted)


class Listener:
    """A TCP listener: ``open`` binds, ``start`` begins to accept, ``close`` stops. Accepted connections stay open."""

    def __init__(
        self,
        made: ConnectionFactory,
        events: Events,
        proxies: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        unmade: Callable[[asyncio.Protocol], None] = lambda protocol: None,
        shared: bool = False,
    ) -> None:
        """
        Args:
            made: makes the protocol object of each connection.
            events: where ``connection.refused`` is emitted when a bad PROXY header or TLS handshake ends a connection.
            proxies: networks of balancers, whose connections must start with a PROXY header.
            tls: terminate TLS with this context.
            unmade: called with a protocol object whose connection failed before ``connection_made``.
            shared: other workers listen on the same address; the kernel gives each a part of the connections.
        """
        self._made = made
        self._unmade = unmade
        self._events = events
        self._proxies = proxies
        self._tls = tls
        self._shared = shared
        self._tasks = TaskSet()
        self._accepting = Accepting(lambda accepted: self._tasks.start(self._serve(accepted)))
        self._headers = 0
        self.addresses: list[Address] = []

    def __repr__(self) -> str:
        where = ", ".join(map(str, self.addresses)) if self._accepting.sockets else "nowhere"
        return f"<Listener {where}, {len(self._tasks)} being accepted>"

    async def open(self, wanted: Address) -> list[Address]:
        """Bind and listen on every address that the host resolves to; return them with their actual ports.

        Nothing is accepted before ``start``. Raises ``OSError``; then nothing is left bound.
        """
        await self._accepting.open(wanted, self._shared)
        self.addresses = [Address(*one.getsockname()[:2]) for one in self._accepting.sockets]
        return self.addresses

    def start(self) -> None:
        """Start to accept connections."""
        self._accepting.start()

    def close(self) -> None:
        """Stop listening. Idempotent. Connections that are accepted or being accepted go on."""
        self._accepting.close()

    # --- one connection ---

    async def _serve(self, accepted: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        protocol: asyncio.Protocol | None = None
        source = ""
        try:
            peer = Peer(*endpoint(accepted.getpeername()), *endpoint(accepted.getsockname()))
            source = peer.source
            if self._proxies and comes_from(source, self._proxies):
                found = await self._from_header(accepted)
                if found is proxyheader.CLOSED:
                    accepted.close()
                    return
                peer = found or peer

            def cut() -> None:
                task.cancel()

            protocol = made = self._made(peer, cut)
            if self._tls is None:
                await asyncio.get_running_loop().connect_accepted_socket(lambda: made, accepted)
            else:
                await tlsprotocol.accept(accepted, made, self._tls, HANDSHAKE_SECONDS)
            return
        except Malformed as error:
            self._refused(source, f"PROXY header: {error}")
        except ssl.SSLError as error:
            self._refused(source, f"TLS: {error.reason or 'handshake failed'}")
        except (OSError, LimitReached):
            pass  # the peer has disconnected, or its TLS handshake timed out, or it is refused without a reply
        except asyncio.CancelledError:
            # Cancelled by ``Cut``, or because the loop is shutting down. Either way only the cleanup below is left.
            pass
        except Exception:
            log.exception("accept.broken")
        accepted.close()
        if protocol is not None:
            self._unmade(protocol)

    def _refused(self, source: str, reason: str) -> None:
        self._events.emit(
            Code.CONNECTION_REFUSED, stranger=Stranger(network_of(source), 1), source=source, reason=reason
        )

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


def bind(wanted: Address, shared: bool) -> list[socket.socket]:
    """Return a bound socket for every address that the host resolves to. Blocks.

    Args:
        shared: Others of the same user may bind the same addresses, if they share them as well.

    Raises:
        OSError: One cannot be bound; then none is.
    """
    found = socket.getaddrinfo(wanted.host or None, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made = socket.socket(family, kind, protocol)
            bound.append(made)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
    except OSError:
        for one in bound:
            one.close()
        raise
    return bound
