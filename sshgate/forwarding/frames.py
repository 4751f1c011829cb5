"""The frames between gateway and relay, as the gateway reads and writes them. Pure; ``inside`` has their form."""

from __future__ import annotations

from collections.abc import Iterator

from sshgate.forwarding.inside import CHUNK, HEAD
from sshgate.forwarding.values import Agent, Destination, Listening, Tcp

Frame = tuple[int, int, bytes]
"""Kind, number of the stream, payload."""

# The relay never sends more at once; a sandbox that says so is no relay of ours.
LONGEST = CHUNK + 1024


class ProtocolError(Exception):
    """What came out of the sandbox is not from a relay."""


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEAD.pack(kind, number, len(payload)) + payload


def opening(destination: Destination, own: tuple[str, ...] = ()) -> bytes:
    """The payload of OPEN. What means the sandbox itself is sent as numbers, so that no name is looked up for it."""
    if isinstance(destination, Tcp):
        hosts = own or (destination.host,)
        return b"t" + destination.port.to_bytes(2, "big") + "\n".join(hosts).encode()
    return b"u" + destination.path.encode("utf-8", "surrogateescape")


def listening(where: Listening) -> bytes:
    """The payload of LISTEN. The address is always loopback, as with OpenSSH's ``GatewayPorts no``."""
    if isinstance(where, Tcp):
        return b"t" + where.port.to_bytes(2, "big")
    return b"a" if isinstance(where, Agent) else b"u" + where.path.encode("utf-8", "surrogateescape")


class FrameReader:
    """Cuts bytes into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now, one by one; to be taken to the end before more is fed.

        Raises ``ProtocolError``.
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
