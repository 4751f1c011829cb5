"""What terminals type by themselves: answers to queries of a program. Pure; also a part of the resident.

So: standard library only, Python 3.7, nothing of ours.
"""

from __future__ import annotations

import re

# Bytes of an answer that is not complete which are kept; the rest of it comes at once.
LONGEST = 4096
# Keys look alike: Alt with [, ], P or _ begins as answers do, so their third byte counts as well. Ctrl-F3 of some
# terminals is the same as a position of the cursor.
_ANSWER = re.compile(
    rb"\x1b(?:"
    rb"\[\?[0-9;:]*\$?[a-zA-Z]"  # attributes, status, modes, flags of the keyboard, colour scheme
    rb"|\[[>=][0-9;]*c"
    rb"|\[[0-9]+;[0-9]+R|\[[0-9]+n|\[[0-9;]+[tx]|\[[0-9;]+\$y"  # position, status, sizes, parameters, modes
    rb"|\[O"  # this window has lost the focus
    rb"|P[0-9>!][^\x1b]*\x1b\\|\][0-9][^\x07\x1b]*(?:\x07|\x1b\\)|_G[^\x1b]*\x1b\\"
    rb")"
)
_BEGUN = re.compile(
    rb"\x1b(?:\[[?>=][0-9;:$]*|\[[0-9][0-9;]*\$?|P[0-9>!][^\x1b]*\x1b?|\][0-9][^\x07\x1b]*\x1b?|_G[^\x1b]*\x1b?)\Z"
)


def without_answers(data: bytes) -> tuple[bytes, bytes]:
    """Return what a person has typed, and the beginning of what may be an answer, whose rest comes with the next input.

    A report that the window has lost the focus counts as an answer, one that it has got it does not: that is a person.
    """
    if b"\x1b" not in data:
        return data, b""
    data = _ANSWER.sub(b"", data)
    last = _BEGUN.search(data, max(0, len(data) - LONGEST))
    if last is None:
        return data, b""
    return data[: last.start()], data[last.start() :]
