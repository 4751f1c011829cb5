"""TLS of an accepted connection, within a budget: records are decrypted in turns of the event loop.

The event loops' own TLS decrypts all that a read has brought before anybody can say stop. A record of one byte takes
23 bytes and 1.3 us with uvloop, so 6 MiB of them, a socket's buffer, cost 0.35 s in one turn, for each connection.
Here the bytes from the network are given to asyncio's TLS protocol piece by piece, which also makes handshakes wait
for each other.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from asyncio.sslproto import SSLProtocol
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, cast

from sshgate.stream import turns

# What is decrypted at once: with the smallest records, some hundred microseconds' work.
PIECE = 4096
LARGEST_RECORD = 16 * 1024


class _Below:
    """The TCP transport as the TLS protocol sees it: its wish to pause is one of several."""

    def __init__(self, transport: asyncio.Transport, protocol: MeteredTls) -> None:
        self._transport = transport
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        self._protocol.hold("tls")

    def resume_reading(self) -> None:
        self._protocol.release("tls")

    def _force_close(self, _: BaseException | None) -> None:
        self._transport.abort()


class MeteredTls(asyncio.Protocol):
    """The protocol of the TCP transport; it passes that transport's callbacks on to ``inner``."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        # It makes room for so much before each record; 256 KiB take ten times as long as the record itself.
        inner.max_size = LARGEST_RECORD
        # What is decrypted when a paused reader goes on is no more than what is decrypted at once.
        inner._set_read_buffer_limits(PIECE, 0)
        hold, release = partial(self.hold, "turn"), partial(self.release, "turn")
        self._budget = turns.budget(self._work_off, hold, release, self._abort)
        self._transport: asyncio.Transport | None = None
        self._came: deque[bytes] = deque()
        self._held: set[str] = set()
        self._at_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(_Below(self._transport, self))

    def connection_lost(self, exc: Exception | None) -> None:
        self._budget.close()
        self._came.clear()
        self._transport = None
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        self._came.extend(data[at : at + PIECE] for at in range(0, len(data), PIECE))
        self._budget.schedule()

    def eof_received(self) -> bool:
        self._at_end = True
        self._budget.schedule()
        # Closed by `_work_off`, after what came before.
        return True

    def _work_off(self) -> bool:
        while self._came and "tls" not in self._held:
            piece = self._came.popleft()
            self._inner.get_buffer(len(piece))[: len(piece)] = piece
            self._inner.buffer_updated(len(piece))
            if self._budget.exhausted():
                break
        if self._at_end and not self._came and self._transport is not None:
            self._at_end = False
            if not self._inner.eof_received():
                self._transport.close()
        return bool(self._came) and "tls" not in self._held

    def _abort(self, _: Exception) -> None:
        if self._transport is not None:
            self._transport.abort()

    def hold(self, reason: str) -> None:
        """Read nothing while there is a reason."""
        if not self._held and self._transport is not None:
            self._transport.pause_reading()
        self._held.add(reason)

    def release(self, reason: str) -> None:
        """One reason less."""
        if reason in self._held:
            self._held.remove(reason)
            if not self._held and self._transport is not None:
                self._transport.resume_reading()
            if reason == "tls":
                self._budget.schedule()


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Load a certificate chain and its key. Raises ``OSError`` (``ssl.SSLError`` among them) if they cannot be used."""

    def refuse() -> bytes:
        # OpenSSL would ask on the terminal, and the event loop would wait for the answer.
        raise OSError(errno.EACCES, "the key has a passphrase; remove it with `openssl pkey`")

    context.load_cert_chain(certificate, key, password=refuse)


async def accept(accepted: Any, protocol: asyncio.Protocol, context: ssl.SSLContext, seconds: float) -> None:
    """Make ``protocol`` the one of an accepted socket, behind TLS; its handshake may take ``seconds``.

    Raises ``OSError`` (``ssl.SSLError`` among them). After an exception or cancellation the connection is ended.
    """
    loop = asyncio.get_running_loop()
    shaken: asyncio.Future[None] = loop.create_future()
    inner = SSLProtocol(
        loop, protocol, context, shaken, server_side=True, call_connection_made=True,
        ssl_handshake_timeout=cast(int, seconds),
    )  # fmt: skip
    transport, _ = await loop.connect_accepted_socket(lambda: MeteredTls(inner), accepted)
    try:
        await shaken
    except BaseException:
        transport.abort()
        raise
