"""What the API server's refusals mean: the one place where they become sentences.

Only the fields of a ``Status`` are ever read; a body that is none is dropped, it may hold secrets.
"""

from __future__ import annotations

import re

import msgspec

from sshgate.errors import GateError, LimitReached, StartFailed, Unavailable
from sshgate.providers.kubernetes.api.objects import Status

_decoder = msgspec.json.Decoder(Status)
# Admission plug-ins list every violation; the first ones are enough for a sentence.
LONGEST_QUOTE = 300


class NotFound(StartFailed):
    """404: the object, or the namespace it was to be made in, does not exist."""

    code = "not_found"


class Conflict(StartFailed):
    """409: it exists already, or a precondition does not hold."""

    code = "conflict"
    retry = True


class Invalid(StartFailed):
    """422: the object cannot be; of a patch with ``test``: the test failed."""

    code = "invalid"


class Forbidden(StartFailed):
    """403: the gateway's role lacks a right, or an admission rule says no."""

    code = "forbidden"


class Expired(Unavailable):
    """410: the resource version is too old; list again."""

    code = "expired"


class Unauthenticated(Unavailable):
    """401: the credentials are not, or no longer, accepted."""

    code = "unauthenticated"


def status_of(body: bytes) -> Status | None:
    """The ``Status`` in an answer's body, if it is one."""
    try:
        status = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return status if status.kind == "Status" else None


def failure(code: int, status: Status | None, doing: str) -> GateError:
    """The error for an answer with this HTTP code. ``doing`` ends the sentence "the cluster refused to ..."."""
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
    """No answer in time."""
    return Unavailable(f"the API server did not answer within {seconds:g} s; try again in a moment.")


def unreachable() -> Unavailable:
    """No connection."""
    return Unavailable("the API server cannot be reached; try again in a moment.")


def quoted(message: str) -> str:
    """A foreign message as the end of a sentence: one line, printable, not too long."""
    text = " ".join("".join(char if char.isprintable() else " " for char in message).split())
    if len(text) > LONGEST_QUOTE:
        text = text[: LONGEST_QUOTE - 3] + "..."
    return text if text.endswith((".", "...")) else text + "."


_QUOTA = re.compile(r"exceeded quota: (?P<name>[^,]+), (?P<numbers>requested: .*)", re.DOTALL)
_RIGHT = re.compile(r'cannot (?P<verb>[a-z*]+) resource "(?P<resource>[^"]+)"')


def _forbidden(message: str, doing: str) -> GateError:
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
    message = f": {quoted(message)}" if message else "."
    return Forbidden(f"the cluster refused to {doing}{message}")
