"""Valid names of users, profiles and sandboxes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

# A user's name is also the name of the file with their keys. `+` and `=` are separators in login names.
# `a.b@c`, `a_` and `_a` are names; `.`, `..` and `-x` are not.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,127}\Z")
# Profile and sandbox names become Kubernetes label values and parts of pod names.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")


def is_user(text: str) -> bool:
    """Whether ``text`` can name a user: 1-128 of A-Z, a-z, 0-9 and ``._@-``, not beginning with ``.@-``."""
    return _USER.match(text) is not None


def is_label(text: str) -> bool:
    """Whether ``text`` can name a profile or a sandbox: 1-40 of a-z, 0-9 and inner ``-``."""
    return _LABEL.match(text) is not None


def matches(text: str, patterns: Iterable[str]) -> bool:
    """Whether one of the shell patterns matches the text as a whole."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)
