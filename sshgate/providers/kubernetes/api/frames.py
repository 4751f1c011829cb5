"""Parses the frames that a websocket server sends (RFC 6455 section 5), in place. Pure.

An exec produces many small frames, 4 KiB each if the program writes that way. Each costs one slice and one call
here, without an object or a task per frame.
"""

from __future__ import annotations

from collections.abc import Callable

# API servers send at most 32 KiB per message. This also bounds the incomplete message that each socket may hold.
LARGEST_MESSAGE = 4 << 20
# Frames between two checks of the budget.
FRAMES = 8

CONTINUATION, BINARY, CLOSE, PING, PONG = 0x0, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
_WHOLE_BINARY = FIN | BINARY


class ProtocolError(Exception):
    """The data is not a valid frame from a websocket server, or of a kind that was not negotiated."""


class FrameParser:
    """Turns bytes into messages.

    ``stopped`` is true if the budget ran out with data left to parse; ``feed(b"")`` continues.

    Args:
        binary: ``binary(data, start, end)`` is called for every binary message with its position in ``data``, so
            that nothing is copied twice.
        control: ``control(opcode, payload)`` is called for every CLOSE, PING and PONG.
        over: Asked every ``FRAMES`` frames; once it returns true, parsing stops.
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
        """Parse the next bytes from the connection. Raises ``ProtocolError``; the parser is unusable after that."""
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
