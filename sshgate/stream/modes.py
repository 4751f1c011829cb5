"""The modes of a terminal, followed in its output. Pure; also a part of the resident (``hold.resident``).

So: standard library only, Python 3.7, nothing of ours.
"""

from __future__ import annotations

import re

# Modes that are set in a fresh terminal.
_ON_AT_FIRST = frozenset({7, 25})
# Tracked modes. Not tracked: 1048 (save cursor) and 2026 (synchronized output), which are momentary; 3 and 40, which
# resize the terminal.
_FOLLOWED = frozenset(
    {
        1,
        5,
        6,
        7,
        9,
        12,
        25,
        45,
        47,
        66,
        1000,
        1002,
        1003,
        1004,
        1005,
        1006,
        1007,
        1015,
        1016,
        1047,
        1049,
        2004,
        2031,
        2048,
    }
)
_ALTERNATE = frozenset({47, 1047, 1049})
_SEQUENCE = re.compile(
    rb"\x1b(?:\[\?([0-9;]{1,64})([hl])|([=>])|(c)|\[(!)p|\[([0-6]) q|\[([<>=])([0-9;]{0,16})u|\[>4(?:;([0-9]))?m)"
)
# Entries of the keyboard protocol's stack that are followed; terminals keep as few.
_DEEPEST = 8
# Bytes of an incomplete sequence that are kept at the end of a chunk.
_LONGEST = 72


class Modes:
    """The modes of a terminal after the output that was fed so far, to restore them on a fresh terminal.

    Only what a redraw by the program does not restore is tracked: DEC private modes, keypad mode, cursor shape, and how
    keys are reported (kitty's keyboard protocol, xterm's modifyOtherKeys). The redraw restores colours and contents.
    """

    def __init__(self) -> None:
        self._set: dict[int, bool] = {}
        self._keypad = False
        self._cursor = b""
        self._keyboard: list[bytes] = []
        self._other_keys = b""
        self._rest = b""

    def __repr__(self) -> str:
        changed = [f"{mode}{'h' if on else 'l'}" for mode, on in sorted(self._set.items())]
        return f"<Modes {' '.join(changed) or 'as at first'}>"

    @property
    def alternate(self) -> bool:
        """Whether the alternate screen is active."""
        return any(self._set.get(mode, False) for mode in _ALTERNATE)

    @property
    def wraps(self) -> bool:
        """Whether lines that are too long are wrapped."""
        return self._set.get(7, True)

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
        if self._cursor not in (b"", b"0"):
            parts.append(b"\x1b[%s q" % self._cursor)
        parts += [b"\x1b[>%su" % flags for flags in self._keyboard]
        if self._other_keys not in (b"", b"0"):
            parts.append(b"\x1b[>4;%sm" % self._other_keys)
        return b"".join(parts)

    def undone(self) -> bytes:
        """Return the sequences that bring a terminal in these modes back to those of a fresh one."""
        parts = [b"\x1b>"] if self._keypad else []
        pop = b"\x1b[<%du" % len(self._keyboard) if self._keyboard else b""
        parts.append(pop)
        if self._other_keys not in (b"", b"0"):
            parts.append(b"\x1b[>4;0m")
        # The alternate screen goes last, because the modes of its program were set on it.
        for mode in sorted(self._set, key=lambda mode: (mode in _ALTERNATE, mode)):
            if self._set[mode] != (mode in _ON_AT_FIRST):
                parts.append(b"\x1b[?%d%s" % (mode, b"l" if self._set[mode] else b"h"))
        if self.alternate:
            parts.append(pop)  # each of the two screens has a stack
        if self._cursor not in (b"", b"0"):
            parts.append(b"\x1b[0 q")
        return b"".join(parts)

    def _apply(self, found: re.Match[bytes]) -> None:
        numbers, switch, keypad, reset, soft_reset, cursor, keys, flags, other_keys = found.groups()
        if numbers is not None:
            for number in numbers.split(b";"):
                if number and len(number) <= 5 and int(number) in _FOLLOWED:
                    self._set[int(number)] = switch == b"h"
        elif keypad is not None:
            self._keypad = keypad == b"="
        elif reset is not None or soft_reset is not None:
            screen = {mode: on for mode, on in self._set.items() if soft_reset is not None and mode in _ALTERNATE}
            self._set, self._keypad, self._cursor = screen, False, b""
            self._keyboard, self._other_keys = [], b""
        elif cursor is not None:
            self._cursor = cursor
        elif keys is not None:
            self._key_flags(keys, flags)
        else:
            self._other_keys = other_keys or b""

    def _key_flags(self, keys: bytes, flags: bytes) -> None:
        if keys == b">":
            self._keyboard = [*self._keyboard, flags][-_DEEPEST:]
        elif keys == b"<":
            count = int(flags) if flags.isdigit() else 1
            self._keyboard = self._keyboard[: max(0, len(self._keyboard) - max(1, count))]
        else:
            self._keyboard = [*self._keyboard[:-1], flags.partition(b";")[0]]
