"""Hands connections to the worker that keeps their user's sessions, whichever worker has accepted them.

All sessions of a user, with their tickets, sockets and transfers, live in one worker, which the user's name determines
(``Siblings.owner``). Between two requests of a connection, the head of the next one is looked at before it is parsed.
If its cookie, token or proxy names a user of another worker, the connection moves there, with what was read of it. A
plain one moves as a whole. Of one with TLS only this process can decrypt, so its bytes are copied to the other.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import astuple
from typing import Any
from weakref import WeakSet

from multidict import CIMultiDict

from sshgate.access.proxy_header import Peer
from sshgate.access.siblings import Siblings
from sshgate.errors import LimitReached
from sshgate.stream.tasks import TaskSet, within
from webshim.connection import Connection, MakeConnection
from webshim.state import WebState

# What is given along with a connection; more is copied through this process.
MOST_BYTES = 32 * 1024


class Handover:
    """Both directions, for one worker's web front end."""

    def __init__(self, state: WebState, siblings: Siblings, make: MakeConnection) -> None:
        """``make``: Makes the protocol object of a connection that was handed to this worker."""
        self._state = state
        self._siblings = siblings
        self._make = make
        self._tasks = TaskSet()
        self._received: WeakSet[Connection] = WeakSet()
        self._copied: set[_End] = set()
        siblings.take_connections(self._take)

    # --- away from here ---

    def move(self, connection: Connection, data: bytes) -> bool:
        headers = _headers(data)
        user = self._state.user_in(connection.peer, headers)
        if user is None or (owner := self._siblings.owner(user)) == self._siblings.index:
            return False
        transport = connection.transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_extra_info("ssl_object") is None and len(data) <= MOST_BYTES:
            if transport.get_write_buffer_size():
                return False
            if not self._give(owner, connection, data, transport.get_extra_info("socket").fileno()):
                return False
            # The other worker's duplicate stays open.
            transport.abort()
            return True
        ours, theirs = socket.socketpair()
        with theirs:
            if not self._give(owner, connection, b"", theirs.fileno()):
                ours.close()
                return False
        transport.pause_reading()
        connection.detach()
        self._tasks.start(self._copy(transport, ours, data))
        return True

    def _give(self, owner: int, connection: Connection, data: bytes, descriptor: int) -> bool:
        return self._siblings.hand_over(owner, [*astuple(connection.whole_peer), data], descriptor)

    async def _copy(self, transport: asyncio.Transport, ours: socket.socket, data: bytes) -> None:
        outer, inner = _End(self._copied), _End(self._copied)
        try:
            ours.setblocking(False)
            below, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: inner, ours)
        except OSError:
            ours.close()
            for end in (outer, inner):
                end.connection_lost(None)
            transport.abort()
            return
        inner.other, outer.other = transport, below
        transport.set_protocol(outer)
        outer.other.write(data)
        if transport.is_closing():
            # `outer` may not learn of it: the connection can have ended before.
            outer.connection_lost(None)
        elif not inner.paused:
            transport.resume_reading()

    # --- to here ---

    def _take(self, value: Any, given: socket.socket) -> None:
        *peer, data = value
        self._tasks.start(self._serve(Peer(*peer), data, given))

    async def _serve(self, peer: Peer, data: bytes, given: socket.socket) -> None:
        made: Connection | None = None
        try:
            given.setblocking(False)
            made = connection = self._make(peer, lambda: None)
            connection.first = data
            self._received.add(connection)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, given)
        except (LimitReached, OSError):
            given.close()
            if made is not None:
                made.unmade()

    # --- the end ---

    async def drain(self, seconds: float) -> None:
        """Close what this worker was given, and wait until nothing is copied any more, ``seconds`` at most.

        Call it when all sessions here have ended. So workers that copy for each other do not wait for each other.
        """
        for connection in list(self._received):
            if connection.transport is not None:
                connection.force_close()
        await within(max(0.0, seconds), asyncio.gather(*(end.lost.wait() for end in self._copied)))

    async def close(self) -> None:
        """Cut what is copied."""
        self._siblings.take_connections(None)
        await self._tasks.cancel()
        for end in list(self._copied):
            if end.other is not None:
                end.other.abort()


class _End(asyncio.Protocol):
    """One end of a copied connection: what comes here goes to the other, no faster than that takes it."""

    def __init__(self, ends: set[_End]) -> None:
        self.other: asyncio.Transport | None = None
        self.paused = False
        self.lost = asyncio.Event()
        self._ends = ends
        ends.add(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)

    def pause_writing(self) -> None:
        self.paused = True
        if self.other is not None and not self.other.is_closing():
            self.other.pause_reading()

    def resume_writing(self) -> None:
        self.paused = False
        if self.other is not None and not self.other.is_closing():
            self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ends.discard(self)
        self.lost.set()
        if self.other is not None:
            self.other.close()


def _headers(data: bytes) -> CIMultiDict[str]:
    """The headers of a request whose head is complete. Only for the choice of a worker, which checks them again."""
    headers: CIMultiDict[str] = CIMultiDict()
    for text in data.partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape").split("\r\n")[1:]:
        name, _, value = text.partition(":")
        headers.add(name, value.strip())
    return headers
