"""A terminal's size, type and modes, as RFC 4254 sections 6.2, 6.7 and 8 define them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# Kubernetes sends a size as two uint16 (remotecommand channel 4), like the kernel's winsize.
LARGEST = 65_535
# The name of a terminal type. Others get the usual one, as they would become a part of paths.
TERM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*\Z")


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """A terminal's width and height in character cells, and in pixels (0: unknown)."""

    columns: int = 80
    rows: int = 24
    pixel_width: int = 0
    pixel_height: int = 0

    @classmethod
    def of(cls, columns: int, rows: int, pixel_width: int = 0, pixel_height: int = 0) -> TerminalSize:
        """Return a valid size from what a client sent: 0 columns become 80, 0 rows 24, and values are cut at 65,535."""
        return cls(
            min(columns, LARGEST) if columns > 0 else 80,
            min(rows, LARGEST) if rows > 0 else 24,
            min(max(pixel_width, 0), LARGEST),
            min(max(pixel_height, 0), LARGEST),
        )

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"


@dataclass(frozen=True, slots=True)
class Terminal:
    """The pseudo-terminal that a client asks for.

    ``modes`` maps opcodes of RFC 4254 section 8 to values, as the client sent them. ``scripted``: the client itself has
    no terminal (`ssh -tt` in a script), so the end of its input is never the end of a window.
    """

    term: str = "xterm"
    size: TerminalSize = TerminalSize()
    modes: Mapping[int, int] = field(default_factory=dict)
    scripted: bool = False


# --- terminal modes (RFC 4254 section 8) ---

_CHARACTERS = {
    1: ("intr", 3), 2: ("quit", 28), 3: ("erase", 127), 4: ("kill", 21), 5: ("eof", 4),
    8: ("start", 17), 9: ("stop", 19), 10: ("susp", 26), 12: ("rprnt", 18), 13: ("werase", 23), 14: ("lnext", 22),
}  # fmt: skip
# Opcode -> name, and the value that a fresh Linux terminal has. Only differences are passed to stty.
_FLAGS = {
    30: ("ignpar", 0), 32: ("inpck", 0), 33: ("istrip", 0), 34: ("inlcr", 0), 35: ("igncr", 0), 36: ("icrnl", 1),
    38: ("ixon", 1), 39: ("ixany", 0), 40: ("ixoff", 0), 41: ("imaxbel", 0), 42: ("iutf8", 0),
    50: ("isig", 1), 51: ("icanon", 1), 53: ("echo", 1), 54: ("echoe", 1), 55: ("echok", 1), 56: ("echonl", 0),
    57: ("noflsh", 0), 58: ("tostop", 0), 59: ("iexten", 1), 60: ("echoctl", 1), 61: ("echoke", 1),
    70: ("opost", 1), 72: ("onlcr", 1), 73: ("ocrnl", 0), 74: ("onocr", 0), 75: ("onlret", 0),
}  # fmt: skip


def stty_words(modes: Mapping[int, int]) -> list[str]:
    """Return the arguments for `stty` that set these modes, only those that differ from a fresh terminal's."""
    words = []
    for opcode, value in modes.items():
        if opcode in _CHARACTERS:
            name, usual = _CHARACTERS[opcode]
            if value != usual and 0 <= value <= 255:
                words += [name, "undef" if value in (0, 255) else _caret(value)]
        elif opcode in _FLAGS:
            name, usual = _FLAGS[opcode]
            if bool(value) != bool(usual):
                words.append(name if value else "-" + name)
    return words


def _caret(value: int) -> str:
    """Return a character in stty's notation for control characters."""
    if value < 32:
        return "^" + chr(value + 64)
    return "^?" if value == 127 else chr(value)
