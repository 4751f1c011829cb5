"""AES-GCM with less work per packet than in asyncssh. Written against asyncssh 2.24.1."""

from __future__ import annotations

import os
import time
from typing import Any

from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.encryption import Encryption, GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# Bytes of a packet's length field, and of the tag after the packet.
_HEADER, _TAG = 4, 16
# Bytes before the data of a channel packet: padding length, message number, channel, data length.
_HEAD = 1 + 1 + 4 + 4


class FastGcm(Encryption):
    """AES-GCM that keeps its key schedule; asyncssh computes a new one for every packet."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._cipher = AESGCM(key)
        # RFC 5647 section 7.1: a fixed field, and a counter that is incremented with each packet.
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:], "big")

    def _nonce(self) -> bytes:
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & 0xFFFF_FFFF_FFFF_FFFF
        return nonce

    def seal(self, header: bytes, packet: bytes) -> bytes:
        """Return the sealed packet: encrypted, and followed by its tag. The tag also covers ``header``, the length."""
        return self._cipher.encrypt(self._nonce(), packet, header)

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        return header + self.seal(header, packet), b""

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        # The tag counts as part of the packet (see `use_fast_gcm`). Five bytes, as the peer's length may be any uint32.
        return first_block, (int.from_bytes(first_block, "big") + _TAG).to_bytes(5, "big")

    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:
        try:
            return self._cipher.decrypt(self._nonce(), rest, first)
        except InvalidTag:
            return None


def use_fast_gcm(connection: Any) -> None:
    """Replace asyncssh's GCM by ``FastGcm``: at once for sending, and from the peer's NEWKEYS on for receiving."""
    connection._send_encryption = _faster(connection._send_encryption)
    connection._next_recv_encryption = _faster(connection._next_recv_encryption)
    if isinstance(connection._next_recv_encryption, FastGcm):
        # The tag counts as part of the packet, so that asyncssh passes both on in one piece.
        connection._next_recv_blocksize, connection._next_recv_macsize = _HEADER, 0


def _faster(encryption: Encryption | None) -> Encryption | None:
    if type(encryption) is not GCMEncryption:
        return encryption
    cipher = encryption._cipher
    return FastGcm(cipher._key, cipher._iv)


def send_data(connection: Any, channel: int, data: bytes) -> bool:
    """Send ``data`` to the peer's ``channel`` in one packet. Returns false if asyncssh must send it instead.

    The result is that of asyncssh's ``send_packet``, but the data is copied once before encryption, not seven times.
    It does not work with other ciphers, with compression, during a key exchange, or when a rekey is due.
    """
    cipher = connection._send_encryption
    if (
        not isinstance(cipher, FastGcm)
        or not connection._kex_complete
        or connection._compressor
        or connection._rekey_bytes_sent >= connection._rekey_bytes
        or (connection._rekey_seconds and time.monotonic() >= connection._rekey_time)
    ):
        return False
    # RFC 4253 section 6 (at least 4 bytes of padding), RFC 4254 section 5.2.
    padding = 4 + -(_HEAD + len(data) + 4) % 16
    head = bytes((padding, MSG_CHANNEL_DATA)) + channel.to_bytes(4, "big") + len(data).to_bytes(4, "big")
    packet = b"".join((head, data, os.urandom(padding)))
    header = len(packet).to_bytes(4, "big")
    connection._send(header)
    connection._send(cipher.seal(header, packet))
    connection._send_seq = (connection._send_seq + 1) & 0xFFFF_FFFF
    connection._rekey_bytes_sent += len(packet)
    return True
