"""Runs sessions: a front end authenticates, gets a ``Login`` from ``Gateway.login``, and runs each channel on it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sshgate.access.identity import Identity
from sshgate.access.limits import Admission
from sshgate.access.policy import Grant, grant
from sshgate.config.model import Profile
from sshgate.config.values import is_given
from sshgate.errors import GateError, ProgramMissing
from sshgate.forwarding.destinations import offers_agent
from sshgate.hold.process import HeldProcess
from sshgate.hold.wishes import Wish
from sshgate.lifecycle.clocks import SessionClock
from sshgate.sandbox.enter import has_sftp_server
from sshgate.sandbox.interfaces import Provider, Sandbox
from sshgate.sandbox.launcher import Program
from sshgate.sandbox.sftp_pace import Paced
from sshgate.sandbox.shares import FileLimits
from sshgate.sandbox.shell_files import ShellFiles
from sshgate.session import held, notices
from sshgate.session.claims import Claims, PendingSandbox, SpeculativeClaim
from sshgate.session.forwards import Forwards
from sshgate.session.notices import Progress, Terminals
from sshgate.session.ports import Ports, PortUse
from sshgate.session.subsystems.held_sessions import HeldSessions
from sshgate.session.subsystems.registry import SubsystemHandlers
from sshgate.session.timers import SessionTimer, run_with_limits
from sshgate.session.waiting import read_available, wait_for_sandbox
from sshgate.stream.bridge import Traffic, bridge
from sshgate.stream.interfaces import (
    STDOUT,
    Client,
    Exec,
    Exited,
    Lost,
    Outcome,
    Process,
    Request,
    Shell,
    Signalled,
    Subsystem,
)
from sshgate.stream.tasks import Event, TaskSet, first_of
from sshgate.telemetry import Telemetry
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EventContext, Value
from sshgate.telemetry.timings import Stage, Timings

# How long a session's end waits for its hang-up. That takes 3 s once its script runs; in a crowd it waits for a place.
HANG_UP_SECONDS = 15.0

FileServer = Callable[[Client, ShellFiles, Traffic, bytes, bool], Awaitable[Outcome | None]]
"""Serves SFTP to a client if the sandbox has no server; returns as ``bridge`` does."""


class Gateway:
    """Turns identities into logins. The front ends use one object together."""

    def __init__(
        self,
        provider: Provider,
        profiles: Mapping[str, Profile],
        admission: Admission | None,
        subsystems: SubsystemHandlers | None = None,
        telemetry: Telemetry | None = None,
        file_server: FileServer | None = None,
        ports: Ports | None = None,
    ) -> None:
        """``admission`` counts each user's sandboxes; ``None`` if the provider does. ``ports``: the broker's."""
        self.ports = ports
        self.file_server = file_server
        self.file_limits = FileLimits()
        self.provider = provider
        self.subsystems = subsystems if subsystems is not None else SubsystemHandlers()
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self.profiles = profiles
        self.held = HeldSessions(provider, lambda: self.profiles)
        self.admission = admission
        self.sessions = 0
        self.draining = False
        """Whether nobody who leaves can come back to this gateway."""
        self.terminals = Terminals()
        """The terminals of running sessions."""
        self._logins: set[Login] = set()

    @property
    def forwards(self) -> Mapping[tuple[str, ...], float]:
        """The numbers of open forwarded connections and listeners of all logins."""
        forwards = [login.forwards for login in self._logins]
        return {
            ("connection",): sum(one.active for one in forwards),
            ("listener",): sum(one.listeners for one in forwards),
        }

    def login(self, identity: Identity, together: bool = False) -> Login:
        """Return a new login. Call it only after authentication has succeeded; the caller closes it.

        ``together``: its channels share one sandbox, even if the profile's scope is the channel.
        """
        login = Login(self, identity, together)
        self._logins.add(login)
        return login

    def existing_profile(self, user: str, name: str) -> str | None:
        """Return the profile of the user's existing sandbox of this name, for requests without a profile."""
        return self.provider.named.profile(user, name)

    def forget(self, login: Login) -> None:
        """Remove a login; called by its ``close``."""
        self._logins.discard(login)


