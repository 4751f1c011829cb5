"""The broker's port in sandboxes: a listener on their loopback, whose connections the broker answers outside.

A port belongs to the sandbox, not to a login: it is opened for the first session, and stays as long as the sandbox and
this gateway do. Where another gateway has it open already, this one takes it when that one is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import structlog

from sshgate.access.policy import Grant
from sshgate.broker import environment
from sshgate.broker.caller import BrokerConnections, Caller
from sshgate.config.model import Broker, Config, Profile
from sshgate.config.values import matches
from sshgate.errors import GateError
from sshgate.forwarding.destinations import Tcp
from sshgate.forwarding.relay import ConnectFailed, NoRelay, Relay, RelayStream
from sshgate.sandbox.interfaces import NamedSandboxes, Order, Sandbox
from sshgate.session import notices
from sshgate.stream.interfaces import Client
from sshgate.stream.tasks import Event, TaskSet, cancel, within

# How long a program's start waits for the port. It takes as long as python3's start, some 50 ms.
READY_SECONDS = 5.0
# Seconds before a relay that did not start, or has ended, is started again; the last one is repeated.
PAUSES = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
# Seconds between two attempts to listen, where the port is in use.
LISTEN_AGAIN = 5.0
# What a relay says then.
_IN_USE = os.strerror(errno.EADDRINUSE)
# Seconds between looks for sandboxes whose port nobody keeps open, and before the next look at one that somebody does.
LOOK_SECONDS = 10.0
IN_USE_SECONDS = 60.0
# Connections beyond those of ``broker.connections_per_sandbox``, which the broker refuses with a sentence.
MOST_MORE = 8
# Seconds after which a relay has run long enough that its end is no failure to start.
STEADY_SECONDS = 60.0

log = structlog.get_logger("sshgate.session")


class _InUse(Exception):
    """Another gateway has the port open, of a sandbox that no session here uses."""


class Ports:
    """The ports of one gateway. ``close`` them before the provider."""

    def __init__(self, broker: BrokerConnections, config: Config, named: NamedSandboxes | None = None) -> None:
        """``named``: those of them that nobody is logged in to get a port, too, if no gateway keeps it open."""
        self._broker = broker
        self._config = config
        self._named = named
        self._looking = TaskSet()
        self._ports: dict[tuple[str, str], _Port] = {}

    def reconfigure(self, config: Config) -> None:
        """Use other settings for ports that are opened later."""
        self._config = config

    @property
    def number(self) -> int:
        """The port in sandboxes."""
        return self._config.broker.port

    def start(self) -> None:
        """Begin to look for sandboxes whose gateway has died while nobody was logged in, and open their ports."""
        if self._named is not None:
            self._looking.start(self._look(self._named))

    async def _look(self, named: NamedSandboxes) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with _defects_logged():
                known = {(port.caller.user, port.caller.name) for port in self._ports.values()}
                for user, name, profile in named.unattended():
                    configured = self._config.profiles.get(profile)
                    if configured is None or not configured.brokered or (user, name) in known:
                        continue
                    with _defects_logged(), contextlib.suppress(GateError):
                        sandbox = await named.find(Order(configured, user, secrets.token_hex(5), name))
                        if sandbox is not None:
                            self._open(sandbox, user, configured, name, {}, attended=False)

    def open(self, sandbox: Sandbox, user: str, granted: Grant, keys: Mapping[str, str]) -> _Port:
        """Open the sandbox's port, without waiting; if it is open, only add the keys that the user has brought."""
        return self._open(sandbox, user, granted.profile, granted.name, keys, attended=True)

    def _open(
        self, sandbox: Sandbox, user: str, profile: Profile, name: str | None, keys: Mapping[str, str], attended: bool
    ) -> _Port:
        key = sandbox.id, sandbox.uid
        port = self._ports.get(key)
        if port is None:
            groups = self._config.limits.groups
            theirs = tuple(name for name, group in groups.items() if matches(user, group.users))
            caller = Caller(user, theirs, profile.name, sandbox.id, sandbox.uid, name)
            port = self._ports[key] = _Port(self._broker, caller, sandbox, self._config.broker, profile)
        port.open(sandbox, keys, lambda: self._ports.pop(key, None), attended)
        return port

    async def close(self) -> None:
        """Close all ports. Their connections end. Never raises."""
        await self._looking.cancel()
        ports, self._ports = list(self._ports.values()), {}
        await asyncio.gather(*(port.close() for port in ports))


@contextlib.contextmanager
def _defects_logged() -> Iterator[None]:
    """The next look may succeed, and other sandboxes must not wait for that."""
    try:
        yield
    except Exception:
        log.exception("port.broken")


