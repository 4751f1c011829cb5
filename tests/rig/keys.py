"""Public keys of the tests' own, as lines of an authorized_keys file."""

from __future__ import annotations

import base64
import struct

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def ed25519() -> str:
    return encoded(Ed25519PrivateKey.generate().public_key())


def encoded(key: Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def blob_of(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


def wire(*parts: bytes) -> str:
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"{parts[0].decode()} {base64.b64encode(blob).decode()}"
