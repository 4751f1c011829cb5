"""Turns error responses of the API server into ``GateError`` with a sentence for the user.

Only the fields of a ``Status`` are read. Any other body is dropped because it may hold secrets.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import msgspec

from sshgate.errors import GateError, LimitReached, Unavailable
from sshgate.providers.kubernetes.api.objects import Status

P = ParamSpec("P")
T = TypeVar("T")
Call = Callable[P, Coroutine[Any, Any, T]]

_decoder = msgspec.json.Decoder(Status)
# Admission plug-ins list every violation; quote only the first ones.
LONGEST_QUOTE = 300
LONGEST_SEARCHED = 2000


class ApiError(GateError):
    """The API server has refused a request. The provider raises it as what its callers know (``raised_as``)."""

    code = "api"
    level = logging.WARNING


class NotFound(ApiError):
    """404: the object, or the namespace to create it in, does not exist."""

    code = "not_found"


class Conflict(ApiError):
    """409: the object exists already, or a precondition does not hold."""

    code = "conflict"


class Invalid(ApiError):
    """400, 413, 415 or 422: the object is invalid, or a ``test`` operation of a patch failed."""

    code = "invalid"


class Forbidden(ApiError):
    """403: the gateway's role lacks a right, or an admission rule denied the request."""

    code = "forbidden"


class Expired(Unavailable):
    """410: the resource version is too old; the caller must list again."""

    code = "expired"


class Unauthenticated(Unavailable):
    """401: the API server does not, or no longer, accept the credentials."""

    code = "unauthenticated"


def raised_as(error: type[GateError]) -> Callable[[Call[P, T]], Call[P, T]]:
    """Decorate a coroutine function of the provider's contract: raise an ``ApiError`` in it as ``error``."""

    def decorate(call: Call[P, T]) -> Call[P, T]:
        @wraps(call)
        async def calling(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await call(*args, **kwargs)
            except ApiError as refused:
                raise error(str(refused)) from refused

        return calling

    return decorate


def status_of(body: bytes) -> Status | None:
    """Decode a response body as ``Status``; ``None`` if it is something else."""
    try:
        status = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return status if status.kind == "Status" else None


def failure(code: int, status: Status | None, doing: str) -> GateError:
    """The error for a response with this HTTP code.

    Args:
        code: The HTTP status.
        status: The decoded body, if it was a ``Status``.
        doing: Completes the sentence "the cluster refused to ...".
    """
    message = status.message if status else ""
    message = f": {quoted(message)}" if message else "."
    if code == 401:
        return Unauthenticated("the API server does not accept the gateway's credentials; ask the operator.")
    if code == 403:
        return _forbidden(message, doing)
    if code == 404:
        return NotFound(f"the cluster could not {doing}{message}")
    if code == 409:
        return Conflict(f"the cluster could not {doing}{message}")
    if code == 410:
        return Expired("the API server has forgotten the version asked for.")
    if code == 429:
        return Unavailable("the API server has too much to do; try again in a moment.")
    if code in (400, 413, 415, 422):
        return Invalid(f"the cluster refused to {doing}{message}")
    return Unavailable(f"the API server failed (HTTP {code}); try again in a moment.")


def silent(seconds: float) -> Unavailable:
    """The error for a response that did not arrive within ``seconds``."""
    return Unavailable(f"the API server did not answer within {seconds:g} s; try again in a moment.")


def unreachable() -> Unavailable:
    """The error for a connection that failed."""
    return Unavailable("the API server cannot be reached; try again in a moment.")


def quoted(message: str) -> str:
    """A message from outside, made fit to end a sentence: one line, printable, at most ``LONGEST_QUOTE`` characters.

    URLs lose their query, which may hold a signature.
    """
    text = " ".join("".join(char if char.isprintable() else " " for char in message[:100_000]).split())
    # The search for URLs takes time by the square of the length.
    text = re.sub(r"(https?://[^\s\"'?]+)\?[^\s\"']*", r"\1", text[:LONGEST_SEARCHED])
    if len(text) > LONGEST_QUOTE:
        text = text[: LONGEST_QUOTE - 3] + "..."
    return text if text.endswith((".", "...")) else text + "."


_QUOTA = re.compile(r"exceeded quota: (?P<name>[^,]+), (?P<numbers>requested: .*)", re.DOTALL)
_RIGHT = re.compile(r'cannot (?P<verb>[a-z*]+) resource "(?P<resource>[^"]+)"')


def _forbidden(message: str, doing: str) -> GateError:
    """``message`` is what the API server wrote, ready to end a sentence."""
    quota = _QUOTA.search(message)
    if quota:
        return LimitReached(
            f"the cluster's quota {quota['name']!r} is full ({quoted(quota['numbers']).rstrip('.')}): "
            "end a sandbox, or ask the operator for more."
        )
    right = _RIGHT.search(message)
    if right:
        return Forbidden(
            f"the gateway may not {doing}: its role lacks {right['verb']!r} on {right['resource']!r}; ask the operator."
        )
    return Forbidden(f"the cluster refused to {doing}{message}")
