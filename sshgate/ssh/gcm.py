"""AES-GCM for asyncssh's packets, without its work per packet. Written against asyncssh 2.24.1."""

from __future__ import annotations

from asyncssh.encryption import Encryption, GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class FastGcm(Encryption):
    """AES-GCM with its key schedule kept; asyncssh makes a new one for every packet."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._cipher = AESGCM(key)
        # RFC 5647 section 7.1: a fixed field, and a counter that goes up by one with each packet.
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:], "big")

    def _nonce(self) -> bytes:
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & 0xFFFF_FFFF_FFFF_FFFF
        return nonce

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        return header + self._cipher.encrypt(self._nonce(), packet, header), b""

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        return first_block, first_block[:header_len]

    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:
        sealed = b"".join((first[header_len:], rest, mac))
        try:
            return self._cipher.decrypt(self._nonce(), sealed, first[:header_len])
        except InvalidTag:
            return None


def faster(encryption: Encryption | None) -> Encryption | None:
    if type(encryption) is not GCMEncryption:
        return encryption
    cipher = encryption._cipher
    return FastGcm(cipher._key, cipher._iv)
