"""Attaching to a resident, in a sandbox that prints what a test has it print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import pytest

from sshgate.errors import Unavailable
from sshgate.hold import line, listing
from sshgate.hold.frames import FULL, HEAD, HELLO, OFFSET, Kind
from sshgate.hold.line import LONGEST, MISSING, NO_PLACE, NONE, Broken, CannotHold, NoResident
from sshgate.hold.process import HeldProcess
from sshgate.hold.wishes import Wish
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import Program
from sshgate.stream.interfaces import STDOUT, Exited, Lost, Outcome, Process, Request, Shell
from sshgate.stream.terminal import Terminal
from tests.rig.ends import TestProcess, TestSandbox

DONE = Exited(0)
BUILD = {
    "id": "a" * 16, "name": "build", "program": "make", "title": "", "from": [], "watchers": [], "size": [80, 24],
    "created": 0, "detached": 0, "ended": 0, "last_output": 0, "status": None,
}  # fmt: skip


class Printing(TestSandbox):
    """Its programs print these texts, one each, and end like this; then no program can be started."""

    def __init__(self, *texts: bytes, outcome: Outcome = DONE) -> None:
        super().__init__()
        self._texts = list(texts)
        self._outcome = outcome

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        if not self._texts:
            raise Unavailable("the API server does not answer.")
        process = TestProcess()
        process.pid = None
        if text := self._texts.pop(0):
            process.output.put(text, STDOUT)
        process.end(self._outcome)
        return process


def as_sandbox(printing: Printing) -> Sandbox:
    return cast(Sandbox, printing)


def frame(kind: int, answer: object) -> bytes:
    payload = json.dumps(answer).encode()
    return HEAD.pack(kind, len(payload)) + payload


async def others(*texts: bytes, outcome: Outcome = DONE) -> bool:
    return await listing.others(as_sandbox(Printing(*texts, outcome=outcome)), "mine")


async def test_who_cannot_be_asked_for_may_be_in_a_sandbox() -> None:
    """What a browser leaves is deleted only if nobody else is in it."""
    assert await others(), "no program can be started"
    assert await others(b"", outcome=Lost("the connection broke"))
    assert await others(b"", outcome=Exited(137)), "python3 was killed for want of memory"
    assert await others(FULL)
    assert await others(HELLO, outcome=Lost("the resident is stopped"))
    assert await others(HELLO + frame(Kind.LISTED, {"no": "list"}))
    assert await others(HELLO + frame(Kind.LISTED, [BUILD]))


async def test_a_sandbox_that_holds_nothing_has_nobody_else() -> None:
    assert not await others(NONE)
    assert not await others(MISSING)
    assert not await others(HELLO + frame(Kind.LISTED, []))
    assert not await others(HELLO + frame(Kind.LISTED, [{**BUILD, "name": "mine"}, {**BUILD, "status": ["exit", 0]}]))


async def test_a_resident_that_ends_at_this_moment_is_asked_for_once_more() -> None:
    answer = HELLO + frame(Kind.LISTED, [])
    assert not await others(b"", answer), "it ended before it greeted"
    assert not await others(HELLO, answer), "it ended before it answered"
    assert await others(b"", b"", answer)
    assert await others(HELLO, HELLO, answer)


class _Pieces(TestProcess):
    """Prints these pieces, one for each read, and fails."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__()
        self._pieces = list(pieces)

    async def read(self) -> tuple[int, bytes] | None:
        return (STDOUT, self._pieces.pop(0)) if self._pieces else None

    async def wait(self) -> Outcome:
        return Exited(1)


@pytest.mark.parametrize(
    ("pieces", "kind"), [([NONE], CannotHold), ([MISSING, NO_PLACE], CannotHold), ([], NoResident)]
)
async def test_only_a_sandbox_without_python3_or_place_cannot_hold(pieces: list[bytes], kind: type[NoResident]) -> None:
    with pytest.raises(NoResident) as caught:
        await line._hello(_Pieces(pieces), b"source")
    assert type(caught.value) is kind


async def test_a_hello_in_small_pieces_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = line._HELLO
    searched = 0

    class Counting:
        def search(self, text: bytearray, start: int = 0) -> object:
            nonlocal searched
            searched += len(text) - start
            return pattern.search(text, start)

    monkeypatch.setattr(line, "_HELLO", Counting())
    noise = [b"s"] * (LONGEST // 2)
    assert await line._hello(_Pieces([*noise, *(HELLO[at : at + 1] for at in range(len(HELLO)))]), b"") == (HELLO, b"")
    assert searched < 40 * LONGEST
    with pytest.raises(NoResident):
        await line._hello(_Pieces([b"s"] * 2 * LONGEST), b"")


async def alive() -> bool:
    return True


JOINED = {"name": "1", "id": "a" * 16, "pid": 42, "made": False, "received": 0, "offset": 0, "end": 0, "past": []}


async def test_a_login_whose_resident_ends_at_this_moment_gets_another() -> None:
    joined = HELLO + frame(Kind.JOINED, {**JOINED, "made": True}) + frame(Kind.ENDED, ["exit", 3])
    held = await HeldProcess.attach(as_sandbox(Printing(HELLO, joined)), Wish("new"), alive)
    await held.launch(Program(Request(Shell(), Terminal())))
    assert held.made
    await held.close()
    again = await HeldProcess.attach(as_sandbox(Printing(HELLO, HELLO, joined)), Wish("new"), alive)
    with pytest.raises(Broken, match="try again"):
        await again.launch(Program(Request(Shell(), Terminal())))
    await again.close()


async def test_a_session_whose_sandbox_can_start_nothing_for_a_moment_goes_on() -> None:
    """Such as one without memory for another python3: its session runs."""

    output = HEAD.pack(Kind.OUTPUT, OFFSET.size + 2) + OFFSET.pack(0) + b"on"
    ended = frame(Kind.ENDED, ["exit", 3])
    first, later = frame(Kind.JOINED, {**JOINED, "made": True}), frame(Kind.JOINED, JOINED) + output + ended
    sandbox = as_sandbox(Printing(HELLO + first, b"", HELLO + later, outcome=Exited(137)))
    held = await HeldProcess.attach(sandbox, Wish("new"), alive)
    await held.launch(Program(Request(Shell(), Terminal())))
    shown = b""
    while (chunk := await held.read()) is not None:
        shown += chunk[1]
    assert shown.endswith(b"on")
    assert await held.wait() == Exited(3)
    await held.close()
