"""The keys that may log in: one OpenSSH authorized_keys file per user, and one file of certificate authorities.

Files are checked at every login and read again when they have changed; there is no polling. A line or a file that
cannot be used is ignored with a warning that names it; everything else stays in force. A file that cannot be read at
the moment keeps the keys that were last read from it; one that is gone has none.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sshgate.access.identity import Certified, Restrictions, comes_from
from sshgate.access.key_line import KeyLine, LineRefused, fingerprint_of, parse
from sshgate.config.values import is_user
from sshgate.telemetry.rate_limit import RateLimit

log = logging.getLogger("sshgate.access")

# Enough for thousands of keys of one user. Reading blocks the event loop, so larger files are refused.
LARGEST_FILE = 1 << 20
# Files that people and programs leave beside key files. They are ignored: a backup may hold keys revoked since.
_LEFT_OVER = re.compile(
    r"(readme(\..*)?|.*\.(pub|md|txt|bak|backup|old|orig|rej|save|swp|tmp|dpkg-\w+|rpm\w+))\Z", re.I
)

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Authority:
    """The conditions under which certificates of one signer are accepted."""

    principals: frozenset[str]
    """The certificate must name at least one of these; one without principals is never accepted."""
    restrictions: Restrictions
    """Restrictions that the signer's line puts on every login with its certificates."""


@dataclass(frozen=True, slots=True)
class _KeyFile:
    """The keys of a file as of the last read."""

    stamp: Stamp = ()
    keys: tuple[KeyLine, ...] = ()


_NOTHING = _KeyFile()


class Keyring:
    """All keys and certificate authorities that may log in.

    ``directory`` holds one file per user, named exactly as the user. Dotfiles, READMEs, ``.pub`` files and editor
    backups in it are ignored. ``user_ca`` holds the public keys of authorities that count for all users. Neither has
    to exist. All methods read files synchronously and never raise for one that cannot be used.
    """

    def __init__(self, directory: Path, user_ca: Path | None) -> None:
        self._directory = directory
        self._user_ca = user_ca
        self._files: dict[Path, _KeyFile] = {}
        self._warnings = RateLimit()

    @property
    def empty(self) -> bool:
        """True if there is no usable key, so that nobody can log in. Checks every file."""
        return not self._authorities().keys and not any(self._of(user).keys for user in self.users())

    def users(self) -> list[str]:
        """Return the sorted names of users that have a file, usable or not."""
        try:
            with os.scandir(self._directory) as entries:
                return sorted(entry.name for entry in entries if _is_key_file(entry.name) and entry.is_file())
        except OSError:
            return []

    def key(self, user: str, blob: bytes, source: str, now: float) -> Restrictions | None:
        """Return the restrictions under which this public key may log in as ``user``; ``None``: refuse.

        If several lines hold the key, the first whose options allow this client counts. The caller must still have
        the client prove that it owns the key.

        Args:
            user: any text; an unknown user just has no keys.
            blob: the public key in SSH wire encoding.
            source: the client's address, without a port.
            now: seconds since the epoch.
        """
        return self.holder(user, fingerprint_of(blob), source, now)

    def holder(self, user: str, fingerprint: str, source: str, now: float) -> Restrictions | None:
        """Like ``key``, for a key that was proven earlier, given by its ``SHA256:`` fingerprint."""
        for line in self._of(user).keys:
            if not line.authority and line.fingerprint == fingerprint and line.allows(source, now):
                return line.restrictions
        return None

    def authority(
        self, user: str, blob: bytes, source: str, now: float, names: frozenset[str] | None = None
    ) -> Authority | None:
        """Return what a certificate signed by this key needs to log in as ``user``; ``None``: refuse.

        The certificate itself (validity, source addresses, critical options) is not checked here.

        Args:
            user: the user to log in as.
            blob: the signer's public key in SSH wire encoding.
            source: the client's address, without a port.
            now: seconds since the epoch.
            names: the principals of the certificate; only an authority that accepts one of them is returned.
                ``None``: any authority with this key.
        """
        return self._signer(user, fingerprint_of(blob), source, now, names)

    def certified(self, user: str, certificate: Certified, source: str, now: float) -> Restrictions | None:
        """Return the restrictions that now apply to a login made with this certificate; ``None``: it is over.

        It is over when the certificate has expired, does not allow ``source``, or its signer is no longer accepted.
        """
        if (certificate.ends is not None and now >= certificate.ends) or not comes_from(source, certificate.sources):
            return None
        signer = self._signer(user, certificate.authority, source, now, frozenset(certificate.principals))
        return signer.restrictions if signer is not None else None

    def _signer(
        self, user: str, fingerprint: str, source: str, now: float, names: frozenset[str] | None
    ) -> Authority | None:
        for line in (*self._authorities().keys, *self._of(user).keys):
            if line.authority and line.fingerprint == fingerprint and line.allows(source, now):
                principals = line.principals if line.principals is not None else frozenset({user})
                if names is None or names & principals:
                    return Authority(principals, line.restrictions)
        return None

    def _of(self, user: str) -> _KeyFile:
        return self._read(self._directory / user) if _is_key_file(user) else _NOTHING

    def _authorities(self) -> _KeyFile:
        return _NOTHING if self._user_ca is None else self._read(self._user_ca, authorities=True)

    def _read(self, path: Path, authorities: bool = False) -> _KeyFile:
        known = self._files.get(path, _NOTHING)
        try:
            directory = path.parent.stat()
            stamp = _stamp(path.stat(), directory)
            if known.stamp != stamp:
                known = self._files[path] = _KeyFile(stamp, _load(path, directory, authorities))
        except (FileNotFoundError, NotADirectoryError):
            self._files.pop(path, None)
            return _NOTHING
        except OSError as error:
            # That a key cannot be looked at does not mean that it was taken away: this must not end its connections.
            # Logged by errno, because strangers may try any name as often as they like.
            if self._warnings.due(str(error.errno)):
                log.warning("%s cannot be looked at: %s; the keys last read from it count", path, error.strerror)
        return known


