"""The users file: lines ``USER:HASH`` with argon2id hashes, written by ``sshgate passwd``."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from sshgate.config.values import is_user
from sshgate.telemetry.rate_limit import RateLimit

log = logging.getLogger("sshgate.web")

LARGEST_FILE = 1 << 20
LONGEST_PASSWORD = 1024

_hasher = PasswordHasher()


class UsersFile:
    """The passwords in a users file, which is read again when it has changed. Unusable lines are ignored.

    While the file cannot be read, the passwords last read from it count; if it is gone, nobody has one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._hashes: dict[str, str] = {}
        self._warnings = RateLimit()
        # Checked for unknown users, so that they take the same time as known ones.
        self._nobody = _hasher.hash("nobody")

    async def check(self, user: str, password: str) -> str | None:
        """Check a password and return its proof (see ``proof``); ``None`` if it is wrong or the user is unknown.

        Each call costs a thread about 64 MiB and some CPU time: the caller limits how many run at once. Cancelling it
        does not stop the thread.
        """
        known = self._read().get(user)
        right = await asyncio.to_thread(_verified, known or self._nobody, password[:LONGEST_PASSWORD])
        return _proof(known) if right and known is not None else None

    def proof(self, user: str) -> str | None:
        """Return a digest that changes when the user's password does; ``None`` if the user has no password."""
        known = self._read().get(user)
        return _proof(known) if known is not None else None

    def _read(self) -> dict[str, str]:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                content = self._path.read_bytes()[:LARGEST_FILE].decode("utf-8", "replace")
                self._hashes, self._stamp = _parsed(content), stamp
        except (FileNotFoundError, NotADirectoryError):
            if self._stamp:
                log.warning("%s is gone; nobody logs in by a password", self._path)
            self._hashes, self._stamp = {}, ()
        except OSError as error:
            if self._warnings.due(""):
                log.warning("%s cannot be read: %s; the passwords last read count", self._path, error.strerror)
        return self._hashes


def set_password(path: Path, user: str, password: str | None) -> bool:
    """Set a user's password in the users file; ``None`` removes it. Raises ``OSError``.

    The file is replaced atomically. A new file is readable by its owner only; an existing one keeps its mode and
    owner. Returns false, and changes nothing, if there is no password to remove.
    """
    before = path.stat() if path.exists() else None
    old = path.read_text().splitlines() if before is not None else []
    lines = [line for line in old if line.partition(":")[0] != user]
    if password is not None:
        lines.append(f"{user}:{_hasher.hash(password)}")
    elif lines == old:
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
            if before is not None:
                _give(file.fileno(), before)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def _give(file: int, like: os.stat_result) -> None:
    """Copy owner and mode, so that the gateway can still read its file after root has set a password."""
    if (os.geteuid(), os.getegid()) != (like.st_uid, like.st_gid):
        os.fchown(file, like.st_uid, like.st_gid)
    os.fchmod(file, stat.S_IMODE(like.st_mode))


def _parsed(content: str) -> dict[str, str]:
    found = {}
    for line in content.splitlines():
        user, colon, hashed = line.strip().partition(":")
        if colon and is_user(user) and hashed.startswith("$argon2id$"):
            found[user] = hashed
    return found


def _verified(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError, UnicodeError):
        return False


def _proof(hashed: str) -> str:
    return hashlib.sha256(hashed.encode()).hexdigest()[:32]
