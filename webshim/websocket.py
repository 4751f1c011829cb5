"""aiohttp's WebSocket, whose close frame also reaches a peer that is in the middle of a message."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from webshim.connection import Connection

# A peer that does not answer a close, or does not take the last bytes, is cut.
CLOSE_SECONDS = 2.0
# What it costs to answer a ping.
PING_SECONDS = 0.00005
_UNREADABLE = (WSCloseCode.PROTOCOL_ERROR, WSCloseCode.INVALID_TEXT, WSCloseCode.MESSAGE_TOO_BIG)


class WebSocket(web.WebSocketResponse):
    """One socket; ``close`` says why, whatever the peer is at. Pings are answered in ``receive``, in turns."""

    _connection: Connection | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(autoping=False, **options)

    async def receive(self, timeout: float | None = None) -> WSMessage:
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self.receive()
        while (message := await super().receive()).type in (WSMsgType.PING, WSMsgType.PONG):
            if message.type is WSMsgType.PING:
                await self.pong(message.data)
            await self.spent(PING_SECONDS)
        return message

    async def spent(self, seconds: float) -> None:
        """Pay for what a message made the gateway do."""
        if self._connection is not None:
            await self._connection.budget.spent(seconds)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._connection = cast(Connection, request.protocol)
        return await super().prepare(request)

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        # aiohttp itself closes so, without a word, where it cannot read on. It would end the connection at once; the
        # system answers what still comes by a reset, and that takes the close frame from a peer before it is read.
        if code in _UNREADABLE and not message and not self.closed and self._connection is not None:
            await self._told(self._connection, code)
        return await super().close(code=code, message=message, drain=drain)

    async def _told(self, connection: Connection, code: int) -> None:
        """Say it, and hear the peer out for a moment; nothing of that is kept."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.send_frame(code.to_bytes(2, "big"), WSMsgType.CLOSE)
                connection.resume_reading()
                transport: Any = connection.transport
                if transport is not None and transport.can_write_eof():
                    transport.write_eof()
                await connection.lost.wait()
        except (TimeoutError, ConnectionError, RuntimeError):
            return
