"""The keys by which clients recognise the gateway: made once, kept across restarts, loaded as objects.

asyncssh reads a key that is given as a path again for every login; an RSA key then costs 150 ms each time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

import asyncssh

from sshgate.errors import ConfigError

# RSA with SHA-1 is what "ssh-rsa" means; asyncssh would offer it with every RSA key.
RSA_ALGORITHMS = (b"rsa-sha2-512", b"rsa-sha2-256")
SMALLEST_RSA = 2048
# An ed25519 key for everybody, an RSA key for clients that know nothing newer.
_KINDS: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("ssh_host_ed25519_key", "ssh-ed25519", {}),
    ("ssh_host_rsa_key", "ssh-rsa", {"key_size": 3072}),
)
_PATTERN = "ssh_host_*_key"


class NoHostKeys(ConfigError):
    """There is no host key where there should be one."""


def load(directory: Path, make: bool = True) -> list[asyncssh.SSHKeyPair]:
    """Every host key in ``directory``, ed25519 first. Where there is none, an ed25519 and an RSA key are made.

    Raises ``ConfigError`` with one sentence for each key that cannot be used, ``NoHostKeys`` without ``make``.
    """
    try:
        paths = sorted(directory.glob(_PATTERN))
        if not paths and not make:
            raise NoHostKeys([f"{directory}: holds no host key."])
        paths = paths or _make(directory)
    except OSError as error:
        raise ConfigError([f"{directory}: cannot keep host keys there: {error.strerror}."]) from error
    pairs, mistakes = [], []
    for path in paths:
        try:
            pairs.append(_read(path))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return sorted(pairs, key=lambda pair: pair.get_algorithm() != "ssh-ed25519")


def fingerprint(pair: asyncssh.SSHKeyPair) -> str:
    """``SHA256:...``, as people compare it at their first login."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(pair.public_data).digest()).decode().rstrip("=")


def _read(path: Path) -> asyncssh.SSHKeyPair:
    try:
        found = path.stat()
        if _readable_by_others(found):
            raise ConfigError([f"{path}: others can read this private host key; run `chmod 600 {path}`."])
        key = asyncssh.import_private_key(path.read_bytes())
    except OSError as error:
        raise ConfigError([f"{path}: cannot read this host key: {error.strerror}."]) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        if "passphrase" in str(error).lower():
            raise ConfigError([f"{path}: this host key has a passphrase; remove it with `ssh-keygen -p`."]) from error
        raise ConfigError([f"{path}: this is not a private key in a known format: {error}."]) from error
    pair = asyncssh.load_keypairs([key])[0]
    if key.get_algorithm() == "ssh-rsa":
        if getattr(key.pyca_key, "key_size", 0) < SMALLEST_RSA:
            raise ConfigError([f"{path}: an RSA host key needs {SMALLEST_RSA} bits at least; remove the file."])
        pair.host_key_algorithms = RSA_ALGORITHMS
        # What proofs for hostkeys-00@openssh.com are signed with; the key exchange picks its own.
        pair.set_sig_algorithm(RSA_ALGORITHMS[0])
    return pair


def _readable_by_others(found: os.stat_result) -> bool:
    """As sshd sees it, but a mounted Secret (root's file, read through the pod's group) will do."""
    mounted = found.st_uid == 0 and os.geteuid() != 0
    return bool(found.st_mode & (stat.S_IRWXO | (0 if mounted else stat.S_IRWXG)))


def _make(directory: Path) -> list[Path]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, algorithm, parameters in _KINDS:
        key = asyncssh.generate_private_key(algorithm, comment="sshgate", **parameters)
        _keep(directory / name, key.export_private_key("openssh"))
        with contextlib.suppress(FileExistsError), (directory / f"{name}.pub").open("xb") as file:
            file.write(key.export_public_key("openssh"))
    return sorted(directory.glob(_PATTERN))


def _keep(path: Path, content: bytes) -> None:
    """Write a whole private file, or nothing. One that is there already stays: two gateways may start at once."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
