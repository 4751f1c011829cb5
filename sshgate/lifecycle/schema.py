"""What is written on a sandbox's pod: the keys, their values, and who can read them back. Pure.

Pods are the only database, so these names are its schema: the Kubernetes provider writes them on the pods it
makes, ``sshgate.lifecycle`` reads them and changes them by patch. Neither imports the other; both import this.
Labels are what pods are selected by; everything else is an annotation.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

DOMAIN = "sshgate.dev/"

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED = "sshgate"
SELECTOR = f"{MANAGED_BY}={MANAGED}"
"""Selects every sandbox of every gateway in a namespace."""

# --- labels ---

STATE = DOMAIN + "state"
PROFILE = DOMAIN + "profile"
TEMPLATE = DOMAIN + "template"
"""Hash of the pod spec as it was sent: pods of one template are interchangeable."""
USER = DOMAIN + "user"
"""As a label the hash of the user's name (``user_hash``), as an annotation the name itself."""
NAME = DOMAIN + "name"
"""The name of a named sandbox; ephemeral ones lack it."""
SESSION = DOMAIN + "session"
"""The id of the claim. One claim, one pod: it tells whose an unknown patch has made the pod."""
GATEWAY = DOMAIN + "gateway"
"""The name of the gateway that made or claimed it; for people. Decisions go by LIFE."""

WARM, CLAIMED, DRAINING = "warm", "claimed", "draining"

KUBELET_GRACE = 30
"""Seconds by which the kubelet's deadline is later than the gateway's, so that users are told and not just cut off."""

# --- annotations ---

LIFE = DOMAIN + "life"
"""The id of one run of a gateway: of the one that made the pod, then of the one that claimed it. A gateway
that starts again has a new one, so that its earlier life is as dead as any other dead gateway."""
CLAIMED_AT = DOMAIN + "claimed-at"
EXPIRES_AT = DOMAIN + "expires-at"
"""When the maximum lifetime is over; for telling it. The kubelet enforces ``activeDeadlineSeconds``."""
LAST_SEEN = DOMAIN + "last-seen"
"""When a program was last found running in a named sandbox that nobody was attached to."""
DETACHED_AT = DOMAIN + "detached-at"
"""When a client was last detached from a named sandbox."""
KEPT_FOR = DOMAIN + "kept-for"
"""Seconds for which a named sandbox waits for its user, for a leader that does not know its profile."""
ENDED_BY = DOMAIN + "ended-by"
"""Which operator ended it, written just before its deletion; the leader tells it as an event."""
DOOR = DOMAIN + "door"
"""On a gateway's Lease: where others may ask whether it lives."""
ATTACHED = "attached.sshgate.dev/"
"""Followed by a life: set while that gateway has clients in the named sandbox."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")


def user_hash(user: str) -> str:
    """The label by which a user's pods are found; a name itself may be no label, or too long."""
    return hashlib.sha256(user.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def label_value(text: str) -> str:
    """``text`` where it is a label value already, else a hash of it: never broken, never ambiguous."""
    if _LABEL.match(text):
        return text
    return "x-" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def printable(text: str) -> str:
    """An annotation's value: any text, made valid UTF-8 and kept to a line."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)[:253]


def named_pod(user: str, name: str) -> str:
    """The one name that the pod of this user's sandbox ``name`` can have.

    The API server lets a name exist once, so making it is the compare-and-swap between gateways: of two that
    create it, one is told that it exists already and joins. ``name`` has 40 characters at most.
    """
    return f"sshgate-{name}-{user_hash(user)[:12]}"


def timestamp(wall: float) -> str:
    """POSIX seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str | None) -> float | None:
    """POSIX seconds; ``None`` for what is missing, empty or no RFC 3339 time (people edit annotations)."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.timestamp() if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
