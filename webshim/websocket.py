"""aiohttp's WebSocket, except that its close frame also reaches a peer that is still sending a message."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from webshim.connection import Connection

# Time for a peer to answer a close frame and to read the last bytes; after that the connection is aborted.
CLOSE_SECONDS = 2.0
# Charged to the budget for each ping and pong.
PING_SECONDS = 0.00005
_UNREADABLE = (WSCloseCode.PROTOCOL_ERROR, WSCloseCode.INVALID_TEXT, WSCloseCode.MESSAGE_TOO_BIG)


class WebSocket(web.WebSocketResponse):
    """One WebSocket. Pings are answered in ``receive`` and charged to the connection's budget."""

    _connection: Connection | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(autoping=False, **options)

    async def receive(self, timeout: float | None = None) -> WSMessage:
        """Return the next message that is not a ping or pong. Raises ``TimeoutError`` after ``timeout`` seconds."""
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self.receive()
        while (message := await super().receive()).type in (WSMsgType.PING, WSMsgType.PONG):
            if message.type is WSMsgType.PING:
                await self.pong(message.data)
            await self.spent(PING_SECONDS)
        return message

    async def spent(self, seconds: float) -> None:
        """Charge the connection's budget for work that a message caused; waits until there is budget again."""
        if self._connection is not None:
            await self._connection.budget.charge_and_wait(seconds)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._connection = cast(Connection, request.protocol)
        return await super().prepare(request)

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Close the socket. aiohttp calls this too, when it cannot parse what it reads."""
        # aiohttp calls this without a message when it cannot parse what it reads, and would close the connection at
        # once. The kernel would answer later data with a reset, and the peer would lose the unread close frame.
        if code in _UNREADABLE and not message and not self.closed and self._connection is not None:
            await self._told(self._connection, code)
        return await super().close(code=code, message=message, drain=drain)

    async def _told(self, connection: Connection, code: int) -> None:
        """Send the close frame, then discard what the peer sends until it has closed, at most ``CLOSE_SECONDS``."""
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
