"""What all responses have in common: security headers, and errors as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiohttp import web

from sshgate.errors import BadRequest, Denied, GateError, LimitReached, NoSuchSandbox, Unavailable

# xterm.js needs inline styles. Scripts, fonts and connections are allowed from our own origin only.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_STATUSES: Mapping[type[GateError], tuple[int, str]] = {
    Denied: (403, "denied"),
    BadRequest: (400, "request"),
    NoSuchSandbox: (404, "not_found"),
    LimitReached: (429, "limit"),
    Unavailable: (503, "unavailable"),
}
"""Status and code of an error of the gateway; any other's are 502 and ``sandbox``."""

SCHEME: web.AppKey[Callable[[web.Request], str]] = web.AppKey("scheme")
"""Returns the scheme that the browser of a request uses: ``http`` or ``https``."""

log = structlog.get_logger("sshgate.web")


class Refusal(Exception):
    """Raised by a handler to answer its request with an error."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """
        Args:
            status: the HTTP status.
            code: a stable name of the error, for programs.
            message: one sentence for the user.
            headers: added to the response.
            more: added to the JSON body.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers
        self.more = more


def answer(content: Mapping[str, Any], status: int = 200) -> web.Response:
    """Return a JSON response that must not be cached."""
    return web.json_response(content, status=status, headers={"Cache-Control": "no-store"})


def refused(refusal: Refusal) -> web.Response:
    """Return the JSON response for a refusal."""
    response = answer({"error": {"code": refusal.code, "message": str(refusal)}, **refusal.more}, refusal.status)
    response.headers.update(refusal.headers or {})
    if response.headers.get("Connection") == "close":
        # By the header alone only the client would close.
        response.force_close()
    return response


@web.middleware
async def errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    """Middleware that turns exceptions of handlers into JSON errors, without details of an internal error."""
    try:
        response: web.StreamResponse = await handler(request)
    except Refusal as refusal:
        return refused(refusal)
    except GateError as error:
        return refused(_of_gate(error))
    except web.HTTPException as error:
        return refused(_of_http(error))
    except web.RequestPayloadError:
        return refused(Refusal(400, "request", "the body of this request is broken.", {"Connection": "close"}))
    except Exception:
        log.exception("web.request.broken", method=request.method, route=_route(request))
        return refused(Refusal(500, "internal", "an error inside the gateway; try again, or ask your operator."))
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the common headers to a response, also to a WebSocket's upgrade; a handler of ``on_response_prepare``."""
    # Replace aiohttp's name and version.
    response.headers["Server"] = "sshgate"
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.app[SCHEME](request) == "https":
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")


def _of_gate(error: GateError) -> Refusal:
    status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), (502, "sandbox"))
    return Refusal(*status, str(error))


def _of_http(error: web.HTTPException) -> Refusal:
    if error.status == 404:
        return Refusal(404, "not_found", "there is nothing here.")
    if error.status == 405:
        return Refusal(405, "method", "this cannot be done here.", {"Allow": error.headers.get("Allow", "")})
    if error.status == 413:
        return Refusal(413, "too_large", "that is too much.")
    return Refusal(error.status if error.status >= 400 else 500, "request", "this request cannot be understood.")


def _route(request: web.Request) -> str:
    # Log the route, not the path, which may contain a session's id.
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""
