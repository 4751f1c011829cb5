"""The gateway's host keys: generated once, kept across restarts, and loaded as objects.

asyncssh would read a key that is given as a path again for every login, which takes 150 ms for an RSA key.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import asyncssh

from sshgate.errors import ConfigError

# Without "ssh-rsa", which means RSA with SHA-1. asyncssh would offer it for every RSA key.
RSA_ALGORITHMS = (b"rsa-sha2-512", b"rsa-sha2-256")
SMALLEST_RSA = 2048
# The RSA key is for clients that do not support ed25519.
_KINDS: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("ssh_host_ed25519_key", "ssh-ed25519", {}),
    ("ssh_host_rsa_key", "ssh-rsa", {"key_size": 3072}),
)
_PATTERN = "ssh_host_*_key"


def load(directory: Path, make: bool = True) -> list[asyncssh.SSHKeyPair]:
    """Load all host keys of ``directory``, ed25519 first. Blocking.

    Args:
        make: Generate an ed25519 and an RSA key if there is none.

    Raises:
        ConfigError: Keys cannot be used (one sentence for each), or the directory cannot be read or written. Or there
            is no key, and ``make`` is false.
    """
    try:
        paths = sorted(directory.glob(_PATTERN))
        if not paths and not make:
            raise ConfigError([f"{directory}: holds no host key."])
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
        # For the proofs of hostkeys-00@openssh.com. The key exchange chooses its own algorithm.
        pair.set_sig_algorithm(RSA_ALGORITHMS[0])
    return pair


def _readable_by_others(found: os.stat_result) -> bool:
    """Check permissions as sshd does, but accept a mounted Secret: root's file, readable by the pod's group."""
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
    """Write a private file atomically. An existing one is kept, as two gateways may start at the same time."""
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
