"""Signed cookies and tokens: they contain the login, so they stay valid across restarts without stored state."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Literal

import msgspec

from sshgate.errors import ConfigError
from webshim.principal import Principal

Purpose = Literal["cookie", "token"]

_PREFIX = "sshgate1"
_BYTES = 32
_LONGEST = 2048


class Signer:
    """Signs principals and checks signatures. The purpose is part of the signature: a cookie is not a valid token."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "<Signer>"

    def sign(self, purpose: Purpose, visitor: Principal) -> str:
        """Return the signed text for a principal."""
        body = _PREFIX + "." + _base64(msgspec.json.encode(visitor))
        return f"{body}.{self._mark(purpose, body)}"

    def fits(self, visitor: Principal) -> bool:
        """Return whether the signed text for this principal is short enough for ``read``."""
        return len(self.sign("cookie", visitor)) <= _LONGEST

    def read(self, purpose: Purpose, word: str) -> Principal | None:
        """Return the principal in a signed text; ``None`` if it was not signed here for this purpose.

        Expiry, logout and revocation are not checked here.
        """
        body, _, mark = word.rpartition(".")
        if len(word) > _LONGEST or not word.isascii():
            return None
        if not hmac.compare_digest(mark.encode(), self._mark(purpose, body).encode()):
            return None
        try:
            return msgspec.json.decode(_unbase64(body.partition(".")[2]), type=Principal)
        except (ValueError, msgspec.DecodeError):
            return None

    def _mark(self, purpose: Purpose, body: str) -> str:
        return _base64(hmac.digest(self._key, f"{purpose}:{body}".encode(), "sha256"))


def load(path: Path) -> Signer:
    """Return a signer with the secret in this file, which is created if it does not exist. Blocks.

    Raises ``ConfigError`` if the file cannot be used, is too short, or can be read by others.
    """
    try:
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = _made(path)
        if path.stat().st_mode & 0o077 and not os.access(path.parent, os.W_OK):
            pass  # a mounted Secret, whose mode we cannot change
        elif path.stat().st_mode & 0o077:
            raise ConfigError([f"{path}: others can read the secret that logins are signed with (chmod 600)."])
    except OSError as error:
        raise ConfigError(
            [f"{path}: {error.strerror}; web.secret names the file that logins are signed with."]
        ) from error
    if len(key) < _BYTES:
        raise ConfigError([f"{path}: the secret is shorter than {_BYTES} bytes; remove it, and a new one is made."])
    return Signer(hashlib.sha256(b"sshgate web" + key).digest())


def _made(path: Path) -> bytes:
    key = secrets.token_urlsafe(_BYTES).encode()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(key)
    except FileExistsError:  # another gateway was faster
        return path.read_bytes()
    return key


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