class PortUse:
    """One session's use of the port. In a profile that does not use the broker it changes and does nothing.

    ``ports``: ``None`` if the gateway has no broker.
    """

    def __init__(self, ports: Ports | None, user: str, granted: Grant) -> None:
        self._ports = ports
        self._user = user
        self._port: _Port | None = None
        self._brought: tuple[environment.Brought, ...] = ()
        self.granted = granted
        """The grant, without credentials, and with the variables that lead to the broker."""
        if ports is not None and granted.profile.brokered:
            client = environment.without_credentials(granted.request.environment, granted.profile)
            ours = environment.without_credentials(granted.environment, granted.profile)
            routes = environment.routes(granted.profile, ports.number)
            asked = {name: value for name, value in client.environment.items() if name not in routes}
            added = {**ours.environment, **{name: text.encode() for name, text in routes.items()}}
            self.granted = replace(granted, request=replace(granted.request, environment=asked), environment=added)
            self._brought = client, ours

    @property
    def defaults(self) -> Mapping[str, str]:
        """Variables that the profile and the client may set otherwise."""
        return environment.defaults(self.granted.profile) if self._ports is not None else {}

    def open(self, sandbox: Sandbox) -> None:
        """Begin to open the port, beside the start of the session's program."""
        if self._ports is not None and self.granted.profile.brokered:
            keys = {provider: key for one in self._brought for provider, key in one.keys.items()}
            self._port = self._ports.open(sandbox, self._user, self.granted, keys)

    async def ready(self, client: Client) -> None:
        """Wait for the port, ``READY_SECONDS`` at most; on a terminal, show what the user should know of it."""
        if self._port is None:
            return
        problem = await self._port.ready()
        if self.granted.request.terminal is not None:
            for one in self._brought:
                for sentence in (*one.of_keys(self._port.elsewhere), *one.sentences):
                    await notices.say(client, self.granted.request, sentence)
            if problem:
                await notices.say(client, self.granted.request, problem)


class _Port:
    """The port of one sandbox, and the relay that listens on it."""

    def __init__(
        self, broker: BrokerConnections, caller: Caller, sandbox: Sandbox, settings: Broker, profile: Profile
    ) -> None:
        self._broker = broker
        self.caller = caller
        self._number = settings.port
        self._most = settings.connections_per_sandbox + MOST_MORE
        self._lifetime = profile.limits.max_lifetime
        self._before = environment.script(profile, settings.port)
        self._keys: dict[str, str] = {}
        self._wanted = Event()
        self._problem: str | None = None
        self.elsewhere = False
        """Whether another gateway has it open."""
        self._known = Event()
        self._task: asyncio.Task[None] | None = None
        self._sandbox = sandbox
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks = TaskSet()

    def __repr__(self) -> str:
        return f"<_Port {self._number} of {self.caller.sandbox} {len(self._tasks)} connections>"

    def open(self, sandbox: Sandbox, keys: Mapping[str, str], ended: Callable[[], object], attended: bool) -> None:
        """Open it if it is not. ``ended`` is called once the sandbox has gone.

        ``attended``: a session of this gateway wants it; else it is given up where it is in use already.
        """
        if attended:
            self._wanted.set()
        self._sandbox = sandbox
        self._keys |= keys
        if self._expiry is not None:
            self._expiry.cancel()
        if self._task is None or self._task.done():
            self._known.clear()
            self._task = asyncio.create_task(self._run(ended))

    async def ready(self) -> str | None:
        """Wait until it is open. Returns what is wrong, as a sentence for the user."""
        await within(READY_SECONDS, self._known.wait())
        return self._problem

    async def close(self) -> None:
        """Close it, and its connections. Never raises."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._task is not None:
            await cancel(self._task)
        await self._tasks.cancel()

    async def _run(self, ended: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lifetime
        failures, there = 0, True
        while there and loop.time() < until:
            began = loop.time()
            try:
                # Of a sandbox that nobody is logged in to, only the provider knows; another may have its name by now.
                there = not failures or await self._sandbox.exists()
                if there:
                    await self._listen(await Relay.start(self._sandbox, resident=self._before))
            except _InUse:
                there = await within(IN_USE_SECONDS, self._wanted.wait())
            except NoRelay:
                self._know("the image has no python3, so that no agent here reaches a model; install it there.")
                break
            except GateError as error:
                self._know(f"no model can be reached yet: {error}")
            except Exception:
                log.exception("port.broken", sandbox=self.caller.sandbox)  # twice a minute at most
                self._know("no model can be reached yet: an error inside the gateway, which tries again.")
            failures = 1 if loop.time() - began > STEADY_SECONDS else failures + 1
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES)) - 1] if there else 0)
        # Until it has certainly gone, the keys are kept for when its user comes back.
        self._expiry = loop.call_later(max(0.0, until - loop.time()) if there else 0, ended)

    async def _listen(self, relay: Relay) -> None:
        """Listen until the relay has ended, and close it."""
        try:
            while relay.alive:
                try:
                    await relay.listen(Tcp("127.0.0.1", self._number), self._accepted)
                except ConnectFailed as error:
                    # In use by another gateway, which is no problem, or by a program of the user.
                    self.elsewhere = _IN_USE in str(error)
                    self._know(None if self.elsewhere else f"port {self._number} of the sandbox: {error}")
                    if not self._wanted.is_set():
                        raise _InUse from error
                    await asyncio.sleep(LISTEN_AGAIN)
                else:
                    self.elsewhere = False
                    self._know(None)
                    await relay.wait_ended()
        finally:
            await relay.close()

    def _know(self, problem: str | None) -> None:
        self._problem = problem
        self._known.set()

    def _accepted(self, stream: RelayStream, host: str, port: int) -> None:
        if len(self._tasks) < self._most:
            self._tasks.start(self._broker.serve(stream, self.caller, self._keys))
        else:
            stream.close()
