"""The copy loop between two streams. Each direction ends independently; the loop ends when both have."""

from __future__ import annotations

import asyncio

from sshgate.stream.interfaces import Stream
from sshgate.stream.tasks import cancel

# After the client has closed, its remaining bytes may make no progress towards the server for this long.
LINGER_SECONDS = 10.0


async def splice(
    client: Stream, server: Stream, linger: float = LINGER_SECONDS, half_closed: float | None = None
) -> tuple[int, int]:
    """Copy bytes until both directions have ended or one side has closed, then close both streams. Never raises.

    Bytes that the side that closed had already sent are still delivered. Cancellation closes both at once.

    Args:
        linger: Once the client has closed, give up after this many seconds without progress.
        half_closed: The same once one direction has ended, up to twice as long; ``None``: then never.

    Returns:
        The number of bytes carried to the server, and to the client.
    """
    up, down = _Pump(client, server), _Pump(server, client)
    pumps = [asyncio.create_task(up.run()), asyncio.create_task(down.run())]
    leaving = [asyncio.create_task(client.wait_closed()), asyncio.create_task(server.wait_closed())]
    try:
        open_ = set(pumps)
        while open_ and not any(task.done() for task in leaving):
            before, limit = up.carried + down.carried, half_closed if len(open_) == 1 else None
            done, _ = await asyncio.wait({*open_, *leaving}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not done and up.carried + down.carried == before:
                break
            open_ -= done
        # The side that has closed takes nothing more, but what it had sent must still be delivered. The client gets all
        # of it, however slow its network is, unless it disconnects. The server gets it as long as it keeps reading.
        if leaving[0].done():
            carried = -1
            while not pumps[0].done() and up.carried != carried:
                carried = up.carried
                await asyncio.wait({pumps[0]}, timeout=linger)
        elif leaving[1].done():
            await asyncio.wait({pumps[1], leaving[0]}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        client.close()
        server.close()
        await cancel(*pumps, *leaving)
    return up.carried, down.carried


class _Pump:
    """One direction."""

    def __init__(self, source: Stream, sink: Stream) -> None:
        self._source = source
        self._sink = sink
        self.carried = 0

    async def run(self) -> None:
        while (data := await self._source.read()) is not None:
            self.carried += len(data)
            await self._sink.write(data)
            del data  # up to 32 KiB, which are not kept while nothing comes
        await self._sink.write_eof()
