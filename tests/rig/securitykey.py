"""A security key made of software: OpenSSH's `sk-*` signatures (PROTOCOL.u2f) with any flags."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from asyncssh.packet import MPInt, String, UInt32
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

APPLICATION = b"ssh:"
TOUCHED, VERIFIED = 1, 4


class SecurityKey:
    """One key; ``flags`` are what it says of its user with the next signature. Signs as ``asyncssh.SSHKey`` does."""

    def __init__(self, curve: bool = False, flags: int = TOUCHED) -> None:
        self.flags = flags
        self._private = ec.generate_private_key(ec.SECP256R1()) if curve else Ed25519PrivateKey.generate()
        public = self._private.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            self.kind = b"sk-ecdsa-sha2-nistp256@openssh.com"
            parts = [b"nistp256", public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)]
        else:
            self.kind = b"sk-ssh-ed25519@openssh.com"
            parts = [public.public_bytes(Encoding.Raw, PublicFormat.Raw)]
        self.public_data = b"".join(map(String, (self.kind, *parts, APPLICATION)))
        self.sig_algorithms = (self.kind,)

    @property
    def line(self) -> str:
        """Its public half, as in a `.pub` file."""
        return f"{self.kind.decode()} {base64.b64encode(self.public_data).decode()}"

    def certify(self, path: Path) -> None:
        """From now on it shows this certificate of its own key."""
        kind, encoded, *_ = path.read_bytes().split()
        self.public_data, self.sig_algorithms = base64.b64decode(encoded), (kind,)

    def sign(self, data: bytes, algorithm: bytes) -> bytes:
        state = bytes([self.flags]) + UInt32(7)
        signed = hashlib.sha256(APPLICATION).digest() + state + hashlib.sha256(data).digest()
        if isinstance(self._private, Ed25519PrivateKey):
            signature = self._private.sign(signed)
        else:
            r, s = utils.decode_dss_signature(self._private.sign(signed, ec.ECDSA(SHA256())))
            signature = MPInt(r) + MPInt(s)
        return String(self.kind) + String(signature) + state
