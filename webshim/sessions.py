"""All web sessions: who may have how many, how each is run by the core, and when it is over."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

import structlog

from sshgate.access.identity import Identity, LoginName
from sshgate.access.policy import grant
from sshgate.config.model import Profile
from sshgate.errors import LimitReached
from sshgate.stream.interfaces import Client, Request, Shell
from sshgate.stream.terminal import Terminal, TerminalSize
from webshim.principal import Principal
from webshim.session import WebSession

TERM = "xterm-256color"
# A session that was asked for and that no socket has come for.
UNATTENDED_SECONDS = 30.0
# Sessions that were cut have this long to undo what they did.
CUT_SECONDS = 8.0

log = structlog.get_logger("sshgate.web")


class Login(Protocol):
    """One login at the core; see ``sshgate.session.gateway.Login``."""

    shell_pid: int | None

    async def run(self, request: Request, client: Client) -> None:
        """Serve one program to its end."""

    def disconnected(self) -> None:
        """What runs in its sandbox is about to end with that."""

    async def close(self) -> None:
        """Remove what it shared."""


class Gateway(Protocol):
    """What turns identities into logins."""

    profiles: Mapping[str, Profile]

    def usual_profile(self, user: str, name: str) -> str | None:
        """The profile of a named sandbox that is there, for who does not say which."""

    def login(self, identity: Identity, together: bool = False) -> Login:
        """A login; ``together``: with one sandbox for all that is run on it."""


class Sessions:
    """The registry. A session is its user's alone."""

    def __init__(self, gateway: Gateway, most: int) -> None:
        self._gateway = gateway
        self._most = most
        self._sessions: dict[str, WebSession] = {}
        self._logins: dict[str, Login] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._aside: dict[str, set[asyncio.Task[None]]] = {}

    def __repr__(self) -> str:
        attached = sum(session.viewer is not None for session in self._sessions.values())
        return f"<Sessions {len(self._sessions)}, {attached} attached, {len(self._runs)} run>"

    @property
    def running(self) -> int:
        """Sessions whose program runs or starts."""
        return len(self._runs)

    def all(self) -> list[WebSession]:
        """Every session."""
        return list(self._sessions.values())

    def of(self, user: str) -> list[WebSession]:
        """A user's sessions, oldest first."""
        return [session for session in self._sessions.values() if session.user == user]

    def get(self, user: str, session_id: str) -> WebSession | None:
        """This session, where it is this user's."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.user == user else None

    def create(
        self, owner: Principal, source: str, profile: str | None, name: str | None, size: TerminalSize | None
    ) -> WebSession:
        """A new session; with a size it starts at once. Raises ``Denied`` and ``LimitReached``."""
        identity = Identity(LoginName(owner.user, profile, name), f"web-{owner.method}", owner.proof, source)
        granted = grant(
            identity, Request(Shell()), self._gateway.profiles, partial(self._gateway.usual_profile, owner.user)
        )
        mine = self.of(owner.user)
        if len(mine) >= self._most:
            ended = [session for session in mine if session.state == "ended"]
            if not ended:
                raise LimitReached(f"you have {len(mine)} of {self._most} sessions; end one and try again.")
            self._forget(ended[0])
        session = WebSession(secrets.token_urlsafe(18), identity, owner, granted.profile.name, size or TerminalSize())
        session.kept = granted.profile.limits.detached
        self._sessions[session.id] = session
        if size is not None:
            self.begin(session)
        asyncio.get_running_loop().call_later(UNATTENDED_SECONDS, self._unattended, session)
        return session

    def begin(self, session: WebSession) -> None:
        """Start its program, unless that was done."""
        if not session.begun and session.ending is None:
            session.begun = True
            self._runs[session.id] = asyncio.create_task(self._run(session))

    def end(self, session: WebSession, reason: str) -> None:
        """It is over: now, where nothing runs, else as soon as the core has undone it."""
        session.end(reason)
        if (login := self._logins.get(session.id)) is not None:
            login.disconnected()
        if session.id not in self._runs:
            session.over()
            if not session.acquainted:
                self._forget(session)

    async def removed(self, session: WebSession) -> None:
        """End it, wait until that is done, and forget it."""
        self.end(session, "this session was ended.")
        if (run := self._runs.get(session.id)) is not None:
            await asyncio.wait({run})
        self._forget(session)

    async def aside(self, session: WebSession, run: Callable[[Login], Coroutine[Any, Any, None]]) -> bool:
        """Run something else in the session's sandbox; false where there is none (yet, or any more).

        It is cut when the session ends, before the sandbox goes.
        """
        login = self._logins.get(session.id)
        if login is None or not session.running or session.ending is not None:
            return False
        task = asyncio.create_task(run(login))
        tasks = self._aside.setdefault(session.id, set())
        tasks.add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            tasks.discard(task)
        if not task.cancelled():
            task.result()
        return True

    def end_unattended(self) -> None:
        """End what nobody is attached to."""
        for session in self.all():
            if session.viewer is None:
                self.end(session, "the gateway was shut down.")

    async def drain(self, seconds: float) -> None:
        """Wait until everything that runs has ended, at most this long."""
        if self._runs:
            await asyncio.wait(self._runs.values(), timeout=seconds)

    async def close(self) -> None:
        """Cut what still runs, and return when it has undone what it did."""
        runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        if runs:
            await asyncio.wait(runs, timeout=CUT_SECONDS)

    async def _run(self, session: WebSession) -> None:
        login = self._logins[session.id] = self._gateway.login(session.identity, together=True)
        terminal = Terminal(TERM, session.size)
        try:
            await login.run(Request(Shell(), terminal, {"COLORTERM": b"truecolor"}), session)
        except Exception:
            log.exception("web.session.broken", user=session.user)
        finally:
            await self._undone(session, login)

    async def _undone(self, session: WebSession, login: Login) -> None:
        try:
            del self._logins[session.id]
            # What still uses the sandbox must not find it gone and make another one.
            aside = self._aside.pop(session.id, set())
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)
            await login.close()
        finally:
            del self._runs[session.id]
            session.over()
            if session.id in self._sessions:
                asyncio.get_running_loop().call_later(session.kept, self._forget, session)

    def _unattended(self, session: WebSession) -> None:
        if not session.acquainted and session.ending is None:
            self.end(session, "nobody came for this session.")

    def _forget(self, session: WebSession) -> None:
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
