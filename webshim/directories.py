"""Directories of a sandbox for browsers: the script that lists one in parts, and what its output says. Pure."""

from __future__ import annotations

import re
import stat
from typing import Any

PAGE = 500
"""Entries of one answer."""
LONGEST_OUTPUT = PAGE * (255 + 85) + 8192
"""Bytes of the script's output that are read: more than PAGE names and paths can have."""

# Runs in any POSIX shell with a `stat`. $p is the directory, $f the entries to leave out, $n how many follow, $m a mark
# that no name has. The output: the number of entries, the physical path, and for each entry its mode, size and time.
LIST = """\
cd "$p" 2>/dev/null || { [ -e "$p" ] || exit 44; [ -d "$p" ] || exit 45; exit 46; }
[ -r . ] || exit 46
LC_ALL=C; export LC_ALL
there() { [ -e "$1" ] || [ -L "$1" ]; }
set -- *; there "$1" || shift
set -- ..?* "$@"; there "$1" || shift
set -- .[!.]* "$@"; there "$1" || shift
echo "$#"; pwd -P; echo "$m"
[ "$f" -lt $# ] || exit 0
shift "$f"
i=1; w=
while [ "$i" -le "$n" ] && [ "$i" -le $# ]; do w="$w \\"\\${$i}\\""; i=$((i + 1)); done
eval "stat -c '$m %f %s %Y %n' -- $w" 2>/dev/null
exit 0
"""

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
_ENTRY = re.compile(rb" ([0-9a-f]{1,8}) ([0-9]{1,19}) (-?[0-9]{1,19}) (.+)", re.DOTALL)


class Nonsense(ValueError):
    """The output is not the script's: other programs of the user may write to it."""


def parse(output: bytes, mark: str) -> dict[str, Any]:
    """Return the path, the number of entries, and those of this part: name, kind, size, mode and time.

    A name may hold what it likes, also line ends; bytes that are no text are replaced, and the entry has ``"text":
    false``, as all have where the path has such bytes. Raises ``Nonsense``.
    """
    head, *parts = output.split(mark.encode())
    count, newline, path = head.partition(b"\n")
    if not newline or not count.isdigit() or len(count) > 9 or not path.startswith(b"/") or not parts:
        raise Nonsense
    place = path.removesuffix(b"\n")
    shown = place.decode("utf-8", "replace")
    entries = [_entry(part) for part in parts[1 : PAGE + 1]]
    if shown.encode() != place:
        entries = [{**entry, "text": False} for entry in entries]
    return {"path": shown, "total": int(count), "entries": entries}


def _entry(part: bytes) -> dict[str, Any]:
    found = _ENTRY.fullmatch(part.removesuffix(b"\n"))
    if found is None:
        raise Nonsense
    mode, size, changed, name = found.groups()
    bits, text = int(mode, 16), name.decode("utf-8", "replace")
    return {
        "name": text,
        "text": text.encode() == name,
        "kind": _KINDS.get(stat.S_IFMT(bits), "other"),
        "size": int(size),
        "mode": f"{stat.S_IMODE(bits):o}",
        "mtime": int(changed),
    }
