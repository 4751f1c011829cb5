"""Frames that a websocket server sends (RFC 6455 section 5), parsed in place. Pure.

An exec is a flood of small frames: 4 KiB each when a program writes so. Each costs here one slice and one
call, without an object per frame and without a task.
"""

from __future__ import annotations

from collections.abc import Callable

# No server of ours sends more than 32 KiB at once. Each socket may hold as much of a message that is incomplete.
LARGEST_MESSAGE = 4 << 20
# Frames between two looks at the time.
FRAMES = 8

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
_WHOLE_BINARY = FIN | BINARY


class ProtocolError(Exception):
    """What came is no frame of a websocket server, or none we agreed to."""


class FrameParser:
    """Turns bytes into messages.

    ``binary(data, start, end)`` is called with every binary message as a part of ``data``, so that nothing
    need be copied twice; ``control(opcode, payload)`` with every CLOSE, PING and PONG. Once ``over()`` is true it
    stops, and ``stopped`` says whether frames are left; ``feed(b"")`` goes on.
    """

    def __init__(
        self,
        binary: Callable[[bytes, int, int], None],
        control: Callable[[int, bytes], None],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.stopped = False
        self._binary = binary
        self._control = control
        self._over = over
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self._message: bytearray | None = None

    def __repr__(self) -> str:
        return f"<FrameParser {self._have}/{self._need} bytes of a frame>"

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the connection. Raises ``ProtocolError``; nothing may be fed after that."""
        self.stopped = False
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts = []
        binary = self._binary
        size = len(data)
        position = 0
        need = 2
        frames = 0
        while size - position >= 2:
            start = position + 2
            length = data[position + 1]
            if length > 125:
                wide = 2 if length == 126 else 8
                if length > 127:
                    raise ProtocolError("a masked frame")
                if size - start < wide:
                    need = 2 + wide
                    break
                length = int.from_bytes(data[start : start + wide], "big")
                if length > LARGEST_MESSAGE:
                    raise ProtocolError("a frame beyond all bounds")
                start += wide
            end = start + length
            if end > size:
                need = end - position
                break
            if data[position] == _WHOLE_BINARY and self._message is None:
                binary(data, start, end)
            else:
                self._rare(data[position], data[start:end])
            position = end
            frames += 1
            if frames % FRAMES == 0 and self._over():
                self.stopped = position < size
                break
        if position < size:
            self._parts = [data[position:]]
            self._have = size - position
            self._need = need

    def _rare(self, head: int, payload: bytes) -> None:
        opcode = head & 0x0F
        if head & 0x70:
            raise ProtocolError("reserved bits")
        if opcode >= CLOSE:
            if opcode > PONG or not head & FIN or len(payload) > 125:
                raise ProtocolError("a broken control frame")
            self._control(opcode, payload)
            return
        if opcode == (BINARY if self._message is not None else CONTINUATION) or opcode not in (BINARY, CONTINUATION):
            raise ProtocolError("not a binary message")
        message = self._message if self._message is not None else bytearray()
        message += payload
        if len(message) > LARGEST_MESSAGE:
            raise ProtocolError("a message beyond all bounds")
        if head & FIN:
            self._message = None
            self._binary(bytes(message), 0, len(message))
        else:
            self._message = message
