"""The routes of the web server, served with and without the base path, so that a proxy may strip it or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from webshim.files import Files
from webshim.pages import VERSIONS, Pages
from webshim.responses import SCHEME, add_headers, errors_as_json
from webshim.rest import Rest, health
from webshim.state import WebState

# The limit for JSON bodies. Files are streamed and have their own limit.
BODY_BYTES = 64 * 1024
OPENAPI = Path(__file__).with_name("openapi.json")


def build(door: WebState, pages: Pages) -> web.Application:
    """Return the aiohttp application with all routes. Reads ``openapi.json`` from disk."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=BODY_BYTES)
    app[SCHEME] = door.scheme
    app.on_response_prepare.append(add_headers)
    rest = Rest(door)
    files = Files(door, rest)
    described = OPENAPI.read_bytes()

    async def index(request: web.Request) -> web.Response:
        return pages.index(door.base(request))

    def part(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answered(request: web.Request) -> web.Response:
            return pages.part(name, request)

        return answered

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json", headers={"Cache-Control": "no-cache"})

    for base in {"", door.place.base}:
        if base:
            app.router.add_get(base, index)
        app.router.add_get(f"{base}/", index)
        for name in pages.names:
            app.router.add_get(f"{base}/{quote(name)}", part(name))
            app.router.add_get(f"{base}/{VERSIONS}/{{version}}/{quote(name)}", part(name))
        app.router.add_get(f"{base}/healthz", health)
        app.router.add_get(f"{base}/terminal", door.terminal, allow_head=False)
        api = f"{base}/api"
        app.router.add_get(f"{api}/openapi.json", openapi)
        app.router.add_get(f"{api}/me", rest.me)
        app.router.add_post(f"{api}/login", rest.login)
        app.router.add_post(f"{api}/logout", rest.logout)
        app.router.add_get(f"{api}/sessions", rest.list)
        app.router.add_post(f"{api}/sessions", rest.create)
        app.router.add_get(api + "/sessions/{id}", rest.show)
        app.router.add_delete(api + "/sessions/{id}", rest.delete)
        app.router.add_post(api + "/sessions/{id}/ticket", rest.ticket)
        app.router.add_get(api + "/sessions/{id}/files", files.get, allow_head=False)
        app.router.add_put(api + "/sessions/{id}/files", files.put)
    return app
