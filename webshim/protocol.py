"""The frames of ``sshgate.v1``: text in, values out, and back. Pure; README.md is the contract."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

SUBPROTOCOL = "sshgate.v1"

# The largest frames: typed or pasted bytes, and a snapshot in JSON (an escaped byte takes up to six).
BINARY_BYTES = 64 * 1024
TEXT_BYTES = 2 * 1024 * 1024
SNAPSHOT_BYTES = 256 * 1024
# Output that may be on its way unacknowledged, and where sending goes on. LOW is twice the page's ack step.
WINDOW_HIGH = 512 * 1024
WINDOW_LOW = 256 * 1024
# Output kept for whoever comes back; more than the window, so that the same page always resumes exactly.
RING_BYTES = 768 * 1024
# Acknowledged output after which a new snapshot is worth its cost, and the least seconds between two.
SNAPSHOT_EVERY = 128 * 1024
SNAPSHOT_PAUSE = 1.0
# Input that the program has not taken: what an honest page stays below, and what ends the socket.
INPUT_STEP = 32 * 1024
INPUT_LIMIT = 1024 * 1024
TITLE_CHARACTERS = 200

OFFSET = 2**53

Columns = Annotated[int, Meta(ge=1, le=1000)]
Rows = Annotated[int, Meta(ge=1, le=500)]
Offset = Annotated[int, Meta(ge=0, le=OFFSET)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]


class Close:
    """Close codes (RFC 6455 section 7.4, and ours from 4000 on)."""

    ENDED = 1000
    POLICY = 1008
    TOO_BIG = 1009
    BROKEN = 1011
    RESTART = 1012
    LOGIN = 4401
    NOT_FOUND = 4404
    LATE = 4408
    ATTACHED = 4409
    TAKEN_OVER = 4410


class Broken(Exception):
    """A frame broke a rule: which one, and the close code."""

    def __init__(self, message: str, code: str = "frame", close: int = Close.POLICY) -> None:
        super().__init__(message)
        self.code = code
        self.close = close


class Attach(Struct, tag="attach", frozen=True, rename={"offset": "from"}):
    """The first frame: which session, with which right, at which size, from which offset."""

    session: Id
    ticket: Id
    tab: Id
    cols: Columns
    rows: Rows
    offset: Offset | None = None
    take_over: bool = False


class Resize(Struct, tag="resize", frozen=True):
    """The window has this size now."""

    cols: Columns
    rows: Rows


class Ack(Struct, tag="ack", frozen=True):
    """All output below ``offset`` has been parsed."""

    offset: Offset


class Snapshot(Struct, tag="snapshot", frozen=True):
    """The terminal's state after exactly the output below ``offset``."""

    offset: Offset
    cols: Columns
    rows: Rows
    data: str


class Ping(Struct, tag="ping", frozen=True):
    """Asks for a pong with the same id."""

    id: Annotated[int, Meta(ge=-OFFSET, le=OFFSET)] | Annotated[str, Meta(max_length=64)] | None = None


class Title(Struct, tag="title", frozen=True):
    """The terminal's title."""

    text: str


Frame = Attach | Resize | Ack | Snapshot | Ping | Title

_decoder: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)


def parse(text: str) -> Frame:
    """The meaning of a text frame. Raises ``Broken`` for everything that is not exactly one of them."""
    try:
        frame = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Broken(f"this is no control frame: {_words(error)}") from error
    if isinstance(frame, Snapshot) and len(frame.data.encode("utf-8", "replace")) > SNAPSHOT_BYTES:
        raise Broken(f"a snapshot holds at most {SNAPSHOT_BYTES} bytes", close=Close.TOO_BIG)
    if isinstance(frame, Title):
        return Title(clean(frame.text, TITLE_CHARACTERS))
    return frame


def clean(text: str, longest: int) -> str:
    """Text of others for a list or a log: without control characters, and not long."""
    return "".join(character for character in text[: 4 * longest] if character.isprintable())[:longest]


def encode(kind: str, **fields: Any) -> str:
    """A text frame to the page."""
    return msgspec.json.encode({"type": kind, **fields}).decode()


def _words(error: Exception) -> str:
    # msgspec's messages name the field and the rule, never the value.
    return str(error)[:200] if isinstance(error, msgspec.DecodeError) else "it nests too deep or is no text"
