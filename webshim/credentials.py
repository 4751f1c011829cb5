"""What a browser or program shows: a signed cookie or token, which contains the login, or a token for one use."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import msgspec
from itsdangerous import BadData, URLSafeSerializer

from sshgate.access.connections import take_one
from sshgate.access.identity import Certified
from sshgate.errors import ConfigError

Method = Literal["link", "password", "proxy", "token", "share"]
Purpose = Literal["cookie", "token", "share"]

_BYTES = 32
_LONGEST = 2048
# One-time tokens kept at once, more than users need. Beyond it the oldest of the user who has most of them is dropped:
# nobody can fill the memory, nor take others theirs.
MOST = 10_000
# Characters of a one-time token.
TOKEN_LENGTH = 32


class OfUser(Protocol):
    """What a one-time token stands for belongs to a user."""

    @property
    def user(self) -> str: ...


T = TypeVar("T", bound=OfUser)


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


class Signer:
    """Signs principals and checks signatures. The purpose is part of the signature: a cookie is not a valid token,
    nor is a link to a session."""

    def __init__(self, key: bytes) -> None:
        principals: Any = SimpleNamespace(
            dumps=lambda principal: msgspec.json.encode(principal).decode(),
            loads=msgspec.json.Decoder(Principal).decode,
        )
        how = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
        self._serializers = {
            purpose: URLSafeSerializer(key, purpose, serializer=principals, signer_kwargs=how)
            for purpose in get_args(Purpose)
        }

    def sign(self, purpose: Purpose, principal: Principal) -> str:
        """Return the signed text for a principal."""
        return self._serializers[purpose].dumps(principal)

    def fits(self, principal: Principal) -> bool:
        """Return whether the signed text for this principal is short enough for ``read``."""
        return len(self.sign("cookie", principal)) <= _LONGEST

    def read(self, purpose: Purpose, text: str) -> Principal | None:
        """Return the principal in a signed text; ``None`` if it was not signed here for this purpose.

        Expiry, logout and revocation are not checked here.
        """
        if len(text) > _LONGEST or not text.isascii():
            return None
        try:
            principal: Principal = self._serializers[purpose].loads(text)
        except BadData:
            return None
        return principal


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
        # Where we cannot write it is a mounted Secret, whose mode we cannot change.
        if path.stat().st_mode & 0o077 and os.access(path.parent, os.W_OK):
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


class OneTimeTokens(Generic[T]):
    """Random tokens of 192 bits, each valid once and for ``seconds``. Only their digests are kept.

    ``now`` is a monotonic clock. Only tokens for which ``fits`` is true are issued.
    """

    def __init__(
        self,
        seconds: float,
        now: Callable[[], float] = time.monotonic,
        fits: Callable[[str], bool] = lambda token: True,
    ) -> None:
        self.seconds = seconds
        self._now = now
        self._fits = fits
        self._issued: dict[bytes, tuple[float, T]] = {}
        self._users: Counter[str] = Counter()

    def issue(self, meaning: T, seconds: float | None = None) -> str:
        """Return a new token that stands for ``meaning``. ``seconds`` overrides the usual lifetime."""
        now = self._now()
        # The dict is in order of issue, which for nearly all tokens is the order of expiry.
        while self._issued and next(iter(self._issued.values()))[0] <= now:
            self._drop(next(iter(self._issued)))
        if len(self._issued) >= MOST:
            most = max(self._users, key=self._users.__getitem__)
            self._drop(next(digest for digest, (_, one) in self._issued.items() if one.user == most))
        while not self._fits(token := secrets.token_urlsafe(TOKEN_LENGTH * 3 // 4)):
            pass
        self._issued[_digest(token)] = (now + (self.seconds if seconds is None else seconds), meaning)
        self._users[meaning.user] += 1
        return token

    def look(self, token: str) -> T | None:
        """Return what a token stands for without using it up; ``None`` if it is wrong, used or expired."""
        ends, meaning = self._issued.get(_digest(token), (0.0, None))
        return meaning if ends > self._now() else None

    def take(self, token: str) -> T | None:
        """Use up a token and return what it stands for; ``None`` if it is wrong, used or expired."""
        # Looked up by digest, so that the time of the lookup reveals nothing about valid tokens.
        ends, meaning = self._drop(_digest(token))
        return meaning if ends > self._now() else None

    def _drop(self, digest: bytes) -> tuple[float, T | None]:
        ends, meaning = self._issued.pop(digest, (0.0, None))
        if meaning is not None:
            take_one(self._users, meaning.user)
        return ends, meaning


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