class Login:
    """One authenticated connection. Its front end calls ``close`` when the connection has ended."""

    def __init__(self, gateway: Gateway, identity: Identity, together: bool = False) -> None:
        self.identity = identity
        self._shells: dict[Client, int | None] = {}
        self._timers: dict[Client, SessionTimer] = {}
        self._gateway = gateway
        self._together = together
        self._disconnected = Event()
        self._more_sessions = True
        self._tasks = TaskSet()
        self._events = gateway.telemetry.events.context(
            connection=identity.connection or None, user=identity.user, key=identity.fingerprint, source=identity.source
        )
        self._claims = Claims(gateway.provider, gateway.admission, identity.user, self._events)
        self.forwards = Forwards(identity, self._default_grant, self._claims, self._events)

    async def run(self, request: Request, client: Client) -> None:
        """Serve one channel from its request to the exit status, and clean up.

        Reports every error to the client and raises only ``CancelledError``. The front end runs it in a task of its
        own and cancels it only for a shutdown; ``run`` notices by itself when the client disconnects.
        """
        speculative = self._claims.take_speculative_claim()
        session = speculative.order.session if speculative is not None else secrets.token_hex(5)
        timings = Timings(session, self.identity.arrived)
        timings.mark(Stage.REQUEST)
        events = self._events.with_fields(session=session, asks=request_kind(request)).with_timings(timings)
        self._gateway.sessions += 1
        try:
            await self._serve(session, request, client, events, timings, speculative)
        except GateError as error:
            events.emit(Code.SESSION_FAILED, level=error.level, code=error.code, reason=str(error))
            await notices.say(client, request, str(error))
            await client.finish(Exited(error.status))
        except asyncio.CancelledError:
            events.emit(Code.SESSION_CUT, reason="shutdown")
            await notices.say(client, request, "the gateway is shutting down; log in again in a moment.")
            await client.finish(Lost("shutdown"))
            raise
        except Exception as error:
            events.emit(Code.SESSION_BROKEN, error=error)
            await notices.say(client, request, f"an error inside the gateway ended this session (id {session}).")
            await client.finish(Exited(255))
        finally:
            self._gateway.sessions -= 1
            if speculative is not None:
                await speculative.cancel()

    def shell_pid(self, client: Client) -> int | None:
        """Return the process id, in its sandbox, of this client's program; ``None`` while it has none."""
        return self._shells.get(client)

    def ends(self, client: Client) -> Mapping[str, float]:
        """Return when this client's session ends, by monotonic time and by clock; see ``SessionClock.ends``."""
        return self._timers[client].ends() if client in self._timers else {}

    def start_speculative_claim(self) -> None:
        """Claim a sandbox for a channel that has a terminal but no program yet. Never raises."""
        with contextlib.suppress(GateError):
            self._claims.start_speculative_claim(self._default_grant(), secrets.token_hex(5))

    def sessions_ended(self) -> None:
        """The client will open no more sessions."""
        self._more_sessions = False

    def disconnected(self) -> None:
        """The connection has ended: programs in sandboxes that are deleted with it need not be hung up first."""
        self._disconnected.set()

    async def close(self) -> None:
        """Close forwards and delete shared sandboxes, after the last session has ended. Never raises."""
        self.disconnected()
        await self.forwards.close()
        await self._claims.close()
        await self._tasks.join()
        self._gateway.forget(self)

    def _default_grant(self) -> Grant:
        """Return the grant for the login name alone."""
        return self._grant(Request(Shell()))

    def _grant(self, request: Request) -> Grant:
        usual = partial(self._gateway.existing_profile, self.identity.user)
        granted = grant(self.identity, request, self._gateway.profiles, usual)
        if self._together and granted.scope == "channel":
            granted = replace(granted, scope="connection")
        return granted

    async def _serve(
        self,
        session: str,
        request: Request,
        client: Client,
        events: EventContext,
        timings: Timings,
        speculative: SpeculativeClaim | None,
    ) -> None:
        if await self._answered(request, client, events):
            return
        telemetry = self._gateway.telemetry
        port = PortUse(self._gateway.ports, self.identity.user, self._grant(request))
        granted = port.granted
        program = self._program(granted, port.defaults)
        wanted = held.wish(self.identity, granted, held.place_of(client))
        events = events.with_fields(profile=granted.profile.name, asks=request_kind(granted.request))
        events.with_fields(**request_fields(granted)).emit(Code.SESSION_START)
        telemetry.receipts.add(self.identity.user, timings)
        terminal = granted.request.terminal
        progress = Progress(client, terminal)
        async with (
            self._claims.sandbox(granted, session, progress.say, speculative) as pending,
            self.forwards.session(granted) as place,
        ):
            # What a page begins is over as well if it does not start.
            begins = wanted is not None and wanted.placed and wanted.how == "new"
            pending.over_if_made = begins and is_given(granted.name)
            async with progress.show():
                limit = partial(self._limited, granted, wanted)
                wait = await wait_for_sandbox(
                    client,
                    _enter(pending, granted, events, timings, client, limit, port),
                    interruptible=terminal is not None,
                )
            if wait is None:
                events.emit(Code.SESSION_END, outcome="left", reason="the client left during the start")
                return
            sandbox, process = wait.result
            pending.over_if_made = False
            place.entered(sandbox)
            outcome: Outcome | None = None
            cut = False
            traffic = Traffic(partial(self._first_byte, granted, timings))
            try:
                await self.forwards.wait_for_listeners()
                await port.ready(client)
                program = await self._with_agent(granted, program, sandbox, client)
                buffered_input, eof = (
                    (wait.buffered_input, wait.eof) if terminal is not None else await read_available(client)
                )
                initial_output = await held.begin(process, program, eof, client, events)
                timings.mark(Stage.LAUNCH)
                if granted.scope != "connection" or not self._more_sessions:
                    # No second program will come, or maybe by another gateway: parked launchers would only use memory,
                    # show in its `ps`, and keep a named sandbox.
                    self._tasks.start(sandbox.forget())
                self._shells[client] = process.pid
                asks = granted.request.kind
                serve = partial(self._files, asks) if isinstance(asks, Subsystem) else bridge
                line = serve(client, process, traffic, buffered_input, eof, initial_output)
                timekeeper = self._timekeeper(granted, client, sandbox, process, traffic, pending.remaining_lifetime)
                with telemetry.metrics.carrying(traffic), self._gateway.terminals.among(client, granted.request):
                    outcome = await run_with_limits(line, timekeeper)
            except asyncio.CancelledError:
                cut = True
                raise
            finally:
                self._shells.pop(client, None)
                self._timers.pop(client, None)
                # A held session is left alone: it is there for the next login.
                alive = (outcome is None or isinstance(outcome, Lost)) and not isinstance(process, HeldProcess)
                try:
                    # Before `close`: a node that has to close many connections to running programs cannot start execs.
                    if alive and process.pid is not None and self._sandbox_remains(granted, cut):
                        await self._hang_up(granted, sandbox, process.pid)
                finally:
                    await held.leave(process, client, outcome, events)
                    over = isinstance(outcome, Exited | Signalled) or self._gateway.draining
                    pending.returns = isinstance(process, HeldProcess) and not over
                    pending.over = is_given(granted.name) and await held.is_over(sandbox, process, client, outcome)
            ended = events.with_fields(sandbox=sandbox.id, bytes_in=traffic.up, bytes_out=traffic.down)
            if isinstance(granted.request.kind, Subsystem):
                ended.emit(Code.FILE_TRANSFER)
            ended.with_fields(**outcome_fields(outcome)).emit(Code.SESSION_END)
            if granted.receipt:
                await notices.say(client, granted.request, f"receipt: {timings.line()}.")
            if isinstance(outcome, Lost):
                await notices.say(client, granted.request, outcome.reason)
            if outcome is not None:
                await client.finish(outcome)

    async def _limited(self, granted: Grant, wanted: Wish | None) -> Wish | None:
        return wanted if wanted is None else await self._gateway.held.limited(self.identity.user, granted, wanted)

    def _sandbox_remains(self, granted: Grant, cut: bool) -> bool:
        """Return whether the sandbox outlives this session; if not, its programs need no (slow) hang-up."""
        if cut:
            return granted.scope == "named" and self._gateway.provider.named.outlast
        return granted.scope == "named" or (granted.scope == "connection" and not self._disconnected.is_set())

    async def _hang_up(self, granted: Grant, sandbox: Sandbox, pid: int) -> None:
        """Hang up a program. What takes longer than ``HANG_UP_SECONDS`` goes on in the background."""
        hanging_up = self._tasks.start(sandbox.aside.hang_up(pid))
        waits: list[Coroutine[Any, Any, Any]] = [asyncio.wait((hanging_up,), timeout=HANG_UP_SECONDS)]
        if granted.scope == "connection":
            waits.append(self._disconnected.wait())
        await first_of(*waits)

    def _first_byte(self, granted: Grant, timings: Timings) -> None:
        timings.mark(Stage.FIRST_BYTE)
        prompt = granted.request.terminal is not None and isinstance(granted.request.kind, Shell)
        self._gateway.telemetry.first_byte(timings, prompt)

    async def _files(
        self,
        asks: Subsystem,
        client: Client,
        process: Process,
        traffic: Traffic,
        buffered_input: bytes,
        eof: bool,
        initial_output: bytes,
    ) -> Outcome | None:
        """Serve the sftp subsystem by the sandbox's own server, or by the gateway if it has none."""
        if await has_sftp_server(process):
            return await bridge(client, Paced(process), traffic, buffered_input, eof, initial_output)
        server = self._gateway.file_server
        if server is None or asks.options:
            raise ProgramMissing("this sandbox has no sftp-server, install openssh-sftp-server in its image.")
        user, limits = self.identity.user, self._gateway.file_limits
        with limits.server(user):
            return await server(client, ShellFiles(process, limits.answers, user), traffic, buffered_input, eof)

    async def _answered(self, request: Request, client: Client, events: EventContext) -> bool:
        """Answer a request for one of the gateway's own subsystems. Returns whether it was one."""
        text = await self._gateway.subsystems.answer(self.identity, request, events)
        if text is None:
            return False
        shown = text.replace("\n", "\r\n") if request.terminal is not None else text
        await notices.write(client, shown.encode(), STDOUT)
        await client.finish(Exited(0))
        return True

    def _timekeeper(
        self, granted: Grant, client: Client, sandbox: Sandbox, process: Process, traffic: Traffic, left: float | None
    ) -> SessionTimer:
        # Only an interactive shell can be idle; a command is a running program.
        interactive = granted.request.terminal is not None and isinstance(granted.request.kind, Shell)

        async def warn(sentence: str) -> None:
            if granted.request.terminal is not None:
                await notices.write(client, f"\r\nsshgate: {sentence}\r\n".encode())

        async def busy() -> bool:
            # An open forwarded connection counts as work, whatever the shell does.
            known = interactive and process.pid is not None and not self.forwards.active
            return not known or await sandbox.aside.busy(process.pid or 0)

        clock = SessionClock(granted.profile.limits, time.monotonic(), interactive, left, running_keeps=True)
        timer = SessionTimer(clock, traffic, warn, busy, present=lambda: getattr(client, "attached", True))
        return self._timers.setdefault(client, timer)

    def _program(self, granted: Grant, defaults: Mapping[str, str]) -> Program:
        who = self.identity
        ours = {**defaults, **granted.profile.environment}
        environment: dict[str, bytes] = {name: text.encode() for name, text in ours.items()}
        if who.server_port:  # the connection is SSH
            ends = f"{who.source} {who.source_port} {who.server} {who.server_port}"
            environment["SSH_CLIENT"] = f"{who.source} {who.source_port} {who.server_port}".encode()
            environment["SSH_CONNECTION"] = ends.encode()
        environment["SSHGATE_USER"] = who.user.encode()
        if granted.name is not None:
            environment["SSHGATE_NAME"] = granted.name.encode()
        environment |= granted.environment
        return Program(granted.request, environment, granted.profile.shell, str(replace(who.login, session=None)))

    async def _with_agent(self, granted: Grant, program: Program, sandbox: Sandbox, client: Client) -> Program:
        """Add the client's agent to the program's environment, if it is offered and allowed."""
        back = granted.request.agent
        if back is None or not offers_agent(granted.profile.forward, self.identity.restrictions):
            return program
        try:
            path = await self.forwards.agent(sandbox, back)
        except GateError as error:
            # As with OpenSSH, the session goes on without an agent.
            await notices.say(client, granted.request, f"no agent forwarding: {error}")
            return program
        return replace(program, environment={**program.environment, "SSH_AUTH_SOCK": path})


