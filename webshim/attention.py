"""What programs do to be noticed: the bell and notifications, found in the output of a session without a page. Pure."""

from __future__ import annotations

import re
import time

from webshim.protocol import clean

# A longer notification is ignored; so much of an incomplete one is kept between two chunks.
LONGEST = 2048
# Characters of a notification that are kept.
CHARACTERS = 200
# A program that rings without end is noticed this often.
PAUSE_SECONDS = 1.0
# An operating system command up to its end, which may be a BEL as well; one that is too long; or a bell.
_FOUND = re.compile(rb"\x1b\](?:([^\x07\x1b]{0,%d})(?:\x07|\x1b\\)|[^\x07\x1b]*\x07)|(\x07)" % LONGEST)
_END = re.compile(rb"\x07|(?=\x1b)")
_UNENDED = re.compile(rb"\x1b\][^\x07\x1b]*\Z")
_BEGUN = re.compile(rb"\x1b(?:\][^\x07\x1b]{0,%d}\x1b?)?\Z" % LONGEST)


class Attention:
    """Scans output and keeps the latest call for attention.

    Bells, and notifications by OSC 9 (iTerm2), 777 (urxvt) and 99 (kitty) count. OSC 9;4, which reports progress, and
    the title do not.
    """

    __slots__ = ("_at", "_found", "_rest", "_text", "_too_long")

    def __init__(self) -> None:
        self._rest = b""
        self._too_long = False  # inside a command that is; the BEL at its end is no bell
        self._found = 0.0
        self._at = 0.0
        self._text = ""

    def __repr__(self) -> str:
        return f"<Attention {'wanted' if self._at else 'not wanted'}, {len(self._rest)} bytes kept>"

    def summary(self) -> dict[str, object] | None:
        """Return the latest call as the REST API has it; ``None`` without one."""
        return {"at": self._at, "text": self._text} if self._at else None

    def forget(self) -> None:
        """Somebody looks: what was found no longer counts."""
        self._rest, self._too_long, self._at, self._text = b"", False, 0.0, ""

    def feed(self, data: bytes) -> bool:
        """Scan the next output; sequences may be split between calls. Returns whether the summary has changed."""
        if not self._rest and b"\x07" not in data and b"\x1b" not in data:
            return False
        data = self._rest + data
        if self._too_long and (end := _END.search(data)) is not None:
            data = data[end.end() :]
        begun = _BEGUN.search(data, max(0, len(data) - LONGEST - 3))
        self._rest = begun[0] if begun is not None else b""
        last = data.rfind(b"\x1b")
        self._too_long = begun is None and last >= 0 and _UNENDED.match(data, last) is not None
        text: str | None = None
        for found in _FOUND.finditer(data):
            if found[1] is not None:
                text = _notification(found[1]) or text
            elif found[2] is not None:
                text = text or ""
        now = time.monotonic()
        paused = bool(self._at) and now - self._found < PAUSE_SECONDS
        if text is None or (paused and text in ("", self._text)):  # a bell says less than a text
            return False
        self._found, self._at, self._text = now, time.time(), text
        return True


def _notification(command: bytes) -> str | None:
    number, _, rest = command.decode("utf-8", "replace").partition(";")
    if number == "9" and not re.match(r"\d+(;|$)", rest):
        text = rest
    elif number == "777" and rest.startswith("notify;"):
        text = ": ".join(filter(None, rest.split(";", 2)[1:]))
    elif number == "99":
        text = rest.partition(";")[2]
    else:
        return None
    return clean(text, CHARACTERS) or None
