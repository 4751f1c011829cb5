"""One session from request to outcome: the one place where the line and control meet.

A front door authenticates, asks ``Gateway.login`` for a ``Login`` and hands every channel to ``Login.run``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping

import structlog

from sshgate.access.identity import Identity
from sshgate.access.limits import Admission
from sshgate.access.policy import Grant, grant
from sshgate.bridge import Traffic, bridge
from sshgate.claims import Claims, Pending
from sshgate.config import Profile
from sshgate.errors import GateError
from sshgate.launcher import Program
from sshgate.lifecycle.clocks import SessionClock
from sshgate.patience import patiently
from sshgate.progress import Progress
from sshgate.sandbox.launch import end_group, is_busy, launch, park
from sshgate.sandbox.provider import Provider, Sandbox
from sshgate.streams import STDERR, STDOUT, Client, Exec, Exited, Lost, Outcome, Process, Request, Shell, Subsystem
from sshgate.timekeeping import Timekeeper, within_limits
from sshgate.verbs import Question, Verbs

# A client that does not take its last words is cut after this many seconds.
LAST_WORDS = 5.0

log = structlog.get_logger("sshgate.gateway")


class Gateway:
    """What a front door needs to know of the rest: it turns identities into logins."""

    def __init__(
        self, provider: Provider, profiles: Mapping[str, Profile], admission: Admission, verbs: Verbs | None = None
    ) -> None:
        self.provider = provider
        self.verbs = verbs if verbs is not None else Verbs()
        self.profiles = profiles
        self.admission = admission
        self.sessions = 0

    def __repr__(self) -> str:
        return f"<Gateway {self.sessions} sessions, {self.admission!r}>"

    def login(self, identity: Identity) -> Login:
        """Called once authentication has succeeded, never before."""
        return Login(self, identity)


class Login:
    """One authenticated connection. Its front door calls ``close`` when the connection has ended."""

    def __init__(self, gateway: Gateway, identity: Identity) -> None:
        self.identity = identity
        self._gateway = gateway
        self._claims = Claims(gateway.provider, gateway.admission, identity.user)

    def __repr__(self) -> str:
        return f"<Login {self.identity.login} from {self.identity.source}>"

    async def run(self, request: Request, client: Client) -> None:
        """Serve one channel to its end: sandbox, program, bridge, exit status, and the sandbox's removal.

        Always ends with ``client.finish``, whatever happens; raises nothing but ``CancelledError``. The
        front door runs it as a task of its own and never cancels it because the client has gone (``run``
        sees that by ``Client.wait_closed``); only shutdown cancels.
        """
        session = secrets.token_hex(5)
        events = log.bind(session=session, user=self.identity.user)
        self._gateway.sessions += 1
        try:
            await self._serve(session, request, client, events)
        except GateError as error:
            events.log(error.level, "session.failed", code=error.code, reason=str(error))
            await _tell(client, request, str(error))
            await client.finish(Exited(error.status))
        except asyncio.CancelledError:
            events.info("session.cut", reason="shutdown")
            await _tell(client, request, "the gateway is shutting down; log in again in a moment.")
            await client.finish(Lost("shutdown"))
            raise
        except Exception:
            events.exception("session.broken")
            await _tell(client, request, f"an error inside the gateway ended this session (id {session}).")
            await client.finish(Exited(255))
        finally:
            self._gateway.sessions -= 1

    async def close(self) -> None:
        """The connection has ended: remove what it shared. Never raises."""
        await self._claims.close()

    async def _serve(self, session: str, request: Request, client: Client, events: structlog.BoundLogger) -> None:
        if await self._answered(request, client, events):
            return
        granted = grant(self.identity, request, self._gateway.profiles)
        program = self._program(granted)
        events.info("session.start", **_asked(granted))
        terminal = granted.request.terminal
        progress = Progress(client, terminal)
        async with self._claims.sandbox(granted, session, progress.say) as pending:
            async with progress.shown():
                wait = await patiently(client, _enter(pending, granted), interruptible=terminal is not None)
            if wait is None:
                events.info("session.end", outcome="client left during the start")
                return
            sandbox, process = wait.result
            outcome: Outcome | None = None
            traffic = Traffic()
            try:
                said = await launch(process, program)
                line = bridge(client, process, traffic, wait.early, wait.eof, said)
                outcome = await within_limits(line, self._timekeeper(granted, client, sandbox, process, traffic))
            finally:
                await process.close()
                alive = outcome is None or isinstance(outcome, Lost)
                if alive and granted.scope != "channel" and process.pid is not None:
                    await end_group(sandbox, process.pid)
            events.info(
                "session.end",
                sandbox=sandbox.id,
                outcome=str(outcome or "client left"),
                bytes_in=traffic.up,
                bytes_out=traffic.down,
            )
            if isinstance(outcome, Lost):
                await _tell(client, granted.request, outcome.reason)
            if outcome is not None:
                await client.finish(outcome)

    async def _answered(self, request: Request, client: Client, events: structlog.BoundLogger) -> bool:
        """Whether the request was a verb of the gateway's own, which needs no sandbox."""
        asks = request.asks
        # A key that forces a command forces it whatever is asked.
        if not isinstance(asks, Subsystem) or self.identity.restrictions.command is not None:
            return False
        verb = self._gateway.verbs.get(asks.name)
        if verb is None:
            return False
        text = await verb(Question(self.identity, request))
        events.info("verb", name=asks.name)
        await client.write(STDOUT, (text.replace("\n", "\r\n") if request.terminal is not None else text).encode())
        await client.finish(Exited(0))
        return True

    def _timekeeper(
        self, granted: Grant, client: Client, sandbox: Sandbox, process: Process, traffic: Traffic
    ) -> Timekeeper:
        # Only a shell that waits for somebody can be idle; a command is a running program.
        interactive = granted.request.terminal is not None and isinstance(granted.request.asks, Shell)

        async def warn(sentence: str) -> None:
            if granted.request.terminal is not None:
                await client.write(STDERR, f"\r\nsshgate: {sentence}\r\n".encode())

        async def busy() -> bool:
            return process.pid is None or await is_busy(sandbox, process.pid)

        clock = SessionClock(granted.profile.limits, time.monotonic(), terminal=interactive)
        return Timekeeper(clock, traffic, warn, busy)

    def _program(self, granted: Grant) -> Program:
        who = self.identity
        environment: dict[str, bytes] = {name: text.encode() for name, text in granted.profile.environment.items()}
        environment["SSH_CLIENT"] = f"{who.source} {who.source_port} {who.server_port}".encode()
        environment["SSH_CONNECTION"] = f"{who.source} {who.source_port} {who.server} {who.server_port}".encode()
        environment["SSHGATE_USER"] = who.user.encode()
        environment |= granted.environment
        return Program(granted.request, environment, granted.profile.shell)


async def _enter(pending: Pending, granted: Grant) -> tuple[Sandbox, Process]:
    sandbox = await pending.get()
    return sandbox, await park(sandbox, granted.request.terminal)


async def _tell(client: Client, request: Request, sentence: str) -> None:
    end = "\r\n" if request.terminal is not None else "\n"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS):
            await client.write(STDERR, f"sshgate: {sentence}{end}".encode())


def _asked(granted: Grant) -> dict[str, object]:
    asks = granted.request.asks
    # Commands may hold secrets: their length is told, not their text.
    what = "shell" if isinstance(asks, Shell) else "exec" if isinstance(asks, Exec) else asks.name
    return {"asks": what, "profile": granted.profile.name, "terminal": granted.request.terminal is not None}
