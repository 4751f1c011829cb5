"""RFC 6455 section 5: frames from a server, however the network cuts them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.providers.kubernetes.api.frames import CLOSE, FRAMES, LARGEST_MESSAGE, PING, FrameParser, ProtocolError


def frame(payload: bytes, head: int = 0x82) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes([head, length]) + payload
    if length < 65_536:
        return bytes([head, 126]) + struct.pack(">H", length) + payload
    return bytes([head, 127]) + struct.pack(">Q", length) + payload


class Seen:
    """A parser and everything it told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.controls: list[tuple[int, bytes]] = []
        self.parser = FrameParser(
            lambda data, start, end: self.messages.append(data[start:end]),
            lambda opcode, payload: self.controls.append((opcode, payload)),
        )

    def feed(self, data: bytes, step: int) -> Seen:
        for start in range(0, len(data), step):
            self.parser.feed(data[start : start + step])
        return self


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 500))
def test_messages_are_the_same_however_they_are_cut(payloads: list[bytes], step: int) -> None:
    wire = b"".join(frame(payload) for payload in payloads)
    assert Seen().feed(wire, step).messages == payloads


@given(st.lists(st.binary(max_size=30), max_size=60), st.integers(1, 500))
def test_a_parser_that_is_stopped_goes_on_where_it_was(payloads: list[bytes], step: int) -> None:
    messages: list[bytes] = []
    parser = FrameParser(lambda data, start, end: messages.append(data[start:end]), lambda *_: None, lambda: True)
    wire = b"".join(frame(payload) for payload in payloads)
    for start in range(0, len(wire), step):
        before = len(messages)
        parser.feed(wire[start : start + step])
        assert len(messages) - before <= FRAMES
    while parser.stopped:
        parser.feed(b"")
    assert messages == payloads


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 1_000_000])
@pytest.mark.parametrize("step", [7_919, 1 << 20, 1 << 22])
def test_all_three_length_forms(size: int, step: int) -> None:
    payload = bytes(size)
    seen = Seen().feed(frame(payload) + frame(b"next"), step)
    assert seen.messages == [payload, b"next"]


def test_a_fragmented_message_is_joined_around_a_ping() -> None:
    """Section 5.4: control frames may come between the fragments of a message."""
    wire = frame(b"a", 0x02) + frame(b"?", 0x89) + frame(b"b", 0x00) + frame(b"c", 0x80) + frame(b"d")
    seen = Seen().feed(wire, 1)
    assert seen.messages == [b"abc", b"d"]
    assert seen.controls == [(PING, b"?")]


def test_close_is_delivered_with_its_payload() -> None:
    assert Seen().feed(frame(b"\x03\xe8", 0x88), 1).controls == [(CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize(
    "wire",
    [
        b"\x82\x81\x00\x00\x00\x00x",
        b"\x82\xfe\x00\x80",
        frame(b"x", 0xC2),
        frame(b"text", 0x81),
        frame(b"x", 0x80),
        frame(b"x", 0x83),
        frame(b"x", 0x8B),
        frame(b"x", 0x09),
        frame(bytes(126), 0x89),
        frame(b"a", 0x02) + frame(b"b", 0x82),
        b"\x82\x7f" + struct.pack(">Q", LARGEST_MESSAGE + 1),
    ],
    ids=[
        "masked",
        "masked, long",
        "reserved bit",
        "text",
        "continuation of nothing",
        "unknown data opcode",
        "unknown control opcode",
        "fragmented ping",
        "long ping",
        "message inside a message",
        "larger than any",
    ],
)
def test_what_no_server_may_send_is_an_error(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        Seen().feed(wire, len(wire))


def test_a_huge_message_in_fragments_is_an_error() -> None:
    seen = Seen()
    piece = bytes(1 << 20)
    seen.parser.feed(frame(piece, 0x02))
    for _ in range((LARGEST_MESSAGE >> 20) - 1):
        seen.parser.feed(frame(piece, 0x00))
    with pytest.raises(ProtocolError, match="beyond all bounds"):
        seen.parser.feed(frame(b"x", 0x00))
