"""Finds the name of the server in the first bytes of a TLS connection: the ClientHello (RFC 8446, RFC 6066). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

# A ClientHello of today has 300 to 2,000 bytes, the key shares of post-quantum cryptography included.
LONGEST_HELLO = 16 * 1024
# Each record but the last must bring something, so this bounds the headers as well.
MOST_RECORDS = 64
# A fatal alert, unrecognized_name: every TLS library reports it in these words.
UNRECOGNIZED_NAME = bytes.fromhex("15030100020270")

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_EARLY_DATA = 42
# Records that a server passes over before a second ClientHello: change_cipher_spec, alerts, and early data.
_CHANGE, _ALERT, _APPLICATION = 20, 21, 23
# Bytes of a handshake record by which a ClientHello differs from an encrypted message of TLS 1.2: its kind, and a
# length that servers take.
_BEGINNING = 2
_HOST_NAME = 0


@dataclass(frozen=True, slots=True)
class Hello:
    """A whole ClientHello. ``server``: the name in it, as sent; ``None`` if there is none."""

    server: str | None
    early: bool = False
    """Whether early data may follow it."""
    size: int = field(default=0, compare=False)
    """Bytes of its records."""


class NotTls(ValueError):
    """These are not the first bytes of a TLS connection, or not such as any client sends."""


def client_hello(data: bytes) -> Hello | None:
    """Read the ClientHello at the beginning of ``data``; ``None`` while more bytes are needed.

    The caller reads no more than ``LONGEST_HELLO`` bytes and what one read brought beyond.

    Raises:
        NotTls: This is something else, is malformed, or is longer than ``LONGEST_HELLO``.
    """
    found = _message(data)
    if found is None:
        return None
    message, size = found
    take = _Take(message)
    take.skip(2 + 32)  # version, random
    take.vector(1)  # session id
    take.vector(2)  # cipher suites
    take.vector(1)  # compression methods
    if not take.left:
        return Hello(None, size=size)
    extensions = _Take(take.vector(2))
    if take.left:
        raise NotTls("bytes after the extensions")
    names: list[str | None] = []
    early = False
    while extensions.left:
        kind = extensions.number(2)
        body = extensions.vector(2)
        if kind == _SERVER_NAME:
            names.append(_server_name(body))
        early |= kind == _EARLY_DATA
    # A server might take the other one of two.
    if len(names) > 1:
        raise NotTls("two names of servers")
    return Hello(names[0] if names else None, early, size)


class SecondHello:
    """Looks for another ClientHello in what a client sends after its first one: a server may ask for one, and goes by
    the name in it.

    Args:
        early: ``Hello.early`` of the first one.
    """

    def __init__(self, early: bool) -> None:
        self.over = False
        """None can come any more: everything passes."""
        self._skipped = (_CHANGE, _ALERT, _APPLICATION) if early else (_CHANGE, _ALERT)
        self._kept = b""
        self._left = 0

    def feed(self, data: bytes) -> tuple[bytes, Hello | None]:
        """Take the next bytes. Returns those that may go on, and the second ClientHello if it is there.

        Raises:
            NotTls: There is one, and it is malformed or too long.
        """
        data, self._kept = self._kept + data, b""
        at = 0
        while not self.over:
            step = min(self._left, len(data) - at)
            at, self._left = at + step, self._left - step
            size = int.from_bytes(data[at + 3 : at + 5])
            beginning = data[at + 5 : at + 5 + min(size, _BEGINNING)]
            if len(data) - at < 5:
                break
            if data[at] in self._skipped:
                self._left = 5 + size
            elif data[at] != _HANDSHAKE:
                self.over = True
            elif len(beginning) < min(size, _BEGINNING):
                break
            elif size >= _BEGINNING and (beginning[0] != _CLIENT_HELLO or beginning[1] > 2):
                # Another message of TLS 1.2, or an encrypted one. The version in a hello does not distinguish it from
                # these: servers pass over it.
                self.over = True
            else:
                hello = client_hello(data[at:])
                if hello is None:
                    if len(data) - at > 2 * LONGEST_HELLO:
                        raise NotTls("a ClientHello that is too long")
                    break
                self.over = True
                return data, hello
        if self.over:
            return data, None
        self._kept = data[at:]
        return data[:at], None


def _message(data: bytes) -> tuple[bytes, int] | None:
    """Join the fragments of the first handshake message; ``None`` if its end is not there yet.

    Returns it without its header, and the size of its records.
    """
    joined = bytearray()
    at = 0
    for _ in range(MOST_RECORDS):
        header = data[at : at + 5]
        if header[:1] not in (b"", bytes([_HANDSHAKE])) or header[1:2] not in (b"", b"\x03"):
            raise NotTls("no TLS handshake")
        if len(header) < 5:
            return None
        size = int.from_bytes(header[3:5])
        if not 0 < size <= LONGEST_HELLO:
            raise NotTls("a record of no allowed size")
        joined += data[at + 5 : at + 5 + size]
        if joined[0:1] not in (b"", bytes([_CLIENT_HELLO])):
            raise NotTls("no ClientHello")
        if len(joined) >= 4:
            wanted = int.from_bytes(joined[1:4])
            if wanted > LONGEST_HELLO:
                raise NotTls("a ClientHello that is too long")
            if len(joined) >= 4 + wanted:
                # More handshake bytes in the same record cannot be: the server has to answer first.
                if len(joined) > 4 + wanted:
                    raise NotTls("bytes after the ClientHello")
                return bytes(joined[4:]), at + 5 + size
        if len(data) < at + 5 + size:
            return None
        at += 5 + size
    raise NotTls("too many records")


def _server_name(body: bytes) -> str | None:
    outer = _Take(body)
    names = _Take(outer.vector(2))
    if outer.left:
        raise NotTls("bytes after the list of names")
    found = None
    while names.left:
        kind = names.number(1)
        name = names.vector(2)
        if kind != _HOST_NAME or found is not None:
            raise NotTls("more than one name of a server")
        try:
            found = name.decode("ascii")
        except UnicodeDecodeError:
            raise NotTls("a name that is not ASCII") from None
    return found


class _Take:
    """Reads numbers and vectors from the front of a message. Raises ``NotTls`` where it is too short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def skip(self, size: int) -> bytes:
        if size > self.left:
            raise NotTls("a message that ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.skip(size))

    def vector(self, size: int) -> bytes:
        return self.skip(self.number(size))
