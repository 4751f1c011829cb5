"""The forwards of one login: chooses the sandbox of each, and runs a relay in it.

A forward goes to the sandbox of the connection's oldest running session. Without a session it goes to the sandbox that
the login name selects: a named one, the one that the connection shares, or else one made for the forwards, which lasts
at most as long as the connection (``ssh -N -L``, ``ssh -W``).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from functools import partial
from typing import Any

from sshgate.access.identity import Identity
from sshgate.access.policy import Grant
from sshgate.config.model import ProfileLimits
from sshgate.errors import GateError, Unavailable
from sshgate.forwarding import destinations, plain
from sshgate.forwarding.destinations import Agent, Destination, Listening, Tcp, own_addresses
from sshgate.forwarding.relay import HELLO_SECONDS, ConnectFailed, NoRelay, Relay, RelayStream
from sshgate.sandbox.interfaces import Sandbox
from sshgate.session.claims import Claims
from sshgate.stream.interfaces import OpenReverseChannel, Stream
from sshgate.stream.splice import splice
from sshgate.stream.tasks import Event, TaskSet, cancel, within
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EventContext, Value
from sshgate.telemetry.timings import since

# How long a forward waits for a session that would decide its sandbox. Clients send both requests within a round trip.
SESSION_SECONDS = 1.0
# How long the start of a program waits for listeners that were requested before it.
SETTLE_SECONDS = 5.0
# The same for a forwarded connection whose sandbox is there: as long as a relay may take to start.
ORDER_SECONDS = HELLO_SECONDS
# How long a relay is kept that nothing uses, for the next session or forward.
UNUSED_SECONDS = 5.0
# Simultaneous connections from a sandbox to one client. A program in the sandbox could report any number of them.
MAX_REVERSE_CONNECTIONS = 256


class ForwardTarget:
    """The sandbox of ``granted``, which may not exist yet. ``get`` waits for it."""

    def __init__(self, granted: Grant) -> None:
        self.granted = granted
        self.over = False
        self.sandbox: Sandbox | None = None
        self._error: GateError | None = None
        self._known = Event()

    @property
    def usable(self) -> bool:
        """Whether there is a sandbox to forward to, or there may be one later."""
        return not self.over and (self.sandbox is None or self.sandbox.usable)

    def entered(self, sandbox: Sandbox) -> None:
        """The sandbox exists: ``get`` returns it from now on."""
        self.sandbox = sandbox
        self._known.set()

    def failed(self, error: GateError) -> None:
        """There is no sandbox, or it has ended: ``get`` raises the first such ``error`` from now on."""
        self.over = True
        self._error = self._error or error
        self._known.set()

    async def get(self) -> Sandbox:
        """Wait for the sandbox. Raises ``GateError`` when there is none. Cancelling affects no other waiter."""
        await self._known.wait()
        if self._error is not None:
            raise self._error
        assert self.sandbox is not None
        return self.sandbox


class Forwards:
    """Everything that one connection forwards. When it has ended, ``close`` this before its claims.

    Args:
        usual: Returns the grant that the login name alone selects; raises ``GateError`` if there is none.
    """

    def __init__(self, identity: Identity, usual: Callable[[], Grant], claims: Claims, events: EventContext) -> None:
        self._identity = identity
        self._usual = usual
        self._claims = claims
        self._events = events
        self._targets: list[ForwardTarget] = []
        self._own: ForwardTarget | None = None
        self._more_sessions = True
        self._changed = Event()
        self._relays: dict[str, asyncio.Task[Relay | None]] = {}
        self._opening: Counter[str] = Counter()
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._listeners: dict[Listening, tuple[Relay, int]] = {}
        self._agents: dict[str, tuple[Relay, bytes]] = {}
        self._agents_lock = asyncio.Lock()
        self._plain: set[plain.PlainStream] = set()
        self._tasks = TaskSet()
        self._over = Event()
        self._back = 0
        self._pending = 0
        self._idle = Event()

    def __repr__(self) -> str:
        return f"<Forwards {self.active} connections, {self.listeners} listeners, {len(self._relays)} relays>"

    @property
    def active(self) -> int:
        """The number of open forwarded connections."""
        relays = [task.result() for task in self._relays.values() if _started(task)]
        return sum(relay.streams for relay in relays if relay is not None) + len(self._plain)

    @property
    def listeners(self) -> int:
        """The number of open listeners, without agent sockets and without those whose sandbox is gone."""
        return sum(relay.alive for relay, _ in self._listeners.values())

    @property
    def work(self) -> Collection[asyncio.Task[None]]:
        """Tasks that run without a session, such as a sandbox held for forwards and connections to the client."""
        return tuple(self._tasks)

    # --- called by sessions ---

    @contextlib.asynccontextmanager
    async def session(self, granted: Grant) -> AsyncIterator[ForwardTarget]:
        """Direct forwards to this session's sandbox while the body runs, once the body calls ``Place.entered``."""
        place = ForwardTarget(granted)
        self._targets.append(place)
        self._changed.set()
        try:
            yield place
        finally:
            self._targets.remove(place)
            place.failed(Unavailable("the session ended before its sandbox was there"))
            if place.sandbox is not None and granted.scope == "channel":
                await self._leave(place.sandbox)
            elif place.sandbox is not None:
                self._leave_soon(place.sandbox)

    def _in_use(self, sandbox: Sandbox) -> bool:
        """Return whether a session or a forward still needs the sandbox's relay.

        The agent's socket does not count: it is for the programs of sessions.
        """
        places = [*self._targets, *([self._own] if self._own is not None else [])]
        if any(one.sandbox is sandbox and not one.over for one in places):
            return True
        if self._opening[sandbox.id]:
            return True
        task = self._relays.get(sandbox.id)
        relay = task.result() if task is not None and _started(task) else None
        return relay is not None and (relay.streams > 0 or any(one is relay for one, _ in self._listeners.values()))

    def sessions_ended(self) -> None:
        """The client will open no more sessions, so no forward needs to wait for one."""
        self._more_sessions = False
        self._changed.set()

    # --- called for the client ---

    async def connect(self, destination: Destination) -> Stream:
        """Open a connection from inside the sandbox. Raises ``GateError`` if it is not allowed or fails."""
        with self._report_open("connection", destination) as outcome:
            destinations.check_key(destination, self._identity.restrictions)
            place = await self._target()
            own = await _own_addresses(destination, place)
            destinations.check_profile(destination, place.granted.profile, own)
            sandbox = await place.get()
            outcome["sandbox"] = sandbox.id
            # Its destination may be a listener that was requested before it.
            await self.wait_for_listeners(ORDER_SECONDS)
            async with self._relay(sandbox) as relay:
                if relay is not None:
                    return await relay.connect(destination, own)
            stream = await plain.connect(sandbox, destination, own)
            if self._over.is_set():
                stream.close()
            self._plain.add(stream)
            self._tasks.start(self._forget(stream))
            return stream

    def listen(self, where: Listening, back: OpenReverseChannel) -> Coroutine[Any, Any, int]:
        """Listen on the sandbox's loopback; each connection is handed to ``back``.

        ``settled`` waits for it from this call on, so the coroutine must be awaited. It returns the port (0 for a
        path) and raises ``GateError``.
        """
        self._pending += 1
        return self._listen(where, back)

    async def wait_for_listeners(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until no listener is being set up any more, but not longer than ``seconds``.

        sshd handles requests in order, so a client may rely on the listeners it has requested before. Nothing that
        listeners wait for (a session, its sandbox) may call this.
        """
        await within(seconds, self._idle.until(lambda: not self._pending))

    async def _listen(self, where: Listening, back: OpenReverseChannel) -> int:
        try:
            return await self._listened(where, back)
        finally:
            self._pending -= 1
            self._idle.set()

    async def _listened(self, where: Listening, back: OpenReverseChannel) -> int:
        with self._report_open("listener", where) as outcome:
            destinations.check_key(where, self._identity.restrictions, listening=True)
            place = await self._target()
            destinations.check_listening(place.granted.profile)
            self._forget_lost()
            if where in self._listeners:
                raise ConnectFailed("this connection listens there already")
            sandbox = await place.get()
            outcome["sandbox"] = sandbox.id
            async with self._relay(sandbox) as relay:
                if relay is None:
                    raise NoRelay("the sandbox has no python3, which remote forwarding needs; install it there")
                number, bound = await relay.listen(where, self._accepted(where, back))
                port = int.from_bytes(bound[:2], "big") if isinstance(where, Tcp) else 0
                self._listeners[Tcp(where.host, port) if isinstance(where, Tcp) else where] = relay, number
                return port

    def unlisten(self, where: Listening) -> bool:
        """Close a listener. Returns whether there was one."""
        found = self._listeners.pop(where, None)
        if found is not None:
            found[0].unlisten(found[1])
        return found is not None

    def agent_allowed(self) -> bool:
        """Return whether programs may use the client's agent, judged by the login name alone."""
        try:
            return destinations.offers_agent(self._usual().profile.forward, self._identity.restrictions)
        except GateError:
            return False

    async def agent(self, sandbox: Sandbox, back: OpenReverseChannel) -> bytes:
        """Return the path of the connection's agent socket in this sandbox. Raises ``GateError``."""
        async with self._agents_lock:
            relay, path = self._agents.get(sandbox.id, (None, b""))
            # When a relay is killed (python3 in the sandbox), its socket is gone too.
            if relay is None or not relay.alive:
                async with self._relay(sandbox) as relay:
                    if relay is None:
                        raise NoRelay("the sandbox has no python3, which agent forwarding needs; install it there")
                    _, path = await relay.listen(Agent(), self._accepted(Agent(), back))
                    self._agents[sandbox.id] = relay, path
            return path

    async def close(self) -> None:
        """Close all connections, listeners and relays, and wait for the tasks. Never raises."""
        self._over.set()
        self.sessions_ended()
        if self._own is not None:
            self._own.failed(Unavailable("the connection has ended"))
        for timer in self._leaving.values():
            timer.cancel()
        relays, self._relays = list(self._relays.values()), {}
        for task in relays:
            await _end(task)
        await asyncio.gather(*(stream.closed() for stream in list(self._plain)), return_exceptions=True)
        await self._tasks.join()

    # --- which sandbox ---

    async def _target(self) -> ForwardTarget:
        if not self._targets and self._own is None and self._more_sessions and self._open():
            await within(SESSION_SECONDS, self._changed.until(lambda: self._targets or not self._more_sessions))
        if self._over.is_set():
            raise Unavailable("the connection has ended")
        if self._targets:
            return self._targets[0]
        if self._own is None or not self._own.usable:
            self._own = ForwardTarget(self._usual())
            self._tasks.start(self._keep(self._own))
        return self._own

    def _open(self) -> bool:
        """Return whether the sandbox depends on a session that may still come."""
        usual = self._usual()
        return usual.name is None and not self._claims.has(usual)

    async def _keep(self, place: ForwardTarget) -> None:
        """Hold a sandbox without a session until the connection ends, no forward uses it, or its lifetime is over."""
        try:
            async with self._claims.sandbox(place.granted, secrets.token_hex(5), lambda text: None) as pending:
                sandbox = await pending.get()
                place.entered(sandbox)
                await self._until_useless(place.granted.profile.limits)
                place.failed(Unavailable("the sandbox has ended"))
                await self._leave_if_unused(sandbox)
        except GateError as error:
            place.failed(error)
        finally:
            place.failed(Unavailable("the connection has ended"))

    async def _until_useless(self, limits: ProfileLimits) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.max_lifetime):
                used = True
                while used and not self._over.is_set():
                    await within(limits.idle or None, self._over.wait())
                    used = self.active + self.listeners > 0

    # --- relays ---

    @contextlib.asynccontextmanager
    async def _relay(self, sandbox: Sandbox) -> AsyncIterator[Relay | None]:
        """Provide the sandbox's relay, started when first needed, to open something; ``None``: it cannot run there."""
        self._opening[sandbox.id] += 1
        try:
            task = self._relays.get(sandbox.id)
            if task is None or (task.done() and not _usable(task)):
                if self._over.is_set():
                    raise Unavailable("the connection has ended")
                task = self._relays[sandbox.id] = asyncio.create_task(_start(sandbox, self._leave_soon))
            try:
                relay = await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    raise Unavailable("the sandbox has ended") from None
                raise
            yield relay
        finally:
            self._opening[sandbox.id] -= 1
            self._leave_soon(sandbox)

    def _leave_soon(self, sandbox: Sandbox) -> None:
        """Close the sandbox's relay after ``UNUSED_SECONDS``, if it is unused then."""
        if not self._over.is_set() and sandbox.id not in self._leaving and not self._in_use(sandbox):
            later = asyncio.get_running_loop().call_later
            self._leaving[sandbox.id] = later(UNUSED_SECONDS, self._leave_now, sandbox)

    def _leave_now(self, sandbox: Sandbox) -> None:
        del self._leaving[sandbox.id]
        self._tasks.start(self._leave_if_unused(sandbox))

    async def _leave_if_unused(self, sandbox: Sandbox) -> None:
        """Close the relay of a sandbox that nothing here uses: to a named or shared sandbox it is a running program."""
        if not self._in_use(sandbox):
            await self._leave(sandbox)

    async def _leave(self, sandbox: Sandbox) -> None:
        """Close the relay of a sandbox that is about to be deleted or left."""
        self._agents.pop(sandbox.id, None)
        task = self._relays.pop(sandbox.id, None)
        if task is not None:
            await _end(task)
        self._forget_lost()

    def _forget_lost(self) -> None:
        self._listeners = {where: one for where, one in self._listeners.items() if one[0].alive}

    def _accepted(self, where: Listening, back: OpenReverseChannel) -> Callable[[RelayStream, str, int], None]:
        def accepted(stream: RelayStream, host: str, port: int) -> None:
            if self._back < MAX_REVERSE_CONNECTIONS:
                self._back += 1
                self._tasks.start(self._carry_back(stream, where, back, host, port))
            else:
                stream.close()

        return accepted

    async def _carry_back(
        self, stream: RelayStream, where: Listening, back: OpenReverseChannel, host: str, port: int
    ) -> None:
        try:
            with self._report_open("back", where):
                client = await back(host, port)
            began = time.monotonic()
            up, down = await splice(client, stream)
            events = self._events.with_fields(kind="back", target=str(where), seconds=since(began))
            events.emit(Code.FORWARD_END, bytes_in=up, bytes_out=down)
        except GateError:
            stream.close()
        finally:
            self._back -= 1

    async def _forget(self, stream: plain.PlainStream) -> None:
        await stream.wait_closed()
        await stream.closed()
        self._plain.discard(stream)

    @contextlib.contextmanager
    def _report_open(self, kind: str, where: Destination | Listening) -> Iterator[dict[str, Value]]:
        """Emit an event with the result of the body, which may add fields to it."""
        fields: dict[str, Value] = {}
        events = self._events.with_fields(kind=kind, target=str(where))
        began = time.monotonic()
        try:
            yield fields
        except GateError as error:
            events = events.with_fields(code=error.code, reason=str(error), seconds=since(began))
            events.emit(Code.FORWARD_REFUSED, level=error.level)
            raise
        events.with_fields(**fields).emit(Code.FORWARD_OPEN, seconds=since(began))


async def _own_addresses(destination: Destination, place: ForwardTarget) -> tuple[str, ...]:
    """Return the sandbox's own addresses that the destination stands for; see ``own_addresses``."""
    if not isinstance(destination, Tcp):
        return ()
    own = own_addresses(destination.host)
    # Before a sandbox exists nobody can know its name and addresses. A named one may have existed before.
    if own or (place.sandbox is None and place.granted.name is None):
        return own
    sandbox = await place.get()
    return own_addresses(destination.host, sandbox.hostname, await sandbox.addresses())


async def _start(sandbox: Sandbox, stream_ended: Callable[[Sandbox], None]) -> Relay | None:
    try:
        return await Relay.start(sandbox, partial(stream_ended, sandbox))
    except NoRelay:
        return None


async def _end(task: asyncio.Task[Relay | None]) -> None:
    if not task.done():
        await cancel(task)
    if _started(task) and (relay := task.result()) is not None:
        await relay.close()


def _started(task: asyncio.Task[Relay | None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _usable(task: asyncio.Task[Relay | None]) -> bool:
    if not _started(task):
        return False
    relay = task.result()
    return relay is None or relay.alive