async def _enter(
    pending: PendingSandbox,
    granted: Grant,
    events: EventContext,
    timings: Timings,
    client: Client,
    limit: Callable[[], Awaitable[Wish | None]],
    port: PortUse,
) -> tuple[Sandbox, Process]:
    sandbox = await pending.get()
    timings.how = pending.source
    timings.mark(Stage.CLAIM)
    events.emit(Code.CLAIM, sandbox=sandbox.id, how=pending.source, scope=granted.scope, name=granted.name)
    port.open(sandbox)
    process = await held.enter(sandbox, granted, await limit(), client)
    timings.mark(Stage.ENTER)
    return sandbox, process


# --- the fields of events ---


def request_kind(request: Request) -> str:
    """Return ``shell``, ``exec`` or the name of the subsystem, as events have it."""
    asks = request.kind
    return "shell" if isinstance(asks, Shell) else "exec" if isinstance(asks, Exec) else asks.name


def request_fields(granted: Grant) -> dict[str, Value]:
    """Return a request's fields for events."""
    asks = granted.request.kind
    # Commands may contain secrets: events have their length, not their text.
    length = len(asks.command) if isinstance(asks, Exec) else None
    return {"terminal": granted.request.terminal is not None, "command_bytes": length}


def outcome_fields(outcome: Outcome | None) -> dict[str, Value]:
    """Return an outcome's fields for events; ``None``: the client disconnected."""
    if isinstance(outcome, Exited):
        return {"outcome": "exited", "status": outcome.status}
    if isinstance(outcome, Signalled):
        return {"outcome": "signalled", "signal": outcome.name}
    if isinstance(outcome, Lost):
        return {"outcome": "lost", "status": outcome.status, "reason": outcome.reason}
    return {"outcome": "left"}
