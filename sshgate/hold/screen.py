"""What a terminal is shown when it joins a session that ran before. Pure; also a part of the resident.

So: standard library only, Python 3.7, nothing of ours but ``Modes``.
"""

from __future__ import annotations

import re

from sshgate.stream.modes import Modes

# Bytes of a shell's output that are shown again at most.
REPLAY = 256 * 1024
# After a lost beginning, output starts at the first line that begins within this many bytes.
LONGEST_LINE = 16 * 1024
# Sequences that a terminal answers, that have an effect outside its screen, or that ring. Answers would be typed into
# the program. A sequence that is not complete is kept: the rest of it follows.
_UNWANTED = re.compile(
    rb"\x1b(?:"
    rb"\[[?>=]?[0-9;]*[cnxi]"  # device attributes, status, parameters, printing
    rb"|\[[?>=]?[0-9;]*[$*+,'\"]+[pwxyz{|}]"  # modes, checksums, locator
    rb"|\[>[0-9;]*q|\[\?[0-9;]*[uS]|\[(?:1[1-9]|2[0-3])(?:;[0-9;]*)?t|\[\?2026[hl]|Z"
    rb"|\]([0-9]{0,4})(;?[^\x07\x1b]*)(?:\x07|\x1b\\)"
    rb"|[PX^_][^\x1b\x18\x1a]*(?:\x1b\\|(?=\x1b)|[\x18\x1a])"
    rb")|[\x05\x07]"
)
# Of the operating system commands, these stay: titles, colours and hyperlinks. Colours can be asked for as well.
_SHOWN = (b"0", b"1", b"2", b"8")
_COLOURS = (b"4", *(b"%d" % number for number in range(10, 20)))
_TITLE = re.compile(rb"\x1b\][02];([^\x07\x1b]{0,512})(?:\x07|\x1b\\)")
_CLEAR = re.compile(rb"\A\x1b\[22;0t\x1b\[0m\x1b\[999;1H\n*\x1b\[H\x1b\[2J")
_TO_MAIN = re.compile(rb"\x1b\[\?(?:[0-9;]{0,32};)?(?:47|1047|1049)l")
_TO_ALTERNATE = re.compile(rb"\x1b\[\?(?:47|1047|1049)(?:;[0-9;]{0,32})?h")
# A program that draws again in place goes up line by line. Counts of lines are wrong once longer ones are wrapped.
_IN_PLACE = re.compile(rb"\x1b\[[0-2]?K\x1b\[[0-9]{0,3}A|\x1b\[[0-9]{0,3}A\r?\x1b\[[0-2]?[JK]")


def quiet(data: bytes) -> bytes:
    """Return output without what a terminal answers, and without what has an effect outside the screen."""
    return _UNWANTED.sub(_kept, data)


def _kept(found: re.Match[bytes]) -> bytes:
    command, text = found[1], found[2]
    if command in _SHOWN or (command in _COLOURS and b"?" not in text):
        return found[0]
    return b""


def title(data: bytes) -> str:
    """Return the last title that this output sets, ``""`` without one."""
    at = max(data.rfind(b"\x1b]0;"), data.rfind(b"\x1b]2;"))
    found = _TITLE.match(data, at) if at >= 0 else None
    return found[1].decode("utf-8", "replace") if found else ""


def first_shown(
    before: Modes, data: bytes, whole: bool, rows: int, old_title: str = "", narrower: bool = False
) -> tuple[bytes, bool]:
    """Return what makes a used terminal look as if it had shown all the output, and whether a redraw is needed.

    The lines that the terminal shows go to its scrollback first.

    Args:
        before: the modes before ``data``.
        data: the last output.
        whole: whether ``data`` is all there was.
        rows: the terminal's height.
        old_title: the title before ``data``.
        narrower: whether the terminal has fewer columns than that for which the output was made.
    """
    named = title(data) or old_title
    modes = Modes()
    modes.feed(before.sequences())
    if len(data) > REPLAY:
        modes.feed(data[:-REPLAY])
        data = data[-REPLAY:]
        whole = False
    latest = Modes()
    latest.feed(modes.sequences())
    latest.feed(data)
    clear = b"\x1b[22;0t\x1b[0m\x1b[999;1H" + b"\n" * rows + b"\x1b[H\x1b[2J"
    if named:
        clear += b"\x1b]2;" + named.encode() + b"\x07"
    if modes.alternate:
        # The output updates a screen that is lost, up to the return to the main one.
        left = [found.end() for found in _TO_MAIN.finditer(data)]
        if not left:
            return clear + latest.sequences(), True
        modes.feed(data[: left[-1]])
        data = data[left[-1] :]
    elif not whole:
        # The beginning of a line is not inside an escape sequence or a character.
        cut = data.find(b"\n", 0, LONGEST_LINE) + 1
        modes.feed(data[:cut])
        data = data[cut:]
    shown = clear + modes.sequences()
    if not latest.alternate:
        if narrower and _IN_PLACE.search(data):
            return shown + b"\x1b[?7l" + quiet(data) + b"\x1b[?7h" * latest.wraps, not whole
        return shown + quiet(data), not whole
    # What the program has left on the main screen is there when it ends; itself it draws again.
    entered = [found.start() for found in _TO_ALTERNATE.finditer(data)]
    main = data[: entered[-1]] if entered else b""
    modes.feed(main)
    return shown + quiet(main) + modes.undone() + latest.sequences(), True


def for_empty(shown: bytes) -> bytes:
    """Return ``first_shown`` for a terminal that is empty: nothing has to be moved away first."""
    return _CLEAR.sub(b"", shown, count=1)


def put_back(modes: Modes, joined: bool) -> bytes:
    """Return what brings a client's terminal back to how it was before a program with these ``modes``.

    ``joined``: the terminal has got ``first_shown``, which keeps its title.
    """
    undone = modes.undone()
    if undone:
        # Margins, colours, character sets and a picture that is not finished belong to the program as well.
        undone = b"\x1b[?2026l\x1b7\x1b[r\x1b8\x1b[0m\x1b(B\x0f" + undone
    return undone + (b"\x1b[23;0t" if joined else b"")
