"""The SSH server: accepts connections, drains and closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import asyncssh
import structlog

from sshgate.access.authorized_keys import Keyring
from sshgate.access.connections import Connections
from sshgate.access.key_line import fingerprint_of
from sshgate.access.listening import Abort, Listener
from sshgate.access.proxy_header import Peer
from sshgate.config.model import Address, Config
from sshgate.errors import CannotListen
from sshgate.session.interfaces import Gateway
from sshgate.ssh import hostkeys
from sshgate.ssh._asyncssh.connection import Transport
from sshgate.ssh._asyncssh.fast_path import FastTransport
from sshgate.ssh.connection import Connection
from sshgate.ssh.options import connection_options
from sshgate.stream.tasks import Event, TaskSet, within
from sshgate.telemetry.events import Events, to_log

# How long cancelled sessions may take to inform their clients and to delete their sandboxes.
CUT_SECONDS = 8.0
# How long clients may take to close by themselves. Closing sooner could lose the last packets sent to them.
GOODBYE_SECONDS = 1.0
# How long a drain waits for connected clients to log in and open their session.
LOGIN_SECONDS = 3.0

log = structlog.get_logger("sshgate.ssh")


class SshServer:
    """The SSH front end.

    Call ``listen``, ``stop_accepting``, ``drain`` and ``close`` in this order, each once. If ``listen`` raises, call
    only ``close``.

    Args:
        events: Where events are emitted; by default to the log.
    """

    def __init__(
        self, config: Config, keyring: Keyring, admission: Connections, gateway: Gateway, events: Events | None = None
    ) -> None:
        self._events = events if events is not None else Events(to_log)
        self._config = config
        self._keyring = keyring
        self._admission = admission
        self._gateway = gateway
        self._listener: Listener | None = None
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self._accepting = False
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._moved = Event()
        self._tasks = TaskSet()
        self._turned_away: set[asyncio.Transport] = set()
        self.addresses: list[Address] = []

    def __repr__(self) -> str:
        where = ", ".join(map(str, self.addresses)) or "nowhere"
        state = "accepting" if self._accepting else "closed"
        return f"<SshServer {where}: {len(self._connections)} connections, {self.sessions} sessions, {state}>"

    @property
    def sessions(self) -> int:
        """The number of running sessions."""
        return sum(len(connection.sessions) for connection in self._connections)

    @property
    def channels(self) -> int:
        """The number of open channels of all connections."""
        return sum(connection.channels for connection in self._connections)

    async def listen(self) -> list[Address]:
        """Start to accept connections, and return the bound addresses.

        Raises:
            ConfigError: A host key cannot be used.
            CannotListen: The address cannot be bound.
        """
        keys = await asyncio.to_thread(hostkeys.load, self._config.ssh.host_keys)
        self._options = connection_options(self._config.ssh, keys, self._owner)
        wanted = self._config.ssh.listen
        self._listener = Listener(
            self._transport, self._events, self._config.ssh.proxy_protocol, shared=self._config.workers > 1
        )
        try:
            self.addresses = await self._listener.open(wanted)
        except OSError as error:
            raise CannotListen("ssh.listen", wanted, error) from error
        self._listener.start()
        self._accepting = True
        for key in keys:
            log.info("host_key", kind=key.get_algorithm(), fingerprint=fingerprint_of(key.public_data))
        return self.addresses

    async def reconfigure(self, config: Config) -> None:
        """Use other settings and host keys for new connections. If it raises ``ConfigError``, nothing has changed."""
        keys = await asyncio.to_thread(hostkeys.load, config.ssh.host_keys, make=False)
        self._options = connection_options(config.ssh, keys, self._owner)
        self._config = config

    def _transport(self, peer: Peer, _: Abort) -> Transport:
        assert self._options is not None
        kind = FastTransport if self._config.ssh.fast_path else Transport
        transport = kind(asyncio.get_running_loop(), self._options)
        transport.peer, transport.turned_away = peer, self._turned_away
        return transport

    def stop_accepting(self) -> None:
        """Accept no new connections, and no new sessions on existing ones.

        Clients that are just logging in may still open their first session, so that no accepted login is lost.
        """
        self._accepting = False
        if self._listener is not None:
            self._listener.close()
        for connection in self._connections:
            connection.refuse_sessions()

    async def drain(self, seconds: float) -> None:
        """Wait until all sessions and forwards have ended and no login is under way, ``seconds`` at most."""
        if not await within(seconds, self._work_done()):
            log.warning("drain.over", sessions=self.sessions, channels=self.channels, seconds=seconds)

    async def _work_done(self) -> None:
        open_ = self._connections
        await within(LOGIN_SECONDS, self._moved.until(lambda: not any(connection.is_open for connection in open_)))
        while running := [task for one in self._connections for task in one.work]:
            await asyncio.wait(running)

    async def close(self) -> None:
        """Cancel the remaining sessions, disconnect their clients, and wait for the cleanup, for a bounded time."""
        self.stop_accepting()
        cut = [task for one in self._connections for task in one.sessions]
        for task in cut:
            task.cancel()
        if cut:
            await asyncio.wait(cut, timeout=CUT_SECONDS)
        # This also protects sessions that have just ended by themselves: a client that receives the disconnect before
        # it has closed drops the exit status.
        await within(GOODBYE_SECONDS, self._empty.wait())
        for connection in list(self._connections):
            connection.disconnect("The gateway is shutting down.")
        await within(GOODBYE_SECONDS, self._empty.wait())
        await within(CUT_SECONDS, self._tasks.join())
        await self._tasks.cancel()
        for transport in self._turned_away:
            transport.abort()

    def _owner(self) -> Connection:
        connection = Connection(
            self._config, self._keyring, self._admission, self._gateway, self._events, self._spawn, self._lost
        )
        self._connections.add(connection)
        self._empty.clear()
        return connection

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._moved.set()
        if not self._connections:
            self._empty.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._moved.set()
        return self._tasks.start(work)