def _is_key_file(name: str) -> bool:
    return is_user(name) and not _LEFT_OVER.match(name)


def _stamp(found: os.stat_result, directory: os.stat_result) -> Stamp:
    return (
        found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev,
        found.st_mode, found.st_uid, directory.st_mode,
    )  # fmt: skip


def _load(path: Path, directory: os.stat_result, authorities: bool) -> tuple[KeyLine, ...]:
    """Return the keys of a file; none if it may not be used. Raises ``OSError`` if it cannot be read."""
    # O_NONBLOCK: if this is a named pipe, opening it must not block until somebody writes.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        refusal = _unsafe(os.fstat(file.fileno()), directory)
        content = b"" if refusal else file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        refusal = f"is larger than {LARGEST_FILE >> 20} MiB"
    if b"PRIVATE KEY-----" in content:
        refusal = "holds a private key; put the line of its .pub file there instead"
    if refusal:
        log.warning("%s %s: nobody gets in by it", path, refusal)
        return ()
    return tuple(_lines(path, content.decode("utf-8", "surrogateescape").removeprefix("\ufeff"), authorities))


def _unsafe(found: os.stat_result, directory: os.stat_result) -> str:
    """Return why users other than the owner could have written this file (sshd's StrictModes); empty: they cannot.

    Mounted Secrets pass: files of root with mode 0644 in a sticky directory. So does a file that is writable by its
    owner's private group, as umask 002 creates it.
    """
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != found.st_uid):
        return "can be written by others (chmod go-w)"
    if directory.st_mode & stat.S_IWOTH and not (
        directory.st_mode & stat.S_ISVTX and found.st_uid in (0, os.geteuid())
    ):
        return "is in a directory that others can write to (chmod go-w)"
    return ""


def _lines(path: Path, text: str, authorities: bool) -> Iterator[KeyLine]:
    for number, content in enumerate(text.split("\n"), 1):
        try:
            line = parse(content)
            if line is not None and authorities:
                if line.has_options:
                    raise LineRefused("options have no meaning here; use a cert-authority line in a user's file")
                # For its certificates only the certificate decides whether a security key must be touched.
                line = KeyLine(line.blob, authority=True, restrictions=Restrictions(touch=False))
        except LineRefused as refusal:
            log.warning("%s:%d: %s; the line is ignored", path, number, refusal)
            continue
        if line is not None:
            for note in line.notes:
                log.warning("%s:%d: %s; the rest of the line counts", path, number, note)
            yield line
