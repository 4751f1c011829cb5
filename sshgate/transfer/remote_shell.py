"""The start of every copy: one constant shell loop at the far end, and the scripts that are sent to it.

The loop prints which programs are available, reads one escaped line, evaluates it, and repeats. The command of the exec
or of ssh holds nothing about the copy, as its length is limited and it may be logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sshgate.sandbox.launcher import quote
from sshgate.stream.interfaces import STDOUT, Exited, Outcome, Process
from sshgate.transfer.partial_file import display_path

# It is passed to any login shell in single quotes, so it has neither single quotes nor exclamation marks.
# Applets of busybox that have no link of their own count as programs too.
BOOT = (
    r'LC_ALL=C;export LC_ALL;b=" $(busybox --list 2>/dev/null|busybox tr "\\n" " " 2>/dev/null) ";'
    r'while :;do printf "\\001sshgate-cp";'
    "for c in python3 tar sha256sum stat mv mkdir xargs tee touch chmod rm cat;do "
    'if command -v "$c" >/dev/null 2>&1;then printf " %s" "$c";else case "$b" in *" $c "*)'
    r'eval "$c(){ busybox $c \"\$@\";}";printf " %s" "$c";;esac;fi;done;printf "\\002";'
    'IFS= read -r l||exit 1;eval "$(printf %b "$l")";done'
)
BOOT_ARGV = ("/bin/sh", "-c", BOOT)
BOOT_COMMAND = f"exec /bin/sh -c '{BOOT}'"

_MARK = re.compile(rb"\x01sshgate-cp([ a-z0-9]*)\x02")
# Bytes of a mark, or of the sentence before an end, at most.
_LONGEST_MARK = 1024
# Bytes that a login shell may print before the loop starts, such as greetings.
_NOISE = 64 * 1024
# Bytes of the far end's stderr that are shown in total.
_COMPLAINTS = 64 * 1024


class RemoteFailure(Exception):
    """The far end failed, and with it the whole copy. The text is one sentence for the user."""


class RemoteShell:
    """The shell loop at the far end, or the program that it has started.

    Args:
        process: Runs the loop (``BOOT``). The caller closes it.
        warn: Called with each line of stderr, which is escaped for a terminal.
    """

    def __init__(self, process: Process, warn: Callable[[str], None]) -> None:
        self.process = process
        self._warn = warn
        self._buffered = b""
        self._complaint = b""
        self._complaints_left = _COMPLAINTS

    async def wait_for_programs(self) -> frozenset[str]:
        """Wait for the loop, and return the available programs. Raises ``RemoteFailure`` if no shell answers."""
        return frozenset((await self._read_mark()).decode().split())

    async def wait_for_word(self, word: bytes) -> bool:
        """Wait for the next mark, and return whether it is ``word``. Raises ``RemoteFailure`` if the far end has ended.

        False usually means that the program has exited and the mark was the loop's.
        """
        return (await self._read_mark()).strip() == word

    async def _read_mark(self) -> bytes:
        seen, noise = b"", 0
        while not (found := _MARK.search(seen)):
            if noise > _NOISE:
                raise RemoteFailure(
                    "the sandbox's shell printed 64 KiB of other output before the copy began: look at its start-up "
                    "files; nothing was copied."
                )
            data = await self.read()
            if data is None:
                raise RemoteFailure(await self._explain_end(seen))
            noise += len(data)
            seen = seen[-_LONGEST_MARK:] + data
        self._buffered = seen[found.end() :]
        return found[1]

    async def _explain_end(self, seen: bytes) -> str:
        output = re.search(rb"S([^\0]{1,500})\0\Z", seen)
        if output:
            return f"in the sandbox: {display_path(output[1])}"
        outcome = await self.process.wait()
        if isinstance(outcome, Exited) and outcome.status in (126, 127):
            return "the sandbox has no /bin/sh, which copying needs; nothing was copied."
        return f"{describe_end(outcome)} before the copy began; nothing was copied."

    async def read(self) -> bytes | None:
        """Return the next data of stdout; ``None`` at its end."""
        if self._buffered:
            buffered, self._buffered = self._buffered, b""
            return buffered
        while (chunk := await self.process.read()) is not None:
            if chunk[0] == STDOUT:
                return chunk[1]
            self._warn_of(chunk[1])
        self._warn_of(b"\n" if self._complaint else b"")
        return None

    def unread(self, data: bytes) -> None:
        """Put back data that belongs to the next ``read``."""
        self._buffered = data + self._buffered

    async def write(self, script: bytes) -> None:
        """Send a script for the loop to evaluate. The script ends the shell or returns to the loop."""
        escaped = re.sub(rb"[^\x20-\x5b\x5d-\x7e]", lambda byte: b"\\0%03o" % byte[0][0], script)
        await self.process.write(escaped + b"\n")

    def _warn_of(self, data: bytes) -> None:
        data = data[: self._complaints_left]
        self._complaints_left -= len(data)
        *lines, self._complaint = (self._complaint + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._warn(display_path(line.rstrip(b"\r")))


def describe_end(outcome: Outcome) -> str:
    """Describe how the far end has ended, as the beginning of a sentence."""
    if isinstance(outcome, Exited):
        return f"the far end ended with status {outcome.status}"
    return getattr(outcome, "reason", "").rstrip(".") or "a signal ended the far end"


def quote_words(*arguments: bytes) -> bytes:
    """Quote each argument for a shell, and join them to a command."""
    return b" ".join(map(quote, arguments))
