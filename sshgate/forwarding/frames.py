"""The gateway's encoding and decoding of the frames between it and a relay. Pure; ``inside`` describes the format."""

from __future__ import annotations

from collections.abc import Iterator

from sshgate.forwarding.inside import CHUNK, HEAD
from sshgate.forwarding.values import Agent, Destination, Listening, Tcp

Frame = tuple[int, int, bytes]
"""The kind, the stream's number, and the payload."""

# Bytes of a payload at most. The relay never sends more; a longer frame comes from something else.
LONGEST = CHUNK + 1024


class ProtocolError(Exception):
    """The sandbox sent something that the relay never sends."""


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    """Encode one frame."""
    return HEAD.pack(kind, number, len(payload)) + payload


def opening(destination: Destination, own: tuple[str, ...] = ()) -> bytes:
    """The payload of OPEN.

    ``own`` holds the numeric addresses to use where the destination is the sandbox itself: no name is looked up then.
    """
    if isinstance(destination, Tcp):
        hosts = own or (destination.host,)
        return b"t" + destination.port.to_bytes(2, "big") + "\n".join(hosts).encode()
    return b"u" + destination.path.encode("utf-8", "surrogateescape")


def listening(where: Listening) -> bytes:
    """The payload of LISTEN. A TCP listener is always on loopback, as with OpenSSH's ``GatewayPorts no``."""
    if isinstance(where, Tcp):
        return b"t" + where.port.to_bytes(2, "big")
    return b"a" if isinstance(where, Agent) else b"u" + where.path.encode("utf-8", "surrogateescape")


class FrameReader:
    """Splits a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Iterate over the frames that are complete now.

        Exhaust the iterator before the next call. It raises ``ProtocolError`` for a frame that is too long.
        """
        data = self._rest + data
        at = 0
        while len(data) - at >= HEAD.size:
            kind, number, length = HEAD.unpack_from(data, at)
            if length > LONGEST:
                raise ProtocolError("a frame that is too long")
            end = at + HEAD.size + length
            if end > len(data):
                break
            yield kind, number, data[at + HEAD.size : end]
            at = end
        self._rest = data[at:]
