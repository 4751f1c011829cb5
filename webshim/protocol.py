"""Parser and encoder for the text frames of ``sshgate.v1``. Pure. README.md is the specification."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

SUBPROTOCOL = "sshgate.v1"

# The largest binary frame (input), text frame (a snapshot as JSON, where a byte may take six) and snapshot, in bytes.
BINARY_BYTES = 64 * 1024
TEXT_BYTES = 2 * 1024 * 1024
SNAPSHOT_BYTES = 256 * 1024
# Bytes of output that may be unacknowledged before sending pauses, and at which the program may write again. LOW is
# twice the page's ack step.
WINDOW_HIGH = 512 * 1024
WINDOW_LOW = 256 * 1024
# Bytes of output kept for reattaching. More than the window, so that the same page can always resume without a gap.
RING_BYTES = 768 * 1024
# A new snapshot is requested after this many acknowledged bytes, and at most once in this many seconds.
SNAPSHOT_EVERY = 128 * 1024
SNAPSHOT_PAUSE = 1.0
# INPUT_STEP: the page is sent `taken` after this many bytes. INPUT_LIMIT: more bytes waiting end the socket.
INPUT_STEP = 32 * 1024
INPUT_LIMIT = 1024 * 1024
TITLE_CHARACTERS = 200

OFFSET = 2**53

Columns = Annotated[int, Meta(ge=1, le=1000)]
Rows = Annotated[int, Meta(ge=1, le=500)]
Offset = Annotated[int, Meta(ge=0, le=OFFSET)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]


class Close:
    """WebSocket close codes (RFC 6455 section 7.4; from 4000 on our own).

    LOGIN: the login is over. NOT_FOUND: no such session, or its ticket is invalid. LATE: no attach frame came in time.
    ATTACHED: the session is open in another tab. TAKEN_OVER: another tab has taken it over. FULL: a limit is reached.
    """

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
    FULL = 4429


class Broken(Exception):
    """A peer broke a rule of the protocol, so its socket is closed."""

    def __init__(self, message: str, code: str = "frame", close: int = Close.POLICY) -> None:
        """``code`` goes into the error frame, ``close`` is the close code, ``message`` goes into both."""
        super().__init__(message)
        self.code = code
        self.close = close


class Attach(Struct, tag="attach", frozen=True, rename={"offset": "from"}):
    """The first frame: attach this socket to a session.

    ``ticket`` is the one-time right to do so, ``tab`` identifies the browser's tab. With ``offset`` (``from``) the tab
    holds the output up to there; ``take_over`` detaches another tab.
    """

    session: Id
    ticket: Id
    tab: Id
    cols: Columns
    rows: Rows
    offset: Offset | None = None
    take_over: bool = False


class Watch(Struct, tag="watch", frozen=True):
    """The first frame of a socket that watches a session by a link, whose secret this is."""

    share: Annotated[str, Meta(min_length=1, max_length=2048)]


class Resize(Struct, tag="resize", frozen=True):
    """The terminal's window now has this size."""

    cols: Columns
    rows: Rows


class Ack(Struct, tag="ack", frozen=True):
    """The page has parsed all output below ``offset``."""

    offset: Offset


class Snapshot(Struct, tag="snapshot", frozen=True):
    """The terminal's state after exactly the output below ``offset``."""

    offset: Offset
    cols: Columns
    rows: Rows
    data: str


class Ping(Struct, tag="ping", frozen=True):
    """Requests a pong with the same id."""

    id: Annotated[int, Meta(ge=-OFFSET, le=OFFSET)] | Annotated[str, Meta(max_length=64)] | None = None


class Title(Struct, tag="title", frozen=True):
    """The terminal's title has changed."""

    text: str


Frame = Attach | Resize | Ack | Snapshot | Ping | Title

WatcherFrame = Watch | Ack | Ping

_decoder: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)
_watcher_decoder: msgspec.json.Decoder[WatcherFrame] = msgspec.json.Decoder(WatcherFrame)

F = TypeVar("F")


def parse(text: str) -> Frame:
    """Parse a text frame. Raises ``Broken`` for anything that is not a valid frame."""
    frame = _decoded(_decoder, text)
    if isinstance(frame, Snapshot) and len(frame.data.encode("utf-8", "replace")) > SNAPSHOT_BYTES:
        raise Broken(f"a snapshot holds at most {SNAPSHOT_BYTES} bytes", close=Close.TOO_BIG)
    if isinstance(frame, Title):
        return Title(clean(frame.text, TITLE_CHARACTERS))
    return frame


def parse_watcher(text: str) -> WatcherFrame:
    """Parse a text frame from a page that watches. Raises ``Broken`` for anything else: it decides nothing."""
    return _decoded(_watcher_decoder, text)


def _decoded(decoder: msgspec.json.Decoder[F], text: str) -> F:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Broken(f"this is no control frame: {_words(error)}") from error


def clean(text: str, longest: int) -> str:
    """Make untrusted text safe for a list or a log: drop unprintable characters, keep at most ``longest``."""
    return "".join(character for character in text[: 4 * longest] if character.isprintable())[:longest]


def encode(kind: str, **fields: Any) -> str:
    """Encode a text frame of this type to the page."""
    return msgspec.json.encode({"type": kind, **fields}).decode()


def _words(error: Exception) -> str:
    # msgspec's messages contain the field and the rule, never the value.
    return str(error)[:200] if isinstance(error, msgspec.DecodeError) else "it nests too deep or is no text"
