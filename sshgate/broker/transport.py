"""A stream as the transport of a protocol object, such as aiohttp's: no socket stands between the two."""

from __future__ import annotations

import asyncio

from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import CHUNK, PromptStream
from sshgate.stream.tasks import Event, cancel


class StreamTransport(asyncio.Transport):
    """Feeds a protocol what a stream has, and the stream what the protocol writes. ``run`` does both.

    As with a socket, the end of the input closes the connection, after what was written before.
    """

    def __init__(self, stream: PromptStream, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._stream = stream
        self._protocol = protocol
        self._output = Flow(CHUNK, CHUNK // 4, protocol.pause_writing, protocol.resume_writing)
        self._busy = False
        """Whether bytes wait, or are being written."""
        self._wanted = Event()
        self._wanted.set()

    def __repr__(self) -> str:
        return f"<StreamTransport {self._output!r}, {self._stream!r}>"

    async def run(self) -> None:
        """Return once the protocol has closed the connection or the stream has; the latter drops what is not written.

        Cancellation does so at once.
        """
        self._protocol.connection_made(self)
        reading, writing = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        gone = asyncio.create_task(self._stream.wait_closed())
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            self._stream.close()
            self._protocol.connection_lost(None)
            await cancel(reading, writing, gone)

    async def _read(self) -> None:
        try:
            while not self.is_closing() and (data := await self._stream.read()) is not None:
                self._protocol.data_received(data)
                del data  # up to 32 KiB, which are not kept while nothing comes
                await self._wanted.wait()
        finally:
            self.close()

    async def _write(self) -> None:
        while (chunk := await self._output.get()) is not None:
            await self._stream.write(chunk[1])
            self._busy = self._output.size > 0
            del chunk

    # --- called by the protocol ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        # Events of many streams are written at once: what needs no wait wakes no task.
        if not self.is_closing() and (self._busy or not self._stream.write_now(bytes(data))):
            self._busy = True
            self._output.put(bytes(data))

    def pause_reading(self) -> None:
        self._wanted.clear()

    def resume_reading(self) -> None:
        self._wanted.set()

    def is_closing(self) -> bool:
        return self._output.ended

    def close(self) -> None:
        self._output.put_eof()
