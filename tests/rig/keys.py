"""Keys of the tests' own: public ones as lines of an authorized_keys file, and those of hosts."""

from __future__ import annotations

import base64
import functools
import struct
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sshgate.ssh import hostkeys


def ed25519() -> str:
    return encoded(Ed25519PrivateKey.generate().public_key())


def encoded(key: Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def blob_of(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


def wire(*parts: bytes) -> str:
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"{parts[0].decode()} {base64.b64encode(blob).decode()}"


def of_host(place: Path) -> None:
    """Put a gateway's host keys there, the same for each."""
    place.mkdir()
    for name, content in _of_host().items():
        (place / name).touch(mode=0o600)
        (place / name).write_bytes(content)


@functools.cache
def _of_host() -> dict[str, bytes]:
    """Made once for all tests: an RSA key takes most of a second. Kept where a run that is killed leaves nothing."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "host"
        hostkeys.load(made)
        return {file.name: file.read_bytes() for file in made.iterdir()}
