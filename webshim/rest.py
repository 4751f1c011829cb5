"""The handlers of the REST routes: login, and a user's own sessions. README.md specifies them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from typing import Annotated, Any, TypeVar
from weakref import WeakValueDictionary

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from sshgate.access.connections import network_of
from sshgate.config.values import is_given, is_label, matches
from sshgate.errors import NoSuchSandbox
from sshgate.session.subsystems.sandboxes import end_named
from sshgate.stream.terminal import TerminalSize
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Stranger
from webshim.connection import connection_of
from webshim.credentials import Principal
from webshim.login import Refused
from webshim.protocol import Columns, Rows, clean
from webshim.responses import Refusal, answer
from webshim.session import WebSession
from webshim.socket import Ticket
from webshim.state import WebState

BODY_SECONDS = 10.0
LONGEST_LABEL = 80

B = TypeVar("B", bound=Struct)


class Nothing(Struct):
    """An empty body, ``{}``."""


class LoginBody(Struct):
    """Either a link's ticket, or a name and a password.

    ``switch``: use the link even if the browser is logged in as another user.
    """

    link: str | None = None
    switch: bool = False
    user: str | None = None
    password: str | None = None


class CreateBody(Struct):
    """The session to create. With ``cols`` and ``rows`` its program starts at once.

    ``session`` is a held session of the sandbox ``name``. ``held`` is its id, if the page has shown it before.
    ``lasting``: a sandbox without a name gets one where sessions are held, by which other gateways find it.
    ``beside`` is another session, in whose sandbox this one is to be.
    """

    profile: str | None = None
    name: str | None = None
    session: str | None = None
    held: Annotated[str, Meta(max_length=64)] | None = None
    lasting: bool = False
    beside: str | None = None
    cols: Columns | None = None
    rows: Rows | None = None


class ChangeBody(Struct):
    """What is to be another of a session."""

    label: Annotated[str, Meta(max_length=1000)]


class Rest:
    """The handlers. Each authenticates its request first, except ``login``. They raise ``Refusal`` or ``GateError``."""

    def __init__(self, state: WebState) -> None:
        self._state = state
        self._looks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # --- login ---

    async def login(self, request: web.Request) -> web.Response:
        """POST api/login."""
        state = self._state
        state.check_origin(request)
        body = await read_body(request, LoginBody)
        source = state.source(request)
        if body.link is not None:
            if not body.switch:
                await self._check_same_user(request, body.link)
            found = await state.logins.by_link(body.link, source)
        elif body.user is not None and body.password is not None:
            found = await state.logins.by_password(body.user, body.password, source)
        else:
            raise Refusal(400, "request", 'a login needs "link", or "user" and "password".')
        if isinstance(found, Refused):
            method = "link" if body.link is not None else "password"
            state.events.emit(
                Code.WEB_REFUSED, stranger=Stranger(network_of(source)), reason=f"{method} not accepted", source=source,
                user=body.user,
            )  # fmt: skip
            if found.wait:
                later = {"Retry-After": str(found.wait)}
                raise Refusal(429, "limit", f"too many failed logins; try again in {found.wait} s.", later)
            by_link = "this link was used, is too old, or is wrong; get a new one."
            wrong = by_link if body.link is not None else "wrong name or password."
            raise Refusal(401, "login", wrong, **state.login_fields)
        connection_of(request).authenticated(found.user)
        state.events.emit(Code.WEB_LOGIN, user=found.user, method=found.method, source=source, id=found.id)
        response = answer(self._who(found))
        state.set_cookie(request, response, found)
        return response

    async def _check_same_user(self, request: web.Request, link: str) -> None:
        """Refuse a link of another user than the one logged in (login CSRF).

        A link from somebody else must not silently switch a user into that person's account, where that person could
        watch what they do.
        """
        known, invited = self._state.known(request), await self._state.logins.invited(link)
        if known is not None and invited is not None and known.user != invited:
            raise Refusal(409, "other_user", f"This link logs in {invited}; this browser is logged in as {known.user}.")

    async def logout(self, request: web.Request) -> web.Response:
        """POST api/logout."""
        principal = await self._state.principal(request)
        await read_body(request, Nothing)
        if principal.method == "proxy":
            raise Refusal(409, "conflict", "the proxy in front of this gateway has logged you in; log out there.")
        source = self._state.source(request)
        self._state.events.emit(
            Code.WEB_LOGOUT, user=principal.user, method=principal.method, source=source, id=principal.id
        )
        await self._state.logins.logout(principal)
        self._state.logged_out(lambda other, _: other.id == principal.id, "logged out")
        response = web.Response(status=204)
        self._state.forget_cookie(request, response)
        return response

    async def me(self, request: web.Request) -> web.Response:
        """GET api/me."""
        return answer(self._who(await self._state.principal(request)))

    def _who(self, principal: Principal) -> dict[str, Any]:
        profiles = self._state.gateway.profiles
        allowed = [each for each in profiles.values() if matches(principal.user, each.allow)]
        allowed.sort(key=lambda profile: profile.name != "default")
        return {
            "user": principal.user,
            "method": principal.method,
            "expires": principal.expires,
            "profiles": [
                {
                    "name": each.name,
                    "description": each.description,
                    "detached": each.limits.detached,
                    "idle": each.limits.idle,
                }
                for each in allowed
            ],
            "limits": {"sessions": self._state.web.sessions_per_user},
            "ssh_port": self._state.ssh_port,
        }

    # --- sessions ---

    async def create(self, request: web.Request) -> web.Response:
        """POST api/sessions."""
        state = self._state
        principal = await state.principal(request)
        body = await read_body(request, CreateBody)
        state.check_open()
        if (body.cols is None) != (body.rows is None):
            raise Refusal(400, "request", "give both of cols and rows, or neither.")
        size = TerminalSize.of(body.cols, body.rows) if body.cols is not None and body.rows is not None else None
        if body.session and (not body.name or not is_label(body.session)):
            raise Refusal(400, "request", "a held session is named by the name of its sandbox and its own.")
        if body.session and is_given(body.name) and state.gateway.existing_profile(principal.user, body.name) is None:
            raise Refusal(404, "not_found", "this session has ended, and its sandbox with it.")
        profile, name, beside = body.profile or None, body.name or None, None
        if body.beside:
            if size is None or profile or name or body.session:
                raise Refusal(400, "request", "a session beside another has a size, and nothing else to choose.")
            there = self._own(principal, body.beside)
            if (there.owner.proof, there.owner.method) != (principal.proof, principal.method):
                raise Refusal(409, "conflict", "that session belongs to another login; begin one without it.")
            profile, name = there.identity.login.profile, there.identity.login.name
            beside = state.sessions.login_of(there)
            if beside is None:
                raise Refusal(409, "conflict", "that session has no sandbox now; wait until it runs.")
        session = state.sessions.create(
            principal, state.source(request), profile, name, size, body.session or None,
            (body.held if body.session else None) or "", body.lasting and beside is None, beside,
        )  # fmt: skip
        response = answer({**session.summary(), "ticket": self._ticket(session)}, 201)
        response.headers["Location"] = f"{state.base(request)}/api/sessions/{session.id}"
        return response

    async def list(self, request: web.Request) -> web.Response:
        """GET api/sessions."""
        user = (await self._state.principal(request)).user
        return answer({"sessions": await self._state.sessions.described(user, connection_of(request).budget)})

    async def show(self, request: web.Request) -> web.Response:
        """GET api/sessions/ID."""
        return answer((await self.own(request)).summary())

    async def ticket(self, request: web.Request) -> web.Response:
        """POST api/sessions/ID/ticket."""
        session = await self.own(request)
        await read_body(request, Nothing)
        return answer({"ticket": self._ticket(session), "expires_in": int(self._state.tickets.seconds)}, 201)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE api/sessions/ID."""
        principal = await self._state.principal(request)
        session = self._state.sessions.get(principal.user, request.match_info["id"])
        if session is not None and not await self._state.sessions.removed(session):
            assert session.place is not None
            assert session.identity.login.name is not None
            with contextlib.suppress(NoSuchSandbox):
                await self._end_held(session.user, session.identity.login.name, session.place.name)
        return web.Response(status=204)

    async def change(self, request: web.Request) -> web.Response:
        """PATCH api/sessions/ID."""
        session = await self.own(request)
        label = clean((await read_body(request, ChangeBody)).label, LONGEST_LABEL).strip()
        if label != session.label:
            session.rename(label)
        return answer(session.summary())

    async def sandboxes(self, request: web.Request) -> web.Response:
        """GET api/sandboxes."""
        user = (await self._state.principal(request)).user
        # Each look requests the usage of all of them.
        async with self._looks.setdefault(user, asyncio.Lock()):
            listed = await self._state.gateway.provider.named.list(user)
        # Those that the gateway has named are found by their sessions.
        named = [one for one in listed if one.name is not None and not is_given(one.name)]
        fields = ("name", "profile", "state", "age", "left", "cpu", "memory", "home")
        return answer({"sandboxes": [{field: getattr(one, field) for field in fields} for one in named]})

    async def end_sandbox(self, request: web.Request) -> web.Response:
        """DELETE api/sandboxes/NAME."""
        user, named = (await self._state.principal(request)).user, self._state.gateway.provider.named
        await end_named(named, user, _sandbox(request, "name"), self._state.events.context(user=user))
        return web.Response(status=204)

    async def held(self, request: web.Request) -> web.Response:
        """GET api/held-sessions."""
        user = (await self._state.principal(request)).user
        # Each look is an exec in each sandbox.
        async with self._looks.setdefault(user, asyncio.Lock()):
            found = await self._state.gateway.held.of(user, held_only=True)
        sessions = [{"sandbox": one.sandbox, **asdict(each)} for one in found for each in one.sessions]
        return answer({"sessions": sessions, "errors": {one.sandbox: one.error for one in found if one.error}})

    async def end_held(self, request: web.Request) -> web.Response:
        """DELETE api/held-sessions/SANDBOX/NAME."""
        user, name = (await self._state.principal(request)).user, request.match_info["name"]
        await self._end_held(user, _sandbox(request, "sandbox"), name)
        return web.Response(status=204)

    async def _end_held(self, user: str, sandbox: str, name: str) -> None:
        if await self._state.gateway.held.end(user, sandbox, name):
            self._state.events.emit(Code.HELD_END, user=user, name=name, by="user")

    async def own(self, request: web.Request) -> WebSession:
        """Authenticate the request and return the session in its path. Raises ``Refusal``."""
        return self.own_of(await self._state.principal(request), request)

    def own_of(self, principal: Principal, request: web.Request) -> WebSession:
        """Return the session in the request's path; raises ``Refusal`` (404) unless it belongs to this principal."""
        return self._own(principal, request.match_info["id"])

    def _own(self, principal: Principal, session_id: str) -> WebSession:
        session = self._state.sessions.get(principal.user, session_id)
        if session is None:
            raise Refusal(404, "not_found", "there is no such session.")
        return session

    def _ticket(self, session: WebSession) -> str:
        return self._state.tickets.issue(Ticket(session.user, session.id))


def _sandbox(request: web.Request, part: str) -> str:
    """Return a sandbox's name from the request's path. Raises ``Refusal`` (404): none can be called that."""
    if not is_label(name := request.match_info[part]):
        raise Refusal(404, "not_found", "there is no such sandbox.")
    return name


async def read_body(request: web.Request, kind: type[B]) -> B:
    """Return the JSON of a request's body. Raises ``Refusal``."""
    if request.content_type != "application/json":
        raise Refusal(415, "type", "send JSON, with Content-Type: application/json.")
    try:
        # A client that has not logged in must not hold its place by sending the body slowly.
        async with asyncio.timeout(BODY_SECONDS):
            content = await request.read()
    except TimeoutError:
        raise Refusal(408, "request", "the body did not come in time.", {"Connection": "close"}) from None
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        words = str(error)[:200] if isinstance(error, msgspec.DecodeError) else "it is no text"
        raise Refusal(400, "request", f"the body cannot be used: {words}.") from error


async def health(request: web.Request) -> web.Response:
    """GET healthz."""
    return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})
