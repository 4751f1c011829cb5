"""The registry of web sessions: limits per user, how the core runs each session, and when it is removed."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from sshgate.access.connections import take_one
from sshgate.access.identity import Identity, LoginName
from sshgate.access.policy import grant
from sshgate.config.values import given_name, is_given
from sshgate.errors import LimitReached
from sshgate.hold.wishes import Place
from sshgate.session import held
from sshgate.session.interfaces import Gateway, Login
from sshgate.stream.interfaces import Request, Shell
from sshgate.stream.tasks import Event, TaskSet
from sshgate.stream.terminal import Terminal, TerminalSize
from sshgate.stream.turns import Budget
from webshim.credentials import Principal
from webshim.session import WebSession

TERM = "xterm-256color"
# A new session ends after this time unless a socket has attached to it.
UNATTENDED_SECONDS = 30.0
# Time for the cleanup of sessions that are cancelled at shutdown.
CUT_SECONDS = 8.0

log = structlog.get_logger("sshgate.web")


class Sessions:
    """All web sessions. Each belongs to one user, and only that user can find it.

    An ended session stays listed for its profile's ``detached`` time, unless its user needs room for a new one; one
    whose program never started is removed at once. ``most`` is the limit of sessions per user.
    """

    def __init__(self, gateway: Gateway, most: int) -> None:
        self._gateway = gateway
        self._most = most
        self._sessions: dict[str, WebSession] = {}
        self._logins: dict[str, Login] = {}
        # How many sessions are in each login's sandbox.
        self._inside: Counter[Login] = Counter()
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._background: dict[str, TaskSet] = {}
        self._watched: dict[str, set[Event]] = {}
        self._changes: Counter[str] = Counter()

    def __repr__(self) -> str:
        attached = sum(session.viewer is not None for session in self._sessions.values())
        return f"<Sessions {len(self._sessions)}, {attached} attached, {len(self._runs)} run>"

    @property
    def running(self) -> int:
        """How many sessions have a program that runs or starts."""
        return len(self._runs)

    def all(self) -> list[WebSession]:
        """Return the sessions of all users."""
        return list(self._sessions.values())

    def of(self, user: str) -> list[WebSession]:
        """Return a user's sessions, oldest first. Those that are leaving a held one are gone already."""
        return [session for session in self._sessions.values() if session.user == user and not session.left]

    def get(self, user: str, session_id: str) -> WebSession | None:
        """Return the session with this id if it belongs to this user, else ``None``."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.user == user and not session.left else None

    @contextmanager
    def watched(self, user: str) -> Iterator[Event]:
        """Yield an event that is set whenever a session of this user has changed, or there is another or one less."""
        event = Event()
        self._watched.setdefault(user, set()).add(event)
        try:
            yield event
        finally:
            self._watched[user].discard(event)
            if not self._watched[user]:
                del self._watched[user], self._changes[user]

    def changes(self, user: str) -> int:
        """Return how many changes there were since somebody has ``watched`` this user's sessions."""
        return self._changes[user]

    async def described(self, user: str, budget: Budget) -> list[dict[str, object]]:
        """Describe a user's sessions as the REST API lists them, in as many turns of the loop as ``budget`` needs."""
        described: list[dict[str, object]] = []

        def describe() -> Iterator[None]:
            for session in self.of(user):
                described.append(session.summary())
                yield

        await budget.run(describe())
        return described

    def _changed(self, user: str) -> None:
        if user in self._watched:
            self._changes[user] += 1
            for event in self._watched[user]:
                event.set()

    def create(
        self,
        owner: Principal,
        source: str,
        profile: str | None,
        name: str | None,
        size: TerminalSize | None,
        session: str | None = None,
        held_id: str = "",
        lasting: bool = False,
        beside: Login | None = None,
    ) -> WebSession:
        """Create a session, or return that of ``held_id`` which waits here. A new one ends if nobody attaches within
        ``UNATTENDED_SECONDS``.

        Args:
            owner: the user, and the login that the session depends on.
            source: the client's address.
            profile: the requested profile; ``None``: the default.
            name: the name of a sandbox; ``None``: a new one for this session.
            size: starts the program at once, on a terminal of this size; ``None``: it starts at the first attach.
            session: the name of a held session in that sandbox, which is joined, or begun; ``None``: one is begun.
            held_id: the id of the held session that a page has shown already: it goes on there.
            lasting: without ``name``, the sandbox gets one where sessions are held: other gateways find it by that.
            beside: the login of another session, as ``login_of`` has it, which this one shares, and so its sandbox.
                It needs a ``size``, so that it begins at once.

        Raises:
            BadRequest: ``session`` is given, and the profile holds none.
            Denied: the policy refuses the profile or the name.
            LimitReached: the user has too many sessions, and none of them has ended.
        """
        login = LoginName(owner.user, profile, name, session)
        identity = Identity(login, f"web-{owner.method}", owner.proof, source)
        asks = Request(Shell(), Terminal(TERM))
        usual = partial(self._gateway.existing_profile, owner.user)
        granted = grant(identity, asks, self._gateway.profiles, usual)
        if lasting and name is None and granted.profile.hold != "never":
            identity = replace(identity, login=replace(login, name=given_name(secrets.token_bytes(5))))
            granted = grant(identity, asks, self._gateway.profiles, usual)
        place: Place | None = Place(held_id)
        if held.wish(identity, granted, place) is None:
            place = None
        mine = self.of(owner.user)
        # The page may have been here before, and at another gateway meanwhile.
        waiting = [one for one in mine if one.owner.id == owner.id and one.waits_in(name, held_id)]
        if waiting:
            return waiting[0]
        if len(mine) >= self._most:
            ended = [session for session in mine if session.state == "ended"]
            if not ended:
                raise LimitReached(f"you have {len(mine)} of {self._most} sessions; end one and try again.")
            self._forget(ended[0])
        made = WebSession(
            secrets.token_urlsafe(18), identity, owner, granted.profile.name, size or TerminalSize(), place
        )
        made.kept = granted.profile.limits.detached
        made.changed = partial(self._changed, made.user)
        if beside is not None:
            self._enter(made, beside)
        self._sessions[made.id] = made
        made.changed()
        if size is not None:
            self.begin(made)
        asyncio.get_running_loop().call_later(UNATTENDED_SECONDS, self._unattended, made)
        return made

    def login_of(self, session: WebSession) -> Login | None:
        """Return the login of a session that is in its sandbox; ``None`` if it is not there yet, or any more."""
        return self._logins.get(session.id) if session.running and not session.leaving else None

    def _enter(self, session: WebSession, login: Login) -> None:
        self._logins[session.id] = login
        session.ends = partial(login.ends, session)
        self._inside[login] += 1

    def begin(self, session: WebSession) -> None:
        """Start the session's program. No effect if it was started, or the session has ended."""
        if not session.begun and session.ending is None:
            session.begun = True
            session.changed()
            self._runs[session.id] = asyncio.create_task(self._run(session))

    def end(self, session: WebSession, reason: str) -> None:
        """End a session, with a reason for the page. A held one goes on, unless its ``place.ends``.

        If a program runs, this returns before the core has cleaned up.
        """
        session.end(reason)
        if (login := self._logins.get(session.id)) is not None and self._inside[login] == 1:
            login.disconnected()
        if session.id not in self._runs:
            session.over()
            if not session.sized:
                self._forget(session)

    async def removed(self, session: WebSession) -> bool:
        """End a session, also a held one, wait until its sandbox is cleaned up, and remove it from the registry.

        If cancelled, the session still ends, but stays listed for its ``detached`` time. Returns false if a held
        program may go on: the connection to its sandbox was lost, or it takes its time.
        """
        if session.place is not None:
            # A sandbox without a name is deleted, with all that runs in it, when its last session ends.
            login = self._logins.get(session.id)
            shared = login is not None and self._inside[login] > 1
            session.place.ends = session.identity.login.name is not None or shared
        ran = session.ending is None
        self.end(session, "this session was ended.")
        if (run := self._runs.get(session.id)) is not None:
            await asyncio.wait({run})
        self._forget(session)
        place = session.place
        alive = ran and place is not None and place.ends and place.name and not place.ended
        name = session.identity.login.name
        # With the sandbox everything in it is gone.
        return not alive or (is_given(name) and self._gateway.existing_profile(session.user, name) is None)

    async def in_background(self, session: WebSession, run: Callable[[Login], Coroutine[Any, Any, None]]) -> bool:
        """Run something else in the session's sandbox, and wait for it.

        The work is cancelled when the session ends, before its sandbox is removed, and when this is cancelled. What
        it raises is raised here.

        Returns:
            False if the session has no sandbox (yet, or any more); then nothing was run.
        """
        login = self.login_of(session)
        if login is None:
            return False
        task = self._background.setdefault(session.id, TaskSet()).start(run(login))
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        if not task.cancelled():
            task.result()
        return True

    def end_unattended(self) -> None:
        """End all sessions to which no socket is attached, and the streams of events."""
        for user in list(self._watched):
            self._changed(user)
        for session in self.all():
            if session.viewer is None:
                self.end(session, "the gateway was shut down.")

    async def drain(self, seconds: float) -> None:
        """Wait until all running sessions have ended, at most this long. Ends none of them."""
        if self._runs:
            await asyncio.wait(self._runs.values(), timeout=seconds)

    async def close(self) -> None:
        """Cancel all running sessions and wait for their cleanup, at most ``CUT_SECONDS``."""
        runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        if runs:
            await asyncio.wait(runs, timeout=CUT_SECONDS)

    async def _run(self, session: WebSession) -> None:
        login = self._logins.get(session.id)
        if login is None:
            login = self._gateway.login(session.identity, together=True)
            self._enter(session, login)
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
            # Work that still uses the sandbox must end first: without a sandbox it would make the login claim another.
            await self._background.pop(session.id, TaskSet()).cancel()
            take_one(self._inside, login)
            if login not in self._inside:
                await login.close()
        finally:
            del self._runs[session.id]
            session.over()
            if session.left:
                self._forget(session)
            elif session.id in self._sessions:
                asyncio.get_running_loop().call_later(session.kept, self._forget, session)

    def _unattended(self, session: WebSession) -> None:
        if not session.sized and session.ending is None:
            if session.place is not None:
                session.place.unwanted = True
            self.end(session, "nobody came for this session.")

    def _forget(self, session: WebSession) -> None:
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            session.changed()
