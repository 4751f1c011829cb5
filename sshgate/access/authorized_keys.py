"""The keys that open the gateway: one OpenSSH authorized_keys file per user, and a file of authorities.

Files are looked at whenever somebody logs in, and read again when they have changed; nothing polls. A line
or a file that cannot be used is refused with a warning that names it, and takes nothing else down.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sshgate.access.identity import Certified, Restrictions, comes_from
from sshgate.access.key_line import KeyLine, LineRefused, parse
from sshgate.config.names import is_user

log = logging.getLogger("sshgate.access")

# Thousands of keys for one user; more is a mistake, and would be read while others wait.
LARGEST_FILE = 1 << 20
# What people and programs leave beside the files that count. A backup may hold keys that were since revoked.
_LEFT_OVER = re.compile(
    r"(readme(\..*)?|.*\.(pub|md|txt|bak|backup|old|orig|rej|save|swp|tmp|dpkg-\w+|rpm\w+))\Z", re.I
)

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Authority:
    """What a certificate must say to be accepted from this signer, and what it then may."""

    principals: frozenset[str]
    """The certificate names at least one of these; a certificate without principals is never accepted."""
    restrictions: Restrictions


@dataclass(frozen=True, slots=True)
class _KeyFile:
    """A file as it was read last."""

    stamp: Stamp = ()
    keys: tuple[KeyLine, ...] = ()


_NOTHING = _KeyFile()


class Keyring:
    """Every key that opens the gateway.

    ``directory`` holds a file per user, named exactly as the user. Dotfiles, READMEs, ``.pub`` files and
    editors' backups in it are nobody's. ``user_ca`` holds the public keys of authorities for all users.
    Neither has to exist.
    """

    def __init__(self, directory: Path, user_ca: Path | None) -> None:
        self._directory = directory
        self._user_ca = user_ca
        self._files: dict[Path, _KeyFile] = {}
        self._last_warning: int | None = None

    def __repr__(self) -> str:
        return f"<Keyring {self._directory}, {len(self._files)} files read>"

    @property
    def empty(self) -> bool:
        """True while there is no usable key at all: nobody gets in. Looks at every file."""
        return not self._authorities().keys and not any(self._of(user).keys for user in self.users())

    def users(self) -> list[str]:
        """The names for which there is a file, usable or not."""
        try:
            with os.scandir(self._directory) as entries:
                return sorted(entry.name for entry in entries if _is_key_file(entry.name) and entry.is_file())
        except OSError:
            return []

    def key(self, user: str, blob: bytes, source: str, now: float) -> Restrictions | None:
        """What the owner of this public key may do as ``user``; ``None``: refuse.

        ``blob`` is the key's SSH wire encoding, ``source`` the client's address, ``now`` seconds since the
        epoch. Of several lines that hold the key, the first whose options allow this client counts. A user
        who does not exist costs the same as one who does.
        """
        for line in self._of(user).keys:
            if line.blob == blob and not line.authority and line.allows(source, now):
                return line.restrictions
        return None

    def holder(self, user: str, fingerprint: str, source: str, now: float) -> Restrictions | None:
        """As ``key``, for a key that was proven earlier and is known by its ``SHA256:`` fingerprint."""
        for line in self._of(user).keys:
            if not line.authority and line.fingerprint == fingerprint and line.allows(source, now):
                return line.restrictions
        return None

    def authority(
        self, user: str, blob: bytes, source: str, now: float, names: frozenset[str] | None = None
    ) -> Authority | None:
        """What a certificate signed by this key needs to log in as ``user``; ``None``: refuse.

        ``blob`` is the signer's public key. With ``names``, the principals of the certificate, only an
        authority that accepts one of them is given. The certificate's own limits are not looked at here.
        """
        return self._signer(user, lambda line: line.blob == blob, source, now, names)

    def certified(self, user: str, certificate: Certified, source: str, now: float) -> Restrictions | None:
        """What the signer of a certificate that was shown earlier allows now, from here; ``None``: nothing any more."""
        if (certificate.ends is not None and now >= certificate.ends) or not comes_from(source, certificate.sources):
            return None

        def signed(line: KeyLine) -> bool:
            return line.fingerprint == certificate.authority

        signer = self._signer(user, signed, source, now, frozenset(certificate.principals))
        return signer.restrictions if signer is not None else None

    def _signer(
        self, user: str, signed: Callable[[KeyLine], bool], source: str, now: float, names: frozenset[str] | None
    ) -> Authority | None:
        for line in (*self._authorities().keys, *self._of(user).keys):
            if line.authority and signed(line) and line.allows(source, now):
                principals = line.principals if line.principals is not None else frozenset({user})
                if names is None or names & principals:
                    return Authority(principals, line.restrictions)
        return None

    def _of(self, user: str) -> _KeyFile:
        return self._read(self._directory / user) if _is_key_file(user) else _NOTHING

    def _authorities(self) -> _KeyFile:
        return _NOTHING if self._user_ca is None else self._read(self._user_ca, authorities=True)

    def _read(self, path: Path, authorities: bool = False) -> _KeyFile:
        try:
            directory = path.parent.stat()
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._files.pop(path, None)
            return _NOTHING
        except OSError as error:
            self._files.pop(path, None)
            # Once for each reason: anybody may ask for any name, as often as they like.
            if error.errno != self._last_warning:
                self._last_warning = error.errno
                log.warning("%s cannot be looked at: %s; nobody gets in by it", path, error.strerror)
            return _NOTHING
        stamp = _stamp(found, directory)
        known = self._files.get(path, _NOTHING)
        if known.stamp != stamp:
            known = self._files[path] = _KeyFile(stamp, _load(path, directory, authorities))
        return known


def _is_key_file(name: str) -> bool:
    return is_user(name) and not _LEFT_OVER.match(name)


def _stamp(found: os.stat_result, directory: os.stat_result) -> Stamp:
    return (
        found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev,
        found.st_mode, found.st_uid, directory.st_mode,
    )  # fmt: skip


def _load(path: Path, directory: os.stat_result, authorities: bool) -> tuple[KeyLine, ...]:
    try:
        # A pipe must not make everybody wait for its writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            refusal = _unsafe(os.fstat(file.fileno()), directory)
            content = b"" if refusal else file.read(LARGEST_FILE + 1)
    except OSError as error:
        refusal, content = f"cannot be read: {error.strerror}", b""
    if len(content) > LARGEST_FILE:
        refusal = f"is larger than {LARGEST_FILE >> 20} MiB"
    if b"PRIVATE KEY-----" in content:
        refusal = "holds a private key; put the line of its .pub file there instead"
    if refusal:
        log.warning("%s %s: nobody gets in by it", path, refusal)
        return ()
    return tuple(_lines(path, content.decode("utf-8", "surrogateescape").removeprefix("\ufeff"), authorities))


def _unsafe(found: os.stat_result, directory: os.stat_result) -> str:
    """Why others than its owner could have written this file, as sshd's StrictModes asks; empty: they cannot.

    Mounted Secrets pass: root's files, 0644, in a sticky directory. So does a file that its owner's private
    group may write, as umask 002 makes it.
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
                # Of its certificates the certificate alone says whether a security key must be touched.
                line = KeyLine(line.blob, authority=True, restrictions=Restrictions(touch=False))
        except LineRefused as refusal:
            log.warning("%s:%d: %s; the line is ignored", path, number, refusal)
            continue
        if line is not None:
            for note in line.notes:
                log.warning("%s:%d: %s; the rest of the line counts", path, number, note)
            yield line
