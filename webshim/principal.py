"""The principal of a browser's or program's requests: who logged in, and how it was proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sshgate.access.identity import Certified

Method = Literal["link", "password", "proxy", "token"]


@dataclass(frozen=True, slots=True)
class Principal:
    """One login of a user. Immutable; it is stored, signed, in the cookie or token itself."""

    user: str
    method: Method
    proof: str
    """What must stay true for the login to remain valid: the fingerprint of a key (after ``cert `` for that of a
    certificate), a digest of the password's hash; empty for a proxy."""
    id: str
    """The id of this login, by which a logout refers to it; for a token the token's id."""
    issued: float
    """In seconds since the epoch."""
    expires: float
    """In seconds since the epoch."""
    certificate: Certified | None = None
    """The limits of the certificate that the login was made with, if any."""
