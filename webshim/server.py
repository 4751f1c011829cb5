"""The web server: accepts connections, rechecks logins and the TLS certificate while it runs, and drains."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast
from urllib.parse import quote

import structlog
from aiohttp import web

from sshgate.access.authorized_keys import Keyring
from sshgate.access.connections import Connections, ConnectionSlot, network_of
from sshgate.access.identity import Identity
from sshgate.access.ledger import Ledger
from sshgate.access.listening import Abort, Listener
from sshgate.access.proxy_header import Peer
from sshgate.access.siblings import Siblings
from sshgate.access.tls import load_certificate
from sshgate.config.load import node_address
from sshgate.config.model import Address, Config, Tls, Web
from sshgate.errors import CannotListen, ConfigError
from sshgate.session.interfaces import SessionGateway
from sshgate.session.subsystems.registry import LISTS, SubsystemHandlers
from sshgate.stream.tasks import TaskSet
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Stranger
from webshim.connection import Connection
from webshim.credentials import load as load_signer
from webshim.files import Files
from webshim.handover import Handover
from webshim.login import Logins, TokenSubsystems
from webshim.pages import VERSIONS, WATCH, Pages
from webshim.protocol import Close
from webshim.public_endpoint import PublicEndpoint
from webshim.responses import SCHEME, add_headers, errors_as_json
from webshim.rest import Rest, health
from webshim.sessionevents import SessionEvents
from webshim.shares import Shares
from webshim.state import WebState
from webshim.watching import Watchers

# Idle connections must not hold places; a browser just opens a new one.
KEEPALIVE_SECONDS = 15.0
RECHECK_SECONDS = 2.0
GOODBYE_SECONDS = 2.0
LONGEST_SECRET = 4096
# The limit for JSON bodies. Files are streamed and have their own limit.
BODY_BYTES = 64 * 1024
OPENAPI = Path(__file__).with_name("openapi.json")

log = structlog.get_logger("sshgate.web")


def build(state: WebState, pages: Pages) -> web.Application:
    """Return the aiohttp application with all routes. Reads ``openapi.json`` from disk.

    Routes exist with and without the base path, so that a proxy may strip it or not.
    """
    app = web.Application(middlewares=[errors_as_json], client_max_size=BODY_BYTES)
    app[SCHEME] = state.scheme
    app.on_response_prepare.append(add_headers)
    rest = Rest(state)
    files = Files(state, rest)
    events = SessionEvents(state)
    described = OPENAPI.read_bytes()

    async def index(request: web.Request) -> web.Response:
        return pages.index(state.base(request))

    async def watch(request: web.Request) -> web.Response:
        return pages.index(state.base(request), WATCH)

    def part(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answered(request: web.Request) -> web.Response:
            return pages.part(name, request)

        return answered

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json", headers={"Cache-Control": "no-cache"})

    for base in {"", state.place.base}:
        if base:
            app.router.add_get(base, index)
        app.router.add_get(f"{base}/", index)
        for name in pages.names:
            app.router.add_get(f"{base}/{quote(name)}", part(name))
            app.router.add_get(f"{base}/{VERSIONS}/{{version}}/{quote(name)}", part(name))
        app.router.add_get(f"{base}/watch", watch)
        app.router.add_get(f"{base}/watch/socket", state.watch, allow_head=False)
        app.router.add_get(f"{base}/healthz", health)
        app.router.add_get(f"{base}/terminal", state.terminal, allow_head=False)
        api = f"{base}/api"
        app.router.add_get(f"{api}/openapi.json", openapi)
        app.router.add_get(f"{api}/me", rest.me)
        app.router.add_post(f"{api}/login", rest.login)
        app.router.add_post(f"{api}/logout", rest.logout)
        app.router.add_get(f"{api}/events", events.get, allow_head=False)
        app.router.add_get(f"{api}/sessions", rest.list)
        app.router.add_post(f"{api}/sessions", rest.create)
        app.router.add_get(api + "/sessions/{id}", rest.show)
        app.router.add_patch(api + "/sessions/{id}", rest.change)
        app.router.add_delete(api + "/sessions/{id}", rest.delete)
        app.router.add_post(api + "/sessions/{id}/ticket", rest.ticket)
        app.router.add_get(f"{api}/sandboxes", rest.sandboxes)
        app.router.add_delete(api + "/sandboxes/{name}", rest.end_sandbox)
        app.router.add_get(f"{api}/held-sessions", rest.held)
        app.router.add_delete(api + "/held-sessions/{sandbox}/{name}", rest.end_held)
        app.router.add_get(api + "/sessions/{id}/files", files.get, allow_head=False)
        app.router.add_put(api + "/sessions/{id}/files", files.put)
        app.router.add_delete(api + "/sessions/{id}/files", files.delete)
        app.router.add_patch(api + "/sessions/{id}/files", files.rename)
        app.router.add_post(api + "/sessions/{id}/files", files.make)
    return app


class WebServer:
    """The web front end. Call ``listen``, ``stop_accepting``, ``drain`` and ``close`` once each, in this order.

    ``config.web`` must be set. The other arguments are shared with the SSH front end.
    """

    def __init__(
        self,
        config: Config,
        keyring: Keyring,
        admission: Connections,
        gateway: SessionGateway,
        subsystems: SubsystemHandlers,
        events: Events,
        ledger: Ledger,
        siblings: Siblings | None = None,
    ) -> None:
        assert config.web is not None
        self._web: Web = config.web
        self._siblings = siblings
        self._handover: Handover | None = None
        self._drain = config.ssh.drain
        self._ssh_port = config.ssh.public_port or config.ssh.listen.port
        self._keyring = keyring
        self._admission = admission
        self._gateway = gateway
        self._subsystems = subsystems
        self._events = events
        self._ledger = ledger
        self._state: WebState | None = None
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None
        self._tasks = TaskSet()
        self._tls: ssl.SSLContext | None = None
        self._tls_stamp: tuple[int, ...] = ()

    @property
    def url(self) -> str:
        """The URL that users open; empty before ``listen``."""
        return self._state.place.url if self._state is not None else ""

    @property
    def sessions(self) -> int:
        """The number of running sessions."""
        return self._state.sessions.running if self._state is not None else 0

    def login_link(self, identity: Identity, seconds: float) -> str:
        """Return a link that logs a browser in as this identity, valid for ``seconds``. Only after ``listen``.

        Raises ``GateError`` if the restrictions of the key do not allow it.
        """
        assert self._state is not None
        return self._state.logins.login_link(identity, seconds)

    async def listen(self) -> list[Address]:
        """Load files, bind, and start to accept connections. Also registers the web subsystems. Returns the addresses.

        Raises:
            ConfigError: a file cannot be used.
            CannotListen: the address cannot be bound.
            GateError: the ledger cannot be read.
        """
        signer = await asyncio.to_thread(load_signer, self._web.secret)
        secret = _proxy_secret(self._web)
        try:
            pages = await asyncio.to_thread(Pages)
        except ValueError as error:
            raise ConfigError([f"the page of this installation cannot be served: {error}."]) from error
        await self._ledger.refresh()
        self._reload_tls()
        wanted = self._web.listen
        self._listener = Listener(
            self._connection, self._events, self._web.proxy_protocol, self._tls, _unmade, self._siblings is not None
        )
        try:
            bound = await self._listener.open(wanted)
        except OSError as error:
            raise CannotListen("web.listen", wanted, error) from error
        place = PublicEndpoint(self._web, bound[0], secret, node_address())
        logins = Logins(self._web, self._keyring, signer, place, self._ledger, self._siblings)
        shares = Shares(self._web, logins, signer, self._ledger, place, self._gateway.held)
        workers = self._siblings.count if self._siblings is not None else 1
        watchers = Watchers(shares, self._gateway.held, self._events, workers)
        self._state = WebState(
            self._web, self._gateway, logins, place, self._events, watchers, self._ssh_port, self._siblings
        )
        self._runner = web.AppRunner(build(self._state, pages), access_log=None, shutdown_timeout=GOODBYE_SECONDS)
        await self._runner.setup()
        self._subsystems.add("web", logins.web, "a link that logs a browser in, once, within a minute")
        self._subsystems.add("token", logins.token, "a bearer token for programs that use the REST API")
        tokens = TokenSubsystems(self._ledger)
        self._subsystems.add("tokens", tokens.list, "your tokens: id, age, time left, source and key", LISTS)
        self._subsystems.add("revoke-token", tokens.revoke, "end a token and what was opened with it", "ID")
        shares.add_to(self._subsystems)
        if self._siblings is not None:
            self._handover = Handover(self._state, self._siblings, self._connection)
        self._listener.start()
        for work in (self._recheck(), self._ledger.run()):
            self._tasks.start(work)
        if place.nameless_proxy:
            log.warning("web.listen is plain HTTP: clients that bypass the proxy are served in the clear")
        elif not place.url.startswith(("https:", "http://127.0.0.1", "http://localhost", "http://[::1]")):
            log.warning("web.public_url is plain HTTP: passwords and terminals cross the network in the clear")
        return bound

    async def reconfigure(self, config: Config) -> None:
        """Apply a changed ``ssh.drain``, which is announced to pages. Changes of ``web`` require a restart."""
        self._drain = config.ssh.drain

    def _connection(self, peer: Peer, cut: Abort) -> Connection:
        assert self._runner is not None
        assert self._runner.server is not None
        return Connection(
            self._runner.server, self, peer, cut, self._handover.move if self._handover is not None else None,
            loop=asyncio.get_running_loop(), access_log=None, keepalive_timeout=KEEPALIVE_SECONDS,
        )  # fmt: skip

    def admit(self, peer: str, connection: Connection) -> ConnectionSlot | None:
        """See ``connection.ConnectionAdmission``. Those of a trusted proxy are not counted: they share one address."""
        assert self._state is not None
        return None if self._state.place.trusted(peer) else self._admission.connect(peer, connection)

    def malformed(self, peer: str, reason: str) -> None:
        self._events.emit(Code.WEB_MALFORMED, stranger=Stranger(network_of(peer), 1), reason=reason, source=peer)

    # --- while it runs ---

    async def _recheck(self) -> None:
        assert self._state is not None
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                await self._state.recheck()
                self._reload_tls()
            except ConfigError as error:
                log.warning("web.tls", reason=str(error))
            except Exception:
                log.exception("web.recheck.broken")

    def _reload_tls(self) -> None:
        """Load the certificate if its files have changed. It applies to new connections.

        Raises ``ConfigError`` if it cannot be used; the previous certificate stays in force.
        """
        files = self._web.tls
        if files is None:
            return
        try:
            stamp = _stamp(files)
            if stamp == self._tls_stamp:
                return
            # Try it on a new context first: a half-written change must not break the context in use.
            _context(files)
            self._tls_stamp = stamp
            if self._tls is None:
                self._tls = _context(files)
            else:
                load_certificate(self._tls, files.cert, files.key)
                log.info("web.tls.reloaded")
        except (OSError, ssl.SSLError) as error:
            self._tls_stamp = stamp if "stamp" in locals() else ()
            reason = getattr(error, "reason", None) or error.strerror or "unusable"
            raise ConfigError([f"{files.cert}, {files.key}: cannot be used for TLS: {reason}."]) from error

    # --- shutdown ---

    def stop_accepting(self) -> None:
        """Stop accepting connections, sessions and sockets, and notify the pages. Idempotent."""
        if self._listener is not None:
            self._listener.close()
        if self._state is not None and not self._state.draining:
            self._state.drain(self._drain)

    async def drain(self, seconds: float) -> None:
        """Wait until all sessions have ended, at most this long. Ends none of them."""
        over = asyncio.get_running_loop().time() + seconds
        if self._state is not None:
            await self._state.sessions.drain(seconds)
        if self._handover is not None:
            await self._handover.drain(over - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Close the sockets, cancel running sessions and close all connections. Pages reconnect to the next gateway.

        Waits for the cleanup of sessions, at most ``sessions.CUT_SECONDS``, and for requests in progress.
        """
        self.stop_accepting()
        await self._tasks.cancel()
        if self._state is not None:
            self._state.close_sockets(lambda socket: True, Close.RESTART, "the gateway restarts")
            await self._state.sessions.close()
        if self._handover is not None:
            await self._handover.close()
        if self._runner is not None:
            await self._runner.cleanup()


def _unmade(protocol: asyncio.Protocol) -> None:
    cast(Connection, protocol).unmade()


def _context(files: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, files.cert, files.key)
    # WebSockets need HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _stamp(files: Tls) -> tuple[int, ...]:
    found = [path.stat() for path in (files.cert, files.key)]
    return tuple(number for each in found for number in (each.st_mtime_ns, each.st_size, each.st_ino))


def _proxy_secret(settings: Web) -> str | None:
    path: Path | None = settings.proxy.secret_file if settings.proxy is not None else None
    if path is None:
        return None
    try:
        secret = path.read_bytes()[:LONGEST_SECRET].decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: the proxy's secret cannot be read."]) from error
    if len(secret) < 16:
        raise ConfigError([f"{path}: the proxy's secret needs at least 16 characters."])
    return secret
