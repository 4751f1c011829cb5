"""What copies by tar and by plain sh share: the shell functions at the far end, and the parser of their answers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib import resources

from sshgate.transfer.display import Display
from sshgate.transfer.partial_file import display_path
from sshgate.transfer.records import ProtocolError
from sshgate.transfer.remote_shell import RemoteFailure, RemoteShell, ended, words
from sshgate.transfer.sender import landing_name

_ANSWERS = 64 * 1024


def functions() -> bytes:
    """Return the shell functions of ``far.sh``, without comments and indentation."""
    text = resources.files("sshgate.transfer").joinpath("far.sh").read_text("ascii")
    return re.sub(r"(?m)^\s*#.*\n|^\s+", "", text).encode()


def begin(sources: list[bytes], destination: bytes, token: str) -> bytes:
    """Return the command that enters the destination at the far end.

    Args:
        token: A random string for the names of temporary files.
    """
    name = landing_name(sources[0]) if len(sources) == 1 else b""
    return words(b"begin", destination, name, token.encode())


def parted(path: bytes) -> tuple[bytes, bytes]:
    """Split a source into its directory and the name to read there, as shell words. A trailing slash follows a link."""
    if path.endswith(b"/") or landing_name(path) == b".":
        return b'"$(home %s)"' % words(path or b"."), words(b".")
    head, slash, last = path.rpartition(b"/")
    if path == b"~":
        return b'"$HOME"', words(b".")
    return b'"$(home %s)"' % words(head or (b"/" if slash else b".")), words(last)


async def answers(shell: RemoteShell) -> AsyncIterator[tuple[bytes, bytes]]:
    """Yield each answer as (kind, rest) up to the end of the output. Raises ``ProtocolError`` if one is too long."""
    waiting = b""
    while (data := await shell.read()) is not None:
        *whole, waiting = (waiting + data).split(b"\0")
        if len(waiting) > _ANSWERS:
            raise ProtocolError("it sent something that is not part of a copy")
        for answer in whole:
            yield answer[:1], answer[1:]


async def verdict(shell: RemoteShell, display: Display) -> int:
    """Read the answers to an upload up to the last, and report failed entries to ``display``.

    Returns:
        The number of entries that the far end has put in place; 0 for a copy by tar, which does not count them.

    Raises:
        FarFailure: The far end stopped the copy or was cut off.
        ProtocolError: An answer is not valid.
    """
    async for kind, rest in answers(shell):
        if kind == b"P":
            why, _, path = rest.partition(b"\n")
            display.fail(path.removeprefix(b"./"), why.decode("utf-8", "replace"))
        elif kind == b"S":
            raise RemoteFailure(f"in the sandbox: {display_path(rest)}")
        elif kind == b"D" and rest.isdigit():
            return int(rest[:18])
        else:
            raise ProtocolError("it sent something that is not part of a copy")
    raise RemoteFailure(f"{ended(await shell.process.wait())} in the middle of the copy, which is not complete.")
