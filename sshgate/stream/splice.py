"""The copy loop between two streams: each direction ends by itself, the whole when both have ended."""

from __future__ import annotations

import asyncio

from sshgate.stream.interfaces import Stream
from sshgate.stream.tasks import cancel

# What a client that has closed its channel had sent before may rest this long on its way.
LINGER_SECONDS = 10.0


async def splice(client: Stream, server: Stream, linger: float = LINGER_SECONDS) -> tuple[int, int]:
    """Carry bytes until both directions have ended, or one side has let go. Closes both; never raises.

    Returns the bytes carried to the server and to the client.
    """
    up, down = _Pump(client, server), _Pump(server, client)
    pumps = [asyncio.create_task(up.run()), asyncio.create_task(down.run())]
    leaving = [asyncio.create_task(client.wait_closed()), asyncio.create_task(server.wait_closed())]
    try:
        open_ = set(pumps)
        while open_ and not any(task.done() for task in leaving):
            done, _ = await asyncio.wait({*open_, *leaving}, return_when=asyncio.FIRST_COMPLETED)
            open_ -= done
        # Who has closed takes nothing more, but what it said before is still to be delivered: to a client, which is
        # there and can leave, however slow its network is; to a server as long as it goes on taking it.
        if leaving[0].done():
            carried = -1
            while not pumps[0].done() and up.carried != carried:
                carried = up.carried
                await asyncio.wait({pumps[0]}, timeout=linger)
        elif open_:
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
        await self._sink.write_eof()
