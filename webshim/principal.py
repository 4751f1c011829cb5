"""Who is at a browser or a program, and how that was proven. A value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sshgate.access.identity import Certified

Method = Literal["link", "password", "proxy", "token"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A user who has logged in."""

    user: str
    method: Method
    proof: str
    """What must still hold for the login to stand: a key's fingerprint, ``cert`` before it for a certificate's,
    a digest of the password's hash, nothing for a proxy."""
    id: str
    """Of this login; a logout names it."""
    issued: float
    expires: float
    """Both in seconds since the epoch."""
    certificate: Certified | None = None
    """What limits the certificate that it began with."""
