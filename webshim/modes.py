"""The modes of a terminal, told from the output that goes by: what a screen that was lost must be put back to. Pure.

Only what survives a redraw by the program itself is followed: DEC private modes, the keypad, and the cursor's shape.
Colours and contents are drawn anew.
"""

from __future__ import annotations

import re

# Those whose state at power-on is set.
_ON_AT_FIRST = frozenset({7, 25})
# A save of the cursor (1048) and synchronized output (2026) are moments, not states; 3 and 40 resize.
_FOLLOWED = frozenset(
    {1, 5, 6, 7, 9, 12, 25, 45, 47, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, 1047, 1049, 2004}
)
_ALTERNATE = frozenset({47, 1047, 1049})
_SEQUENCE = re.compile(rb"\x1b(?:\[\?([0-9;]{1,64})([hl])|([=>])|(c)|\[(!)p|\[([0-6]) q)")
# The longest beginning of a sequence that can be cut off at the end of a chunk.
_LONGEST = 72


class Modes:
    """Feed it output in order, ask it for the sequences that bring a fresh terminal to the same modes."""

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
        """Whether the alternate screen is shown."""
        return any(self._set.get(mode, False) for mode in _ALTERNATE)

    def feed(self, data: bytes) -> None:
        """Output goes by; sequences may be split between two calls."""
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
        """What to write to a terminal that was reset."""
        parts = [b"\x1b="] if self._keypad else []
        # The alternate screen first: entering it saves the cursor and clears.
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
