"""One SSH connection: its limits, its login, and the channels it may open."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, cast

import asyncssh
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_CONNECT_FAILED, OPEN_RESOURCE_SHORTAGE
from asyncssh.packet import String, UInt32

from sshgate.access.authorized_keys import Keyring
from sshgate.access.connections import Connections, network_of
from sshgate.access.identity import Identity
from sshgate.config.model import Config
from sshgate.errors import BadRequest, Denied, GateError, LimitReached, Unavailable
from sshgate.forwarding.destinations import Destination, Tcp, Unix
from sshgate.session.interfaces import Gateway, Login
from sshgate.ssh._asyncssh.connection import Transport
from sshgate.ssh.authentication import Authentication
from sshgate.ssh.channel import Channel, ForwardChannel
from sshgate.ssh.login_progress import LoginProgress
from sshgate.stream.interfaces import Request, Stream
from sshgate.stream.splice import splice
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Stranger
from sshgate.telemetry.timings import Stage, Timings, since

# Reason codes of RFC 4254 section 5.1 for forwarded connections that are refused rather than failed to connect.
_OPEN_CODES: Mapping[type[GateError], int] = {
    Denied: OPEN_ADMINISTRATIVELY_PROHIBITED,
    BadRequest: OPEN_ADMINISTRATIVELY_PROHIBITED,
    LimitReached: OPEN_RESOURCE_SHORTAGE,
}
# Seconds after a login in which its first session is still expected; OpenSSH requests it at once.
JUST_LOGGED_IN = 2.0
# Interval at which a login's key or certificate is checked again, and the delay before a second check.
RECHECK_SECONDS = 2.0
SECOND_RECHECK_SECONDS = 0.5
REVOKED = "what you logged in with is no longer accepted as it was; log in again"


class Connection(Authentication):
    """The server's side of one connection: admission, authentication, sessions and forwards.

    Args:
        spawn: Starts a task that may outlive the connection.
        lost: Called once, when the connection has ended.
    """

    def __init__(
        self,
        config: Config,
        keyring: Keyring,
        admission: Connections,
        gateway: Gateway,
        events: Events,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        lost: Callable[[Connection], None] = lambda connection: None,
    ) -> None:
        super().__init__(config, keyring)
        self._admission = admission
        self._gateway = gateway
        self._spawn = spawn
        self._lost = lost
        self._connection = secrets.token_hex(4)
        self._timings = Timings()
        self._events = events.context(connection=self._connection).with_timings(self._timings)
        self._transport: Transport | None = None
        self._login_progress = LoginProgress(self._timings, config.ssh.login_grace)
        self._source_port = 0
        self._login: Login | None = None
        self._more_sessions = True
        self._had_session = False
        self._last_chance = False
        self._leaving = False
        self._ended = False
        self._proven_at = 0.0
        self._next_look: asyncio.TimerHandle | None = None
        self._over: str | None = None
        self._carried: set[asyncio.Task[None]] = set()
        self.sessions: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        who = str(self._name) if self._login is not None else "not logged in"
        return f"<Connection {who} from {self._source}, {len(self.sessions)} sessions>"

    # --- start and end ---

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._transport = self._login_progress.transport = cast(Transport, conn)
        self._timings.mark(Stage.ACCEPT)
        self._source, self._source_port = self._transport.peer.source, self._transport.peer.source_port
        self._log = self._log.bind(connection=self._connection, source=self._source)
        self._events = self._events.with_fields(source=self._source)
        try:
            self._login_progress.slot = self._admission.connect(self._source, self._login_progress)
        except LimitReached as error:
            self._events.emit(Code.CONNECTION_LIMIT, stranger=self._stranger, reason=str(error))
            self._transport.turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        if self._next_look is not None:
            self._next_look.cancel()
        if self._login_progress.slot is not None:
            self._login_progress.ended(exc, self._login is not None or self._leaving)
            if self._login is None:
                self._events.emit(
                    Code.CONNECTION_UNAUTHENTICATED,
                    stranger=self._stranger,
                    user=self._asked_name or None,
                    reason=self._login_progress.cut_by or _reason(exc),
                    failures=self._login_progress.failures,
                    key=self._refused_key,
                )
            else:
                self._events.emit(Code.CONNECTION_END, reason=self._over or _reason(exc))
        if self._login is not None:
            self._login.disconnected()
            self._spawn(self._leave(self._login))
        self._lost(self)

    @property
    def _stranger(self) -> Stranger:
        return Stranger(network_of(self._source))

    @property
    def channels(self) -> int:
        """The number of open channels of any kind."""
        transport = self._transport
        return transport.open_sessions + transport.open_forwards if transport is not None else 0

    async def _leave(self, login: Login) -> None:
        # Shared sandboxes are removed after the last session. Each session notices by itself that its client is gone.
        if self.sessions:
            await asyncio.wait(self.sessions)
        await login.close()

    def abort(self) -> None:
        """Close the connection at once, without a message."""
        if self._transport is not None:
            self._transport.abort()

    def disconnect(self, reason: str) -> None:
        """Send the client a disconnect message with ``reason``, and close the connection."""
        if self._transport is not None:
            self._transport.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    def refuse_sessions(self) -> None:
        """Accept no more sessions; running ones go on. A client that is just logging in still gets its first one."""
        new = self._login is None or time.monotonic() - self._timings.times[Stage.AUTHENTICATION] < JUST_LOGGED_IN
        self._last_chance = new and not self._had_session and self._more_sessions
        self._more_sessions = self._last_chance
        self._leaving = not self._last_chance

    @property
    def work(self) -> set[asyncio.Task[None]]:
        """The tasks a drain waits for: sessions, forwarded connections, and sandboxes held only for forwards."""
        forwards = self._login.forwards.work if self._login is not None else ()
        return {*self.sessions, *self._carried, *forwards}

    @property
    def _done(self) -> bool:
        """During a drain: whether all work has ended, so that nothing more may be opened."""
        return self._leaving and not self.work

    @property
    def is_open(self) -> bool:
        """During a drain: whether the first session may still come."""
        return self._last_chance and not self._had_session

    # --- login ---

    def auth_completed(self) -> None:
        transport, proof, name = self._transport, self._proof, self._name
        if transport is None or proof is None or name is None or self._login_progress.slot is None:
            # Cannot happen: asyncssh calls this only after an authentication callback has returned true.
            self._log.error("authentication.without_proof")
            self.abort()
            return
        self._timings.mark(Stage.AUTHENTICATION)
        try:
            self._login_progress.logged_in(name.user)
        except LimitReached as error:
            self._events.emit(Code.CONNECTION_LIMIT, user=name.user, key=proof.fingerprint, reason=str(error))
            return
        identity = Identity(
            login=name,
            method=proof.method,
            fingerprint=proof.fingerprint,
            source=self._source,
            source_port=self._source_port,
            server=transport.peer.server,
            server_port=transport.peer.server_port,
            restrictions=proof.restrictions,
            certificate=proof.certificate,
            connection=self._connection,
            arrived=dict(self._timings.times),
        )
        self._log = self._log.bind(user=name.user)
        self._events = self._events.with_fields(user=name.user, key=proof.fingerprint)
        self._events.emit(
            Code.LOGIN, login=str(name), method=proof.method, failures=self._login_progress.failures or None
        )
        self._login = self._gateway.login(identity)
        self._proven_at = time.time()
        self._recheck_later(RECHECK_SECONDS)

    def _recheck_later(self, seconds: float, doubted: bool = False) -> None:
        self._next_look = asyncio.get_running_loop().call_later(seconds, self._recheck, doubted)

    def _recheck(self, doubted: bool) -> None:
        """Disconnect if the key or certificate of the login was revoked.

        It takes two failed checks, as a file may be in the middle of being written. As with sshd, a certificate or key
        that expires does not end an existing connection.
        """
        if self.still_proven(self._proven_at):
            self._recheck_later(RECHECK_SECONDS)
        elif not doubted:
            self._recheck_later(SECOND_RECHECK_SECONDS, True)
        else:
            self._over = REVOKED
            self.disconnect(REVOKED)

    # --- sessions: may one be opened ---

    def keys_exchanged(self) -> None:
        self._timings.mark(Stage.KEY_EXCHANGE)

    def sessions_ended(self) -> None:
        self._more_sessions = False
        # An open session may not have sent its request yet; forwards still wait for it.
        if self._login is not None and self._transport is not None:
            self._login.sessions_ended()
            if not self._transport.open_sessions:
                self._login.forwards.sessions_ended()

    def session_requested(self) -> Channel:
        transport, proof = self._transport, self._proof
        if transport is None or proof is None or self._login is None or not self._more_sessions:
            raise asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, "no more sessions")
        self._check_proof()
        self._more_sessions = not self._last_chance
        limit = self._config.ssh.channels_per_connection
        if transport.open_sessions >= limit:
            raise asyncssh.ChannelOpenError(
                OPEN_RESOURCE_SHORTAGE,
                f"there are already {limit} sessions on this connection (ssh.channels_per_connection)",
            )
        access, free = self._config.access, proof.restrictions.command is None
        return Channel(
            transport,
            self._serve,
            self._log,
            accept_env=access.accept_env if free else access.accept_env_forced,
            terminals=proof.restrictions.terminal,
            greeting=self._config.ssh.greeting if free else None,
            agent=partial(self._open_back, b"auth-agent@openssh.com") if proof.restrictions.agent_forwarding else None,
            agent_allowed=self._login.forwards.agent_allowed,
            start_speculative_claim=self._login.start_speculative_claim,
        )

    def _check_proof(self) -> None:
        if not self.still_proven():
            raise asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, REVOKED)

    # --- forwarded connections ---

    def connect(self, destination: Destination) -> Coroutine[Any, Any, ForwardChannel]:
        if self._transport is None or self._login is None:
            raise asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, "not logged in")
        self._check_proof()
        if self._done:
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, "this gateway is shutting down; log in again")
        limit = self._config.ssh.forwards_per_connection
        if self._transport.open_forwards + self._login.forwards.listeners >= limit:
            raise asyncssh.ChannelOpenError(
                OPEN_RESOURCE_SHORTAGE,
                f"there are already {limit} forwarded connections on this connection (ssh.forwards_per_connection)",
            )
        return self._connected(self._transport, self._login, destination)

    async def _connected(self, transport: Transport, login: Login, destination: Destination) -> ForwardChannel:
        try:
            stream = await login.forwards.connect(destination)
        except GateError as error:
            reason = str(error).encode("utf-8", "replace").decode()  # a destination may be any bytes
            raise asyncssh.ChannelOpenError(_OPEN_CODES.get(type(error), OPEN_CONNECT_FAILED), reason) from error
        if self._ended:
            stream.close()
        return ForwardChannel(transport, self._log, lambda channel: self._carry(channel, stream, destination))

    def _carry(self, channel: ForwardChannel, stream: Stream, destination: Destination) -> None:
        events = self._events.with_fields(kind="connection", target=str(destination))

        async def carry() -> None:
            began = time.monotonic()
            up, down = await splice(channel, stream)
            events.emit(Code.FORWARD_END, bytes_in=up, bytes_out=down, seconds=since(began))

        task = self._spawn(carry())
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    def listen(self, where: Tcp | Unix) -> Awaitable[int | None]:
        limit = self._config.ssh.forwards_per_connection
        address = where

        def back(host: str, port: int) -> Awaitable[Stream]:
            if isinstance(address, Unix):
                path = address.path.encode("utf-8", "surrogateescape")
                return self._open_back(b"forwarded-streamlocal@openssh.com", host, port, String(path) + String(""))
            end = String(address.host) + UInt32(address.port) + String(host) + UInt32(port)
            return self._open_back(b"forwarded-tcpip", host, port, end)

        async def finish_listening(listening: Awaitable[int]) -> int | None:
            nonlocal address
            try:
                port = await listening
            except GateError:
                return None
            if isinstance(where, Tcp):
                address = Tcp(where.host, port)
            return port

        async def refused() -> None:
            return None

        transport, login = self._transport, self._login
        if transport is None or login is None or self._done or not self.still_proven():
            return refused()
        if transport.open_forwards + login.forwards.listeners >= limit:
            return refused()
        return finish_listening(login.forwards.listen(where, back))

    def unlisten(self, where: Tcp | Unix) -> bool:
        return self._login is not None and self._login.forwards.unlisten(where)

    async def _open_back(self, kind: bytes, host: str, port: int, arguments: bytes = b"") -> Stream:
        """Open a channel to the client for a connection from its sandbox. Raises ``GateError``."""
        transport, login = self._transport, self._login
        if transport is None or login is None or self._ended:
            raise Unavailable("the connection has ended")
        if not self.still_proven():
            raise Denied(REVOKED)
        if transport.open_forwards + login.forwards.listeners >= self._config.ssh.forwards_per_connection:
            raise LimitReached("too many forwarded connections")
        channel = ForwardChannel(transport, self._log)
        try:
            await transport.create_tcp_channel().open_back(channel, kind, arguments)
        except asyncssh.Error as error:
            raise Unavailable(f"the client refuses: {error.reason}") from error
        return channel

    # --- sessions: run ---

    def _serve(self, channel: Channel, request: Request) -> None:
        assert self._login is not None
        self._had_session = True
        task = self._spawn(self._run(self._login, channel, request))
        self.sessions.add(task)
        task.add_done_callback(self.sessions.discard)

    async def _run(self, login: Login, channel: Channel, request: Request) -> None:
        try:
            await login.run(request, channel)
        except Exception:
            self._log.exception("session.broken")
        finally:
            channel.end()


def _reason(error: Exception | None) -> str:
    return str(error) if error is not None else "left"
