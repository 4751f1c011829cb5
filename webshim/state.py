"""The state behind the routes, and the checks that they share: principal, source, origin, drain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from sshgate.access.connections import network_of, origin_of
from sshgate.access.siblings import Siblings
from sshgate.config.model import Web
from sshgate.session.interfaces import SessionGateway
from sshgate.stream import turns
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Stranger
from sshgate.telemetry.rate_limit import RateLimit
from webshim.connection import connection_of
from webshim.credentials import OneTimeTokens, Principal
from webshim.login import Logins
from webshim.protocol import SUBPROTOCOL, Close, encode
from webshim.public_endpoint import Headers, PublicEndpoint
from webshim.responses import Refusal
from webshim.sessions import Sessions
from webshim.socket import Socket, Ticket
from webshim.watching import Watchers

TICKET_SECONDS = 30.0
# The use of a token is reported at most this often per token and source.
USED_SECONDS = 600.0
# Sockets per user besides one for each session, since a socket that is being taken over still counts.
SPARE_SOCKETS = 10


class WebState:
    """The state of one web server. Checks raise ``Refusal`` with the response for the client."""

    def __init__(
        self,
        web: Web,
        gateway: SessionGateway,
        logins: Logins,
        endpoint: PublicEndpoint,
        events: Events,
        watchers: Watchers,
        ssh_port: int = 22,
        siblings: Siblings | None = None,
    ) -> None:
        """
        Args:
            ssh_port: where users reach the SSH front end, for the commands that the page shows.
            siblings: the other workers, if this process is one of several.
        """
        self._siblings = siblings
        self.web = web
        self.ssh_port = ssh_port
        self.events = events
        self.gateway = gateway
        self.logins = logins
        self.place = endpoint
        self.watchers = watchers
        self.sessions = Sessions(gateway, web.sessions_per_user)
        self.tickets: OneTimeTokens[Ticket] = OneTimeTokens(TICKET_SECONDS)
        self.sockets: set[Socket] = set()
        self._transfers: dict[Callable[[], None], tuple[Principal, str]] = {}
        self._used = RateLimit(USED_SECONDS)
        self._looks = turns.budget()
        self.draining = False

    def __repr__(self) -> str:
        return f"<WebState {self.sessions!r}, {len(self.sockets)} sockets{' draining' * self.draining}>"

    # --- authentication ---

    async def principal(self, request: web.Request) -> Principal:
        """Authenticate a request and return its principal.

        A request other than GET or HEAD, and a WebSocket's upgrade, must also come from our own page (``check_origin``)
        unless it has a bearer token and no Origin.

        Raises:
            Refusal: the origin is not ours (403), or there is no valid login (401).
            Unavailable: it cannot be found out now whether a token is valid.
            LimitReached: the user has too many connections.
        """
        authorization = request.headers.get("Authorization")
        bearer = authorization is not None and authorization.lower().startswith("bearer ")
        safe = request.method in ("GET", "HEAD") and "Upgrade" not in request.headers
        if not safe and not (bearer and "Origin" not in request.headers):
            self.check_origin(request)
        if bearer:
            found = await self.logins.by_token((authorization or "")[7:].strip(), self.source(request))
        else:
            found = self.known(request)
        if found is None:
            self._credential_refused(request, bearer)
            headers = {"WWW-Authenticate": "Bearer"} if bearer else None
            raise Refusal(401, "login", "log in first.", headers, **self.login_fields)
        self._check_worker(found.user)
        connection_of(request).authenticated(found.user)
        source = self.source(request)
        if bearer and self._used.due(f"{found.id} {origin_of(source)}"):
            self.events.emit(Code.WEB_TOKEN_USED, user=found.user, source=source, id=found.id)
        return found

    @property
    def login_fields(self) -> dict[str, Any]:
        """What a 401 says of logging in: the methods, and the port of ssh."""
        return {"login": self.logins.methods, "ssh_port": self.ssh_port}

    def _check_worker(self, user: str) -> None:
        """Raise ``Refusal`` if another worker keeps this user's sessions, and the connection could not move there."""
        if self._siblings is not None and self._siblings.owner(user) != self._siblings.index:
            raise Refusal(
                503, "unavailable", "this part of the gateway starts again; try again in a moment.",
                {"Retry-After": "1", "Connection": "close"},
            )  # fmt: skip

    def user_in(self, peer: str, headers: Headers) -> str | None:
        """Return the user that a request's headers name by a proxy, a cookie or a token of ours, valid or expired.

        For the choice of a worker only: it does not authenticate.
        """
        authorization = headers.get("Authorization", "")
        if authorization.lower().startswith("bearer "):
            principal = self.logins.signed(authorization[7:].strip(), token=True)
            return principal.user if principal is not None else None
        if (user := self.place.user_of(peer, headers)) is not None:
            return user
        name = self.place.cookie(self.place.scheme(peer, headers))
        # Only the last one of our name, as `request.cookies`: each signature takes time, and strangers send thousands.
        pairs = (text.strip().partition("=") for text in headers.get("Cookie", "").split(";"))
        word = {key: value for key, _, value in pairs}.get(name)
        principal = self.logins.signed(word.strip('"'), token=False) if word else None
        return principal.user if principal is not None else None

    def _credential_refused(self, request: web.Request, bearer: bool) -> None:
        source = self.source(request)
        cookie = request.cookies.get(self.place.cookie(self.scheme(request)))
        if bearer or cookie:
            word = request.headers.get("Authorization", "")[7:].strip() if bearer else cookie
            known = self.logins.signed(word or "", token=bearer)
            self.events.emit(
                Code.WEB_REFUSED, stranger=Stranger(network_of(source), 1), source=source,
                reason=f"{'token' if bearer else 'cookie'} not accepted",
                user=known.user if known is not None else None, id=known.id if known is not None else None,
            )  # fmt: skip

    def known(self, request: web.Request) -> Principal | None:
        """Return the principal that the browser is logged in as, if any. Bearer tokens are ignored."""
        user = self.place.user_of(connection_of(request).peer, request.headers)
        if user is not None:
            return self.logins.by_proxy(user)
        cookie = request.cookies.get(self.place.cookie(self.scheme(request)))
        return self.logins.by_cookie(cookie, self.source(request)) if cookie else None

    def check_origin(self, request: web.Request) -> None:
        """Check that the request comes from our own page: it has one Origin, which is exactly ours.

        Raises ``Refusal`` otherwise.
        """
        origin = request.headers.getall("Origin", [])
        peer = connection_of(request).peer
        if len(origin) != 1 or not self.place.own_origin(origin[0], peer, request.headers):
            source, reason = self.source(request), f"origin {(origin or ['none'])[0]}"
            self.events.emit(Code.WEB_REFUSED, stranger=Stranger(network_of(source)), reason=reason, source=source)
            raise Refusal(403, "origin", "this request does not come from a page of this server.")

    def source(self, request: web.Request) -> str:
        """Return the client's address."""
        return self.place.source_of(connection_of(request).peer, request.headers)

    def scheme(self, request: web.Request) -> str:
        """Return the scheme that the browser uses: ``http`` or ``https``."""
        return self.place.scheme(connection_of(request).peer, request.headers)

    def base(self, request: web.Request) -> str:
        """Return the base path of this request."""
        return self.place.base_of(connection_of(request).peer, request.headers)

    def check_open(self) -> None:
        """Raise ``Refusal`` if the gateway drains, so that nothing new may start."""
        if self.draining:
            raise Refusal(503, "draining", "the gateway is shutting down; try again in a moment.", {"Retry-After": "5"})

    # --- the cookie ---

    def set_cookie(self, request: web.Request, response: web.Response, principal: Principal) -> None:
        """Set the cookie of a new login, which replaces any earlier one."""
        self._cookie(request, response, self.logins.cookie(principal), int(principal.expires - principal.issued))

    def forget_cookie(self, request: web.Request, response: web.Response) -> None:
        """Delete the cookie in the browser."""
        self._cookie(request, response, "", 0)

    def _cookie(self, request: web.Request, response: web.Response, value: str, seconds: int) -> None:
        scheme = self.scheme(request)
        response.set_cookie(
            self.place.cookie(scheme), value, max_age=seconds, path="/", secure=scheme == "https", httponly=True,
            samesite="Strict",
        )  # fmt: skip

    # --- sockets ---

    async def terminal(self, request: web.Request) -> web.StreamResponse:
        """Serve a WebSocket until it closes. Refusals are HTTP responses, before the upgrade."""
        principal = await self.principal(request)
        self._check_upgrade(request)
        mine = sum(socket.principal.user == principal.user for socket in self.sockets)
        if mine >= self.web.sessions_per_user + SPARE_SOCKETS:
            raise Refusal(429, "limit", f"you have {mine} sockets open; close some of them.")
        source = self.source(request)
        socket = Socket(principal, source, self.sessions, self.tickets)
        self.sockets.add(socket)
        # Many tabs, or many users behind one address, must not count against the limits per source.
        connection_of(request).upgraded()
        self.events.emit(Code.WEB_OPEN, user=principal.user, source=source)
        try:
            return await socket.run(request)
        finally:
            self.sockets.discard(socket)
            self.events.emit(Code.WEB_END, user=principal.user, source=source, reason=socket.ended)
            if self.draining:
                self.sessions.end_unattended()

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Serve a WebSocket of somebody who watches by a link until it closes. It needs no login, and gives none."""
        self.check_origin(request)
        self._check_upgrade(request)
        return await self.watchers.socket(request, self.source(request)).run(request)

    def _check_upgrade(self, request: web.Request) -> None:
        offered = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if SUBPROTOCOL not in offered or not web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request):
            raise Refusal(400, "request", "this is a WebSocket with the subprotocol sshgate.v1.")
        self.check_open()

    def close_sockets(self, which: Callable[[Socket], bool], code: int, reason: str) -> None:
        """Close all sockets for which ``which`` is true. Their sessions continue detached."""
        for socket in self.sockets:
            if which(socket):
                socket.end(code, reason)

    def logged_out(self, over: Callable[[Principal, str], bool], reason: str) -> None:
        """Close sockets and abort transfers whose login has ended. Sessions continue detached.

        ``over`` gets a principal and the client's address, and returns whether that login has ended.
        """
        self.close_sockets(lambda socket: over(socket.principal, socket.source), Close.LOGIN, reason)
        for cut, whose in list(self._transfers.items()):
            if over(*whose):
                cut()

    @contextmanager
    def transferring(self, cut: Callable[[], None], principal: Principal, source: str) -> Iterator[None]:
        """Call ``cut`` if the login ends while the body runs. It aborts a transfer, and returns at once."""
        self._transfers[cut] = principal, source
        try:
            yield
        finally:
            del self._transfers[cut]

    def drain(self, seconds: float) -> None:
        """Start to drain: accept nothing new, notify the pages, and end sessions to which nobody is attached.

        ``seconds`` is what pages show as the remaining time.
        """
        self.draining = True
        for socket in self.sockets:
            socket.send(encode("drain", seconds=seconds))
        self.watchers.restart()
        self.sessions.end_unattended()

    async def recheck(self) -> None:
        """End sessions whose login's proof no longer holds; close sockets and transfers of logins that have ended.

        Sockets and transfers that came by another login of the same user go on. Each login is looked at once.
        """
        await self._looks.run(self.watchers.recheck())
        logins = {(socket.principal, socket.source) for socket in self.sockets} | {*self._transfers.values()}
        ended = await self._failing(self.logins.alive, logins)
        self.logged_out(lambda *login: login in ended, "login is over")
        owners = {(session.owner, session.identity.source) for session in self.sessions.all()}
        gone = await self._failing(self.logins.stands, owners)
        for session in self.sessions.all():
            if session.ending is None and (session.owner, session.identity.source) in gone:
                self.events.emit(Code.WEB_REFUSED, user=session.user, reason="the login was taken away")
                if session.place is not None and session.given:
                    session.place.forsaken = True
                self.sessions.end(session, "your login is not valid any more.")

    async def _failing(
        self, holds: Callable[[Principal, str], bool], logins: set[tuple[Principal, str]]
    ) -> set[tuple[Principal, str]]:
        """Return those for which ``holds`` is false. Each look reads the state of files, so it takes several turns."""
        failing = set[tuple[Principal, str]]()

        def look() -> Iterator[None]:
            for login in logins:
                if not holds(*login):
                    failing.add(login)
                yield

        await self._looks.run(look())
        return failing
