"""The start of a copy, with a far end that prints what it likes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sshgate.stream.interfaces import STDOUT, Exited, Outcome
from sshgate.transfer import remote_shell
from sshgate.transfer.remote_shell import RemoteFailure, RemoteShell
from tests.rig.ends import TestProcess

MARK = b"\x01sshgate-cp python3 tar\x02"


class Printing(TestProcess):
    """Prints these pieces, one for each read, and ends."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__()
        self._pieces = list(reversed(pieces))

    async def read(self) -> tuple[int, bytes] | None:
        return (STDOUT, self._pieces.pop()) if self._pieces else None

    async def wait(self) -> Outcome:
        return Exited(1)


def bytewise(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


async def test_a_mark_in_small_pieces_behind_a_greeting_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = remote_shell._MARK
    searched = 0

    class Counting:
        def search(self, text: bytes) -> object:
            nonlocal searched
            searched += len(text)
            return pattern.search(text)

    monkeypatch.setattr(remote_shell, "_MARK", Counting())
    shell = RemoteShell(Printing([*bytewise(b"welcome " * 2000 + MARK), b"rest"]), print)
    assert await shell.wait_for_programs() == {"python3", "tar"}
    assert await shell.read() == b"rest"
    assert searched < 17_000 * 1100


async def test_a_greeting_without_an_end_and_the_reason_of_an_end_are_sentences() -> None:
    with pytest.raises(RemoteFailure, match="64 KiB of other output"):
        await RemoteShell(Printing([b"y\n" * 1000] * 40), print).wait_for_programs()
    with pytest.raises(RemoteFailure, match="in the sandbox: no such place"):
        await RemoteShell(Printing([b"y" * 5000, *bytewise(b"\0Sno such place\0")]), print).wait_for_programs()
