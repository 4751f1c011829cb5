"""Sockets of people who watch a held session by a link. They have no login, and reach nothing but this one session."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from sshgate.access.connections import network_of
from sshgate.access.identity import Identity, LoginName
from sshgate.errors import GateError, LimitReached, NoSuchSandbox
from sshgate.hold.answers import State
from sshgate.hold.line import SessionGone
from sshgate.hold.wishes import Place, Wish
from sshgate.session.subsystems.held_sessions import HeldSessions
from sshgate.stream.interfaces import Exited, Lost, Signalled
from sshgate.stream.tasks import cancel
from sshgate.stream.terminal import TerminalSize
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Stranger
from sshgate.telemetry.rate_limit import RateLimit
from webshim.connection import connection_of
from webshim.credentials import Principal
from webshim.output import Start
from webshim.protocol import BINARY_BYTES, Ack, Attach, Broken, Close, Ping, Watch, encode, parse_watcher
from webshim.session import WebSession
from webshim.shares import BadShare, Share, Shares
from webshim.socket import SessionSocket

# Who watches at once at one gateway: each is an exec in a sandbox. Each worker takes its part of them.
MOST_BY_LINK = 8
MOST_BY_USER = 16
MOST = 128
# Times that a link may be opened in a minute: each begins an exec, and may make the program redraw.
MOST_OPENED = 30
# What a page takes as a size.
LARGEST_COLUMNS, LARGEST_ROWS = 1000, 500
# Seconds for which a broken connection to the sandbox is opened again; then the page comes back.
REATTACH_SECONDS = 20.0
ENDED = "the session has ended, and this link with it."
RESTARTS = "the gateway restarts"
UNREACHABLE = "the session has ended, or cannot be reached now."
NOBODY = Principal("", "share", "", "", 0.0, 0.0)

log = structlog.get_logger("sshgate.web")


class WatchedSession(WebSession):
    """What one socket shows of a held session. The program decides its size."""

    def changed_there(self, state: State) -> None:
        """Take the size; who else watches is the owner's concern."""
        self.size = TerminalSize(min(state.columns, LARGEST_COLUMNS), min(state.rows, LARGEST_ROWS))
        if self.viewer is not None:
            self.viewer.wake()


