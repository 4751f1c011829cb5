"""A transport whose packets cost less. Without it (``ssh.fast_path: false``) everything is the same, but slower.

Packets under AES-GCM are sealed and opened here, with one copy instead of seven. The output of one turn of the event
loop leaves in one send. A client that transfers much and knows AES-GCM is asked to use it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, cast

import asyncssh
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_IGNORE, MSG_NEWKEYS
from asyncssh.encryption import Encryption, GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sshgate.ssh._asyncssh.connection import Transport

# The output of one turn of the event loop is sent in pieces of about this size.
ONE_SEND = 128 * 1024
# After this many received bytes a connection counts as bulk, and changes to the fastest cipher that both sides have.
BULK = 1 << 20
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
        # The tag counts as part of the packet (see `send_newkeys`). Five bytes, as the peer's length may be any uint32.
        return first_block, (int.from_bytes(first_block, "big") + _TAG).to_bytes(5, "big")

    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:
        try:
            return self._cipher.decrypt(self._nonce(), rest, first)
        except InvalidTag:
            return None


def _faster(encryption: Encryption | None) -> Encryption | None:
    if type(encryption) is not GCMEncryption:
        return encryption
    cipher = encryption._cipher
    return FastGcm(cipher._key, cipher._iv)


class FastTransport(Transport):
    """A ``Transport`` with a shorter path for each packet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop, options)
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._bulk_ciphers: list[bytes] = []
        self._usual_rekey_bytes = self._rekey_bytes
        self._bytes_in = 0

    # --- AES-GCM ---

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        super().send_newkeys(k, h)
        # At once for sending, and from the peer's NEWKEYS on for receiving.
        self._send_encryption = _faster(self._send_encryption)
        self._next_recv_encryption = _faster(self._next_recv_encryption)
        if isinstance(self._next_recv_encryption, FastGcm):
            # The tag counts as part of the packet, so that asyncssh passes both on in one piece.
            self._next_recv_blocksize, self._next_recv_macsize = _HEADER, 0

    def _work_off(self) -> bool:
        if isinstance(self._recv_encryption, FastGcm):
            # asyncssh copies all remaining input twice for each packet: 2.5 MiB for one read of 256 KiB.
            self._inpbuf = cast(bytes, memoryview(self._inpbuf))
        left = super()._work_off()
        if not left:
            self._inpbuf = bytes(self._inpbuf)
        return left

    def _finish_recv_packet(self, pkttype: int, *args: Any, **kwargs: Any) -> None:
        if pkttype == MSG_NEWKEYS:
            # The next packets may use a cipher of asyncssh, which takes only bytes.
            self._inpbuf = bytes(self._inpbuf)
        super()._finish_recv_packet(pkttype, *args, **kwargs)

    def send_data(self, channel: int, data: bytes) -> bool:
        # The result is that of asyncssh's `send_packet`. Not with other ciphers, with compression, during a key
        # exchange, or when a rekey is due.
        cipher = self._send_encryption
        if (
            not isinstance(cipher, FastGcm)
            or not self._kex_complete
            or self._compressor
            or self._rekey_bytes_sent >= self._rekey_bytes
            or (self._rekey_seconds and time.monotonic() >= self._rekey_time)
        ):
            return False
        # RFC 4253 section 6 (at least 4 bytes of padding), RFC 4254 section 5.2.
        padding = 4 + -(_HEAD + len(data) + 4) % 16
        head = bytes((padding, MSG_CHANNEL_DATA)) + channel.to_bytes(4, "big") + len(data).to_bytes(4, "big")
        packet = b"".join((head, data, os.urandom(padding)))
        header = len(packet).to_bytes(4, "big")
        self._send(header)
        self._send(cipher.seal(header, packet))
        self._send_seq = (self._send_seq + 1) & 0xFFFF_FFFF
        self._rekey_bytes_sent += len(packet)
        return True

    # --- one send per turn of the event loop ---

    @property
    def waiting_output(self) -> int:
        return self._outbox_bytes + super().waiting_output

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        # asyncssh sends a MSG_IGNORE before every packet, against attacks on the chained IV of CBC. None of our
        # ciphers uses CBC; dropping it halves the work and the number of packets for every keystroke.
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    def _send(self, data: bytes) -> None:
        # A send for each packet would cost a system call and often a switch to the client that it wakes, 32 times per
        # MiB.
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        if self._outbox_bytes >= ONE_SEND:
            self._flush_outbox()
        elif len(self._outbox) == 1:
            self._loop.call_soon(self._flush_outbox)

    def _flush_outbox(self, closing: bool = False) -> None:
        # To a client that does not read, small packets are not sent one by one: uvloop keeps 700 bytes for each send
        # that waits, 7 MiB for a MiB of answers.
        if self._outbox and (not self._output_full or self._outbox_bytes >= ONE_SEND or closing):
            outbox, self._outbox, self._outbox_bytes = self._outbox, [], 0
            super()._send(outbox[0] if len(outbox) == 1 else b"".join(outbox))
        else:
            self._bound_output()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._flush_outbox()

    def _force_close(self, exc: Exception | None) -> None:
        # The disconnect message was written just before.
        self._flush_outbox(closing=True)
        super()._force_close(exc)

    # --- AES-GCM for those who transfer much ---

    # The client's order decides, and OpenSSH prefers CTR with a MAC, which costs twice as much as GCM. Waiting for the
    # client's offer before making ours would cost every login a round trip. Instead, a client that supports GCM and
    # transfers more than a little is asked to rekey once, with only GCM on offer.

    def _first_offer(self, lists: Sequence[Sequence[bytes]]) -> None:
        gcm = [cipher for cipher in self._enc_algs if b"gcm" in cipher]
        both = [cipher for cipher in gcm if all(cipher in ciphers for ciphers in lists[2:4])]
        if both and not (self._enc_alg_cs in gcm and self._enc_alg_sc in gcm):
            self._bulk_ciphers = both
            self._rekey_bytes = min(BULK, self._rekey_bytes)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        super().data_received(data)
        if self._bulk_ciphers:
            self._bytes_in += len(data)
            if self._bytes_in >= BULK and self._auth_complete and self._kex_complete:
                # Rekey as asyncssh does, which only counts the bytes that it sends.
                self._send_kexinit()
                self._kexinit_sent = True

    def _send_kexinit(self) -> None:
        if self._bulk_ciphers and self._auth_complete:
            self._enc_algs, self._bulk_ciphers = self._bulk_ciphers, []
            self._rekey_bytes = self._usual_rekey_bytes
        super()._send_kexinit()
