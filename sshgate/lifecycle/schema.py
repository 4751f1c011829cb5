"""The schema of what is written on a sandbox's pod: keys, values, and how to parse them. Pure.

Pods are the only database. The Kubernetes provider writes these keys on the pods that it makes; ``sshgate.lifecycle``
reads them and changes them by patch. What pods are selected by is a label; everything else is an annotation.
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
"""Hash of the pod spec as it was sent. Pods of one template are interchangeable."""
USER = DOMAIN + "user"
"""As a label the hash of the user's name (``user_hash``); as an annotation the name itself."""
NAME = DOMAIN + "name"
"""The name of a named sandbox; ephemeral ones have none."""
SESSION = DOMAIN + "session"
"""The id of the claim, which has one pod: after a patch without an answer it shows whose the pod is."""
NETWORK = DOMAIN + "network"
"""``none`` on pods without a network, by which the network policies know them; others have no such label."""
GATEWAY = DOMAIN + "gateway"
"""The name of the gateway that made or claimed it, for people. Decisions use ``INSTANCE``."""

WARM, CLAIMED, DRAINING = "warm", "claimed", "draining"

KUBELET_GRACE = 30
"""Seconds by which the kubelet's deadline is later than the gateway's, so that users first get an explanation."""

# --- annotations ---

INSTANCE = DOMAIN + "life"
"""The id of a gateway instance: the one that made the pod, then the one that claimed it. A gateway that starts again
has a new id, so its previous instance is as dead as any other dead gateway."""
CLAIMED_AT = DOMAIN + "claimed-at"
EXPIRES_AT = DOMAIN + "expires-at"
"""When the maximum lifetime is over, for display. The kubelet enforces ``activeDeadlineSeconds``."""
LAST_SEEN = DOMAIN + "last-seen"
"""When a program was last found running in a named sandbox without clients."""
DETACHED_AT = DOMAIN + "detached-at"
"""When a gateway's last client left a named sandbox."""
KEPT_FOR = DOMAIN + "kept-for"
"""Seconds for which a named sandbox is kept without clients, for a leader that does not know its profile."""
ENDED_BY = DOMAIN + "ended-by"
"""Which operator ended it, written just before its deletion and reported in an event."""
ENDPOINT = DOMAIN + "door"
"""On a gateway's Lease: where others can ask whether it lives."""
NAMES = DOMAIN + "names"
"""On a gateway's Lease: how it decides which pod has a name. Older ones have none and go by the names of pods."""
ATTACHED = "attached.sshgate.dev/"
"""Followed by the id of a gateway instance: set while it has clients in the named sandbox."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")


def user_hash(user: str) -> str:
    """The label value by which a user's pods are found; the name itself may not be valid as one, or too long."""
    return hashlib.sha256(user.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def label_value(text: str) -> str:
    """``text`` where it is a valid label value, else a hash of it."""
    if _LABEL.match(text):
        return text
    return "x-" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def printable(text: str) -> str:
    """Any text as an annotation's value: valid UTF-8, on one line, at most 253 characters."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)[:253]


def named_pod(user: str, name: str) -> str:
    """The name of the pod of this user's sandbox ``name`` if it starts cold; ``name`` has 40 characters at most.

    One that was warm keeps the name it had. Which pod is the sandbox is decided by a Lease (``naming``).
    """
    return pod_of(user_hash(user), name)


def pod_of(owner: str, name: str) -> str:
    """``named_pod`` by the hash of the user."""
    return f"sshgate-{name}-{owner[:12]}"


def name_lease(user: str, name: str) -> str:
    """The name of the Lease that says which pod is this user's sandbox ``name``."""
    return f"sshgate-name-{user_hash(f'{user_hash(user)}={name}')}"


def timestamp(wall: float) -> str:
    """POSIX seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str | None) -> float | None:
    """POSIX seconds of an RFC 3339 time; ``None`` for anything else, because people can edit annotations."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.timestamp() if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