@dataclass(slots=True)
class Watchers:
    """Who watches by links at this gateway, within bounds."""

    shares: Shares
    held: HeldSessions
    events: Events
    workers: int = 1
    draining: bool = False
    sockets: set[WatcherSocket] = field(default_factory=set)
    opened: RateLimit = field(default_factory=RateLimit)

    def socket(self, request: web.Request, source: str) -> WatcherSocket:
        """Return a socket for a request that comes from our own page."""
        return WatcherSocket(self, request, source)

    @contextmanager
    def watching(self, socket: WatcherSocket, share: Share) -> Iterator[None]:
        """Count a socket while the body runs. Raises ``Broken`` if a limit is reached, or the gateway drains."""
        if self.draining:
            raise Broken(RESTARTS, "unavailable", Close.RESTART)
        here = [one.share for one in self.sockets if one.share is not None]
        by_link = sum(one.id == share.id for one in here)
        by_user = sum(one.principal.user == share.principal.user for one in here)
        full = ((by_link, MOST_BY_LINK), (by_user, MOST_BY_USER), (len(here), MOST))
        if any(count >= self._part(most) for count, most in full):
            raise self._too_many(socket, share, "as many people watch as may; try again later.")
        if not self.opened.due(share.id, self._part(MOST_OPENED)):
            raise self._too_many(socket, share, "this link was opened too often just now; try again in a minute.")
        shared = share.shared
        events = self.events.context(user=share.principal.user, id=share.id, source=socket.source)
        socket.share = share
        self.sockets.add(socket)
        events.emit(
            Code.SHARE_OPENED, name=shared.sandbox, held=shared.session, types=shared.types, watchers=by_link + 1
        )
        try:
            yield
        finally:
            self.sockets.discard(socket)
            events.emit(Code.SHARE_CLOSED, reason=socket.why)

    def _part(self, most: int) -> int:
        return max(1, most // self.workers)

    def _too_many(self, socket: WatcherSocket, share: Share, reason: str) -> Broken:
        self.refused(socket.source, reason, share.principal)
        return Broken(reason, "limit", Close.FULL)

    def refused(self, source: str, reason: str, principal: Principal | None) -> None:
        """Report a link that was not accepted; ``principal``: its own, if it was one of ours."""
        self.events.emit(
            Code.WEB_REFUSED, stranger=Stranger(network_of(source), 1), reason=f"link to a session: {reason}",
            source=source, user=principal.user if principal else None, id=principal.id if principal else None,
        )  # fmt: skip

    def recheck(self) -> Iterator[None]:
        """End the sockets whose link is good no longer; yields after each."""
        for socket in tuple(self.sockets):
            if socket.share is not None and (reason := self.shares.over(socket.share)):
                socket.cut(Close.LOGIN, reason)
            yield

    def restart(self) -> None:
        """End all sockets, also those whose link is still looked up: their pages find the next gateway."""
        self.draining = True
        for socket in self.sockets:
            socket.end(Close.RESTART, RESTARTS)


class WatcherSocket(SessionSocket):
    """The server's end of a WebSocket of somebody who watches. Its first frame has the secret of the link."""

    def __init__(self, watchers: Watchers, request: web.Request, source: str) -> None:
        super().__init__(NOBODY, source, BINARY_BYTES)
        self.share: Share | None = None
        self.why = "gone"
        """Why it has ended, for the operator."""
        self._watchers = watchers
        self._request = request
        self._task: asyncio.Task[None] | None = None
        self._sent_size = TerminalSize()

    def cut(self, code: int, reason: str) -> None:
        """End the socket with a sentence for the page."""
        self.error = "ended"
        self.end(code, reason)

    async def _serve(self) -> tuple[int, str, str]:
        share = await self._opened()
        with self._watchers.watching(self, share):
            try:
                ending = await super()._serve()
                over = self._session is not None and self._session.ending is not None
                self.why = "the session has ended" if over else ending[1] or self.why
                return ending
            finally:
                if self._task is not None:
                    await cancel(self._task)
                if self._session is not None:
                    self._session.detach(self)
                    self._session.over()

    async def _opened(self) -> Share:
        frame = parse_watcher(await self._first_frame())
        if not isinstance(frame, Watch):
            raise Broken("the first frame must be watch")
        try:
            share = await self._watchers.shares.opened(frame.share, self.source)
        except BadShare as error:
            self._watchers.refused(self.source, str(error), error.principal)
            raise Broken(str(error), "ended", Close.LOGIN) from error
        except GateError as error:
            raise Broken(str(error), "unavailable", Close.RESTART) from error
        connection_of(self._request).upgraded()
        return share

    async def _attached(self) -> tuple[WebSession, Start]:
        share = self.share
        assert share is not None
        owner, shared = share.principal, share.shared
        self.principal = owner
        identity = Identity(
            LoginName(owner.user, None, shared.sandbox, shared.session), "web-share", owner.proof, self.source
        )
        session = WatchedSession(secrets.token_urlsafe(18), identity, owner, "", TerminalSize(), Place(shared.id))
        session.begun = True
        start = session.attach(self, Attach(session.id, "", "", session.size.columns, session.size.rows))
        self.send(encode(
            "watching", owner=owner.user, name=shared.sandbox, session=shared.session, types=shared.types,
            ends=owner.expires,
        ))  # fmt: skip
        self._greet(session, start)
        self._task = asyncio.create_task(self._watch(session, share))
        return session, start

    async def _watch(self, session: WatchedSession, share: Share) -> None:
        owner, shared = share.principal.user, share.shared
        wish = Wish(
            "watch", source=self.source, reattach=REATTACH_SECONDS, placed=True, id=shared.id, types=shared.types
        )
        session.running = True
        reason = UNREACHABLE
        try:
            outcome = await self._watchers.held.watch(owner, shared.sandbox, wish, session)
            if isinstance(outcome, Exited | Signalled):
                await session.finish(outcome)
                return
        except (NoSuchSandbox, SessionGone):
            reason = ENDED
        except LimitReached as error:
            reason = str(error)
        except GateError as error:
            log.warning("web.share", user=owner, reason=str(error))
        except Exception:
            log.exception("web.share.broken", user=owner)
        await session.finish(Lost(reason))

    def _type(self, session: WebSession, data: bytes) -> None:
        if self.share is None or not self.share.shared.types:
            raise Broken("this link is for watching only", "read_only")
        super()._type(session, data)

    def _obey(self, session: WebSession, text: str) -> str | None:
        match parse_watcher(text):
            case Ack(offset):
                self._acknowledge(session, offset)
            case Ping(id):
                return encode("pong", id=id)
            case Watch():
                raise Broken("watch is the first frame, once")
        return None

    def _ask_for_snapshot(self) -> None:
        """Nobody comes back to this socket's terminal."""

    async def _send_changes(self, session: WebSession) -> bool:
        if session.size != self._sent_size:
            self._sent_size = session.size
            await self._websocket.send_str(encode("size", cols=session.size.columns, rows=session.size.rows))
        return await super()._send_changes(session)
