"""The packets of one SFTP session, as they come from its client and go back to it."""

from __future__ import annotations

from sshgate.ssh.sftp_packets import Packet, Unreadable, string
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import STDERR, STDOUT, Client
from sshgate.stream.turns import budget

# What OpenSSH's server takes.
LONGEST_PACKET = 256 * 1024
# What a request that costs the sandbox nothing costs here, seconds.
REQUEST_SECONDS = 0.00005


class Requests:
    """The client's packets, one at a time, and what they are answered."""

    def __init__(self, client: Client, traffic: Traffic, early: bytes, eof: bool) -> None:
        self._client = client
        self._traffic = traffic
        self._eof = eof
        self._buffer = bytearray(early)
        self._budget = budget()
        traffic.up += len(early)

    async def next(self) -> Packet | None:
        """The next packet, or ``None`` after the last whole one. Raises ``Unreadable``."""
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
        if not self._traffic.down:
            self._traffic.begins()
        self._traffic.down += 4 + len(payload)
        await self._client.write(STDOUT, string(payload))
        await self._budget.spent(REQUEST_SECONDS)

    async def complain(self, sentence: str) -> None:
        await self._client.write(STDERR, f"sshgate: {sentence}\n".encode())
