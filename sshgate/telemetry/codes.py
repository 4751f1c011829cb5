"""The codes of the events: stable names that audit tools and alerts may rely on. README.md explains each.

A code never changes its meaning. A new kind of event needs a new code, an entry in ``LEVELS`` unless its level is
``info``, and a row in the README (a test compares the two).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum


class Code(StrEnum):
    """The kind of an event."""

    # The gateway itself.
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"
    CONFIG_REREAD = "config.reread"
    CONFIG_REFUSED = "config.refused"
    EVENTS_OMITTED = "events.omitted"

    # One connection, from TCP to its end.
    CONNECTION_REFUSED = "connection.refused"
    CONNECTION_LIMIT = "connection.limit"
    CONNECTION_UNAUTHENTICATED = "connection.unauthenticated"
    LOGIN = "connection.login"
    CONNECTION_END = "connection.end"

    # One session: a program that a channel or a browser requested.
    SESSION_START = "session.start"
    SESSION_END = "session.end"
    SESSION_FAILED = "session.failed"
    SESSION_CUT = "session.cut"
    SESSION_BROKEN = "session.broken"
    HELD_END = "session.held_end"
    VERB = "verb"
    FILE_TRANSFER = "file.transfer"
    FILE_CHANGED = "file.changed"
    HOME_DELETED = "home.deleted"

    # One sandbox.
    CLAIM = "sandbox.claim"
    CLAIM_LOST = "sandbox.claim_lost"
    SANDBOX_END = "sandbox.end"
    REAPED = "sandbox.reaped"

    # One forwarded connection or listener.
    FORWARD_OPEN = "forward.open"
    FORWARD_REFUSED = "forward.refused"
    FORWARD_END = "forward.end"

    # One request to a model, through the broker.
    MODEL_REQUEST = "model.request"
    MODEL_REFUSED = "model.refused"

    # One connection that a sandbox asked of the broker.
    EGRESS_ALLOWED = "egress.allowed"
    EGRESS_REFUSED = "egress.refused"
    GIT_REQUEST = "git.request"
    GIT_REFUSED = "git.refused"

    # The web front end.
    WEB_LOGIN = "web.login"
    WEB_LOGOUT = "web.logout"
    WEB_LINK_ISSUED = "web.link_issued"
    WEB_TOKEN_ISSUED = "web.token_issued"
    WEB_TOKEN_USED = "web.token_used"
    WEB_TOKEN_REVOKED = "web.token_revoked"
    SHARE_CREATED = "share.created"
    SHARE_OPENED = "share.opened"
    SHARE_CLOSED = "share.closed"
    SHARE_REVOKED = "share.revoked"
    WEB_REFUSED = "web.refused"
    WEB_MALFORMED = "web.malformed"
    WEB_OPEN = "web.open"
    WEB_END = "web.end"


LEVELS: Mapping[Code, int] = {
    Code.CONFIG_REFUSED: logging.ERROR,
    Code.EVENTS_OMITTED: logging.WARNING,
    Code.CONNECTION_REFUSED: logging.WARNING,
    Code.CONNECTION_LIMIT: logging.WARNING,
    Code.SESSION_FAILED: logging.WARNING,
    Code.SESSION_BROKEN: logging.ERROR,
    Code.CLAIM_LOST: logging.DEBUG,
    Code.REAPED: logging.WARNING,
    Code.FORWARD_REFUSED: logging.WARNING,
    Code.MODEL_REFUSED: logging.WARNING,
    Code.EGRESS_REFUSED: logging.WARNING,
    Code.GIT_REFUSED: logging.WARNING,
    Code.WEB_REFUSED: logging.WARNING,
    Code.WEB_MALFORMED: logging.WARNING,
}
"""Log levels of events; any other code has ``info``. The audit file has all events but those omitted."""
