"""Reads the request packets of one SFTP session and writes the replies."""

from __future__ import annotations

from sshgate.ssh.sftp_packets import Packet, Unreadable, string
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import STDERR, STDOUT, Client
from sshgate.stream.turns import budget

# The longest packet that OpenSSH's server accepts.
LONGEST_PACKET = 256 * 1024
# Seconds charged to the client's budget for each reply: the cost of a request that needs nothing from the sandbox.
REQUEST_SECONDS = 0.00005


class Requests:
    """The client's requests, one at a time, and the replies to them.

    Args:
        early: Input that was already read from the client.
        eof: Whether the client's input has already ended.
    """

    def __init__(self, client: Client, traffic: Traffic, early: bytes, eof: bool) -> None:
        self._client = client
        self._traffic = traffic
        self._eof = eof
        self._buffer = bytearray(early)
        self._budget = budget()
        traffic.up += len(early)

    async def next(self) -> Packet | None:
        """Return the next packet, or ``None`` after the last complete one. Raises ``Unreadable`` if it is too long."""
        if not await self._has(4):
            return None
        size = int.from_bytes(self._buffer[:4], "big")
        if size > LONGEST_PACKET:
            raise Unreadable(11)
        if not await self._has(4 + size):
            return None
        packet = Packet(bytes(self._buffer[4 : 4 + size]))
        del self._buffer[: 4 + size]
        return packet

    async def _has(self, size: int) -> bool:
        while len(self._buffer) < size and not self._eof:
            data = await self._client.read()
            if data is None:
                self._eof = True
            else:
                self._traffic.up += len(data)
                self._buffer += data
        return len(self._buffer) >= size

    async def answer(self, payload: bytes) -> None:
        """Send a reply; its length is put in front."""
        if not self._traffic.down:
            self._traffic.begins()
        self._traffic.down += 4 + len(payload)
        await self._client.write(STDOUT, string(payload))
        await self._budget.charge_and_wait(REQUEST_SECONDS)

    async def complain(self, sentence: str) -> None:
        """Write a sentence for the user to stderr."""
        await self._client.write(STDERR, f"sshgate: {sentence}\n".encode())
