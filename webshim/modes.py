"""Tracks a terminal's modes in its output, to restore them on a fresh terminal when its state was lost. Pure.

Only what a redraw by the program does not restore is tracked: DEC private modes, keypad mode and cursor shape. The
redraw restores colours and contents.
"""

from __future__ import annotations

import re

# Modes that are set in a fresh terminal.
_ON_AT_FIRST = frozenset({7, 25})
# Tracked modes. Not tracked: 1048 (save cursor) and 2026 (synchronized output), which are momentary; 3 and 40, which
# resize the terminal.
_FOLLOWED = frozenset(
    {1, 5, 6, 7, 9, 12, 25, 45, 47, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, 1047, 1049, 2004}
)
_ALTERNATE = frozenset({47, 1047, 1049})
_SEQUENCE = re.compile(rb"\x1b(?:\[\?([0-9;]{1,64})([hl])|([=>])|(c)|\[(!)p|\[([0-6]) q)")
# Bytes of an incomplete sequence that are kept at the end of a chunk.
_LONGEST = 72


class Modes:
    """The modes of a terminal after the output that was fed so far."""

    def __init__(self) -> None:
        self._set: dict[int, bool] = {}
        self._keypad = False
        self._cursor = b""
        self._rest = b""

    def __repr__(self) -> str:
        changed = [f"{mode}{'h' if on else 'l'}" for mode, on in sorted(self._set.items())]
        return f"<Modes {' '.join(changed) or 'as at first'}>"

    @property
    def alternate(self) -> bool:
        """Whether the alternate screen is active."""
        return any(self._set.get(mode, False) for mode in _ALTERNATE)

    def feed(self, data: bytes) -> None:
        """Process the next output. Escape sequences may be split between calls."""
        if b"\x1b" not in data and not self._rest:
            return
        data = self._rest + data
        end = 0
        for found in _SEQUENCE.finditer(data):
            end = found.end()
            self._apply(found)
        last = data.rfind(b"\x1b", max(end, len(data) - _LONGEST))
        self._rest = data[last:] if last >= 0 else b""

    def sequences(self) -> bytes:
        """Return the escape sequences that bring a reset terminal to the same modes."""
        parts = [b"\x1b="] if self._keypad else []
        # The alternate screen comes first, because entering it saves the cursor and clears the screen.
        for mode in sorted(self._set, key=lambda mode: (mode not in _ALTERNATE, mode)):
            if self._set[mode] != (mode in _ON_AT_FIRST):
                parts.append(b"\x1b[?%d%s" % (mode, b"h" if self._set[mode] else b"l"))
        if self._cursor:
            parts.append(b"\x1b[%s q" % self._cursor)
        return b"".join(parts)

    def _apply(self, found: re.Match[bytes]) -> None:
        numbers, switch, keypad, reset, soft_reset, cursor = found.groups()
        if numbers is not None:
            for number in numbers.split(b";"):
                if number and len(number) <= 5 and int(number) in _FOLLOWED:
                    self._set[int(number)] = switch == b"h"
        elif keypad is not None:
            self._keypad = keypad == b"="
        elif reset is not None or soft_reset is not None:
            screen = {mode: on for mode, on in self._set.items() if soft_reset is not None and mode in _ALTERNATE}
            self._set, self._keypad, self._cursor = screen, False, b""
        elif cursor is not None:
            self._cursor = cursor
