"""Frames over a program in a sandbox: fixed fields, the last of which is the payload's length, and the payload."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any


class ProtocolError(Exception):
    """The sandbox sent something that our program there never sends."""


class FrameReader:
    """Splits a stream of bytes into frames.

    Args:
        head: The fields before the payload.
        longest: Bytes of a payload at most.
    """

    def __init__(self, head: struct.Struct, longest: int) -> None:
        self._head = head
        self._longest = longest
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[Any, ...]]:
        """Iterate over the frames that are complete now: their fields without the length, and their payload.

        Exhaust the iterator before the next call. It raises ``ProtocolError`` for a frame that is too long.
        """
        data = self._rest + data
        at = 0
        while len(data) - at >= self._head.size:
            *fields, length = self._head.unpack_from(data, at)
            if length > self._longest:
                raise ProtocolError("a frame that is too long")
            end = at + self._head.size + length
            if end > len(data):
                break
            yield *fields, data[at + self._head.size : end]
            at = end
        self._rest = data[at:]
