"""A held session whose sandbox lies: its own session ends with a sentence, and the gateway's memory stays bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, cast

import pytest

from sshgate.errors import LimitReached, StartFailed
from sshgate.hold import listing, process
from sshgate.hold.answers import GONE, State
from sshgate.hold.frames import HEAD, OFFSET, Kind
from sshgate.hold.line import LONGEST, MISSING, SOURCE, Line, NoResident, OtherVersion, _hello
from sshgate.hold.process import (
    CONNECTED,
    INPUT_CHUNK,
    KEPT_INPUT,
    LARGEST_SCREEN,
    REOPENING,
    TAMPERED,
    HeldProcess,
)
from sshgate.hold.wishes import SCREEN, SCREEN_HEAD, Wish
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import Program
from sshgate.session.held import enter
from sshgate.stream.interfaces import STDERR, STDOUT, Control, Exited, Lost, Outcome, Request, Shell, Signalled
from sshgate.stream.terminal import Terminal

JOINED = {"name": "1", "id": "a" * 16, "pid": 42, "made": True, "received": 0, "offset": 0, "past": []}


class Exec:
    """The process of an exec in a sandbox whose program is in hostile hands: it sends what a test puts in."""

    pid: int | None = 7

    def __init__(self) -> None:
        self.output: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.written = b""
        self.closed = False

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.output.put_nowait(HEAD.pack(kind, len(payload)) + payload)

    def answer(self, **changes: Any) -> None:
        self.send(Kind.JOINED, json.dumps({**JOINED, **changes}).encode())

    async def read(self) -> tuple[int, bytes] | None:
        data = await self.output.get()
        return None if data is None else (STDOUT, data)

    async def write(self, data: bytes) -> None:
        self.written += data

    async def write_eof(self) -> None:
        pass

    async def control(self, control: Control) -> None:
        pass

    async def wait(self) -> Outcome:
        return Lost("closed")

    async def close(self) -> None:
        self.closed = True


class Gone:
    """A sandbox in which nothing can be started any more."""

    usable = False


@pytest.fixture
async def far() -> Exec:
    return Exec()


@pytest.fixture
async def held(far: Exec) -> AsyncIterator[HeldProcess]:
    async def alive() -> bool:
        return True

    made = HeldProcess(cast(Sandbox, Gone()), Line(far, b""), Wish("auto"), alive)
    yield made
    await made.close()
    assert far.closed


async def launched(held: HeldProcess, far: Exec) -> None:
    far.answer()
    await held.launch(Program(Request(Shell(), Terminal())))


async def ended(held: HeldProcess) -> Outcome:
    async with asyncio.timeout(10):
        while await held.read() is not None:
            pass
        return await held.wait()


HOSTILE: dict[str, tuple[int, bytes]] = {
    "a kind that does not exist": (77, b""),
    "a frame from the gateway": (Kind.INPUT, OFFSET.pack(0)),
    "output without an offset": (Kind.OUTPUT, b"abc"),
    "output from ahead": (Kind.OUTPUT, OFFSET.pack(5) + b"x"),
    "output from before": (Kind.OUTPUT, OFFSET.pack(2**64 - 1) + b"x"),
    "input that was not sent": (Kind.TAKEN, OFFSET.pack(1)),
    "all input there could be": (Kind.TAKEN, OFFSET.pack(2**64 - 1)),
    "an end without a status": (Kind.ENDED, b"[]"),
    "a status that is none": (Kind.ENDED, b'["exit", 256]'),
    "a signal that is none": (Kind.ENDED, b'["signal", 200]'),
    "no JSON": (Kind.ENDED, b"\xff"),
    "deep JSON": (Kind.ENDED, b"[" * 60_000),
    "a second session": (Kind.JOINED, json.dumps(JOINED).encode()),
    "a refusal of nothing": (Kind.FAILED, b"full"),
    "a state without a size": (Kind.STATE, b'{"watchers": []}'),
    "a size of words": (Kind.STATE, b'{"size": ["a", 1]}'),
    "watchers that are no list": (Kind.STATE, b'{"size": [80, 24], "watchers": 5}'),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_lie_ends_the_session(held: HeldProcess, far: Exec, name: str) -> None:
    await launched(held, far)
    far.send(*HOSTILE[name])
    assert await ended(held) == Lost(TAMPERED)


async def test_a_state_is_cut_to_what_a_terminal_and_a_page_can_show(held: HeldProcess, far: Exec) -> None:
    states: list[State] = []
    held.changed = states.append
    await launched(held, far)
    sources = ["\x1b[2J192.0.2.7", "x" * 999, *("y",) * 999]
    far.send(Kind.STATE, json.dumps({"size": [10**9, -1], "watchers": sources}).encode())
    async with asyncio.timeout(5):
        while not states:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (states[0].columns, states[0].rows, len(states[0].watchers)) == (65_535, 1, 64)
    assert states[0].watchers[:2] == ("[2J192.0.2.7", "x" * 45)


async def test_who_watches_is_after_a_lost_exec_still_who_watches(far: Exec, monkeypatch: pytest.MonkeyPatch) -> None:
    async def alive() -> bool:
        return True

    wish = Wish("watch", placed=True, id="a" * 16)
    made = HeldProcess(cast(Sandbox, Gone()), Line(far, b""), wish, alive)
    far.answer(made=False)
    await made.launch(Program(Request(Shell(), Terminal())))
    other = await again(made, far, monkeypatch, 0, "find")
    await asyncio.sleep(0.1)
    for one in (far, other):
        assert json.loads(one.written[HEAD.size :][: HEAD.unpack_from(one.written)[1]])["how"] == "watch"

    async def none(sandbox: Sandbox, joins: bool) -> None:
        return None

    # Where no resident runs any more, it does not start one.
    monkeypatch.setattr(Line, "find", none)
    other.output.put_nowait(None)
    assert await ended(made) == Lost(GONE)
    await made.close()


async def test_a_frame_that_is_too_long_is_not_waited_for(held: HeldProcess, far: Exec) -> None:
    await launched(held, far)
    far.output.put_nowait(HEAD.pack(Kind.OUTPUT, LONGEST + 1))
    assert await ended(held) == Lost(TAMPERED)


@pytest.mark.parametrize(
    "changes",
    [{"name": "x\x1b[2J"}, {"name": 5}, {"id": None}, {"pid": 1}, {"pid": -5}, {"pid": 2**40}, {"pid": True},
     {"offset": "0"}, {"offset": -1}, {"offset": 2**53 + 1},
     {"received": 9}, {"past": [1]}, {"past": [{"status": ["exit", "x"]}]}, {"id": "a b"},
     {"past": [{"name": "x", "program": "p", "status": ["exit", 1]}]}],
    ids=str,
)  # fmt: skip
async def test_a_lie_in_the_answer_is_a_failed_start(held: HeldProcess, far: Exec, changes: dict[str, Any]) -> None:
    far.answer(**changes)
    with pytest.raises(StartFailed):
        await held.launch(Program(Request(Shell(), Terminal())))


async def test_a_full_sandbox_is_a_limit(held: HeldProcess, far: Exec) -> None:
    far.send(Kind.FAILED, b"full")
    with pytest.raises(LimitReached):
        await held.launch(Program(Request(Shell(), Terminal())))


async def test_output_that_the_client_does_not_read_is_not_read_either(held: HeldProcess, far: Exec) -> None:
    await launched(held, far)
    for number in range(100):
        far.send(Kind.OUTPUT, OFFSET.pack(number * 16384) + bytes(16384))
    async with asyncio.timeout(10):
        while far.output.qsize() > 95:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert 85 < far.output.qsize() < 93
    far.send(Kind.ENDED, b'["exit", 3]')
    assert await ended(held) == Exited(3)


async def test_input_that_is_not_taken_stops_the_client(held: HeldProcess, far: Exec) -> None:
    await launched(held, far)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await held.write(bytes(10 * KEPT_INPUT))
    assert KEPT_INPUT // 2 < len(far.written) < 2 * KEPT_INPUT
    far.send(Kind.TAKEN, OFFSET.pack(KEPT_INPUT // 2))
    async with asyncio.timeout(5):
        await held.write(b"more")


async def test_a_sandbox_that_has_ended_is_a_sentence(held: HeldProcess, far: Exec) -> None:
    await launched(held, far)
    far.output.put_nowait(None)
    assert await ended(held) == Lost("the sandbox has ended, and the session with it.")


async def test_a_signal_is_an_outcome_and_modes_are_put_back(held: HeldProcess, far: Exec) -> None:
    await launched(held, far)
    far.send(Kind.OUTPUT, OFFSET.pack(0) + b"\x1b[?1049h\x1b[?2004h")
    far.send(Kind.ENDED, b'["signal", 9]')
    assert await ended(held) == Signalled("KILL")
    assert held.put_back().endswith(b"\x1b[?2004l\x1b[?1049l")


async def test_input_waits_for_an_exec_that_takes_none_whatever_it_reports_as_taken(
    held: HeldProcess, far: Exec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await launched(held, far)
    stuck = asyncio.Event()

    async def never(data: bytes) -> None:
        await stuck.wait()

    monkeypatch.setattr(far, "write", never)
    sent = 0

    async def type_on() -> None:
        nonlocal sent
        while True:
            await held.write(b"x" * INPUT_CHUNK)
            sent += INPUT_CHUNK
            far.send(Kind.TAKEN, OFFSET.pack(sent))

    typing = asyncio.create_task(type_on())
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.1)
    typing.cancel()
    assert sent < 8 * KEPT_INPUT
    stuck.set()


async def test_output_that_comes_before_the_answer_to_a_resumption_ends_the_session(
    held: HeldProcess, far: Exec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await launched(held, far)
    again = Exec()

    async def opened(sandbox: Sandbox) -> Line:
        again.send(Kind.OUTPUT, OFFSET.pack(0) + b"x")
        return Line(again, b"")

    monkeypatch.setattr(Line, "open", opened)
    monkeypatch.setattr(Gone, "usable", True)
    far.output.put_nowait(None)
    assert await ended(held) == Lost(TAMPERED)
    assert again.closed


async def test_an_end_is_reported_and_a_resident_that_takes_no_note_is_not_waited_for(
    held: HeldProcess, far: Exec
) -> None:
    await launched(held, far)
    far.send(Kind.ENDED, b'["exit", 3]')
    assert await ended(held) == Exited(3)
    reporting = asyncio.create_task(held.report())
    async with asyncio.timeout(5):
        while HEAD.pack(Kind.REPORTED, 16) + b"a" * 16 not in far.written:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        far.send(Kind.PONG)
        await reporting
        await held.report()


@pytest.mark.parametrize("scripted", [False, True])
async def test_the_end_of_input_waits_only_where_it_may_be_that_of_a_window(
    held: HeldProcess, far: Exec, scripted: bool
) -> None:
    far.answer()
    await held.launch(Program(Request(Shell(), Terminal(scripted=scripted))))
    ending = asyncio.create_task(held.write_eof())
    await asyncio.sleep(0.1)
    assert far.written.endswith(b"\x04") is scripted
    ending.cancel()


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (b'[{"name": "build", "status": null}]', OtherVersion, r"\(build\)"),
        (b'[{"name": "\\u001b[2J", "status": null}, {"name": "x", "status": null}]', OtherVersion, r"\(\?, x\)"),
        (b'[{"status": null}]', NoResident, "broke its rules"),
        (b"{", NoResident, "broke its rules"),
        (b"[" * 60_000, NoResident, "broke its rules"),
        (b"7", NoResident, "broke its rules"),
    ],
)
async def test_a_resident_of_another_version_is_a_sentence_whatever_it_answers(
    far: Exec, monkeypatch: pytest.MonkeyPatch, answer: bytes, error: type[NoResident], sentence: str
) -> None:
    far.output.put_nowait(b"sshgate hold 12\n")
    assert await _hello(far, b"") == (b"sshgate hold 12\n", b"")

    async def begin(*_: object) -> tuple[Line, bytes]:
        return Line(far, b""), b"sshgate hold 12\n"

    monkeypatch.setattr(Line, "_begin", begin)
    far.send(Kind.LISTED, answer)
    async with asyncio.timeout(5):
        with pytest.raises(error, match=sentence):
            await Line.fresh(cast(Sandbox, Gone()))
    assert far.closed


async def test_the_program_of_a_resident_is_sent_in_pieces() -> None:
    """A connection keeps a buffer for the largest write it had, and one of a warm pod waits for hours."""
    sizes: list[int] = []

    class Warm(Exec):
        async def write(self, data: bytes) -> None:
            sizes.append(len(data))

    far = Warm()
    far.output.put_nowait(MISSING)
    far.output.put_nowait(b"sshgate hold 12\n")
    assert (await _hello(far, SOURCE))[0]
    assert sum(sizes) == len(SOURCE)
    assert max(sizes) <= 8192


@pytest.fixture
async def placed(far: Exec) -> AsyncIterator[HeldProcess]:
    """Of a client that keeps its place."""

    async def alive() -> bool:
        return True

    made = HeldProcess(cast(Sandbox, Gone()), Line(far, b""), Wish("named", "build", placed=True), alive)
    yield made
    await made.close()


async def test_a_screen_comes_whole_and_stands_for_what_was_not_read_yet(placed: HeldProcess, far: Exec) -> None:
    await launched(placed, far)
    far.send(Kind.OUTPUT, OFFSET.pack(0) + b"old")
    far.send(Kind.SCREEN, OFFSET.pack(900) + b"\x1b[22;0t\x1b[0m\x1b[999;1H\n\n\x1b[H\x1b[2Jfirst\x1b[?2004h")
    far.send(Kind.SCREEN, OFFSET.pack(900) + b" second")
    far.send(Kind.OUTPUT, OFFSET.pack(900))
    far.send(Kind.OUTPUT, OFFSET.pack(900) + b"new")
    await asyncio.sleep(0.1)
    assert await placed.read() == (SCREEN, SCREEN_HEAD.pack(900, 8) + b"\x1b[?2004hfirst\x1b[?2004h second")
    assert await placed.read() == (STDOUT, b"new")


async def test_screens_without_an_end_take_bounded_memory(placed: HeldProcess, far: Exec) -> None:
    await launched(placed, far)
    for _ in range(LARGEST_SCREEN // LONGEST + 2):
        far.send(Kind.SCREEN, OFFSET.pack(1) + bytes(LONGEST - 8))
    assert await ended(placed) == Lost(TAMPERED)


async def test_a_flood_of_screens_leaves_the_last(placed: HeldProcess, far: Exec) -> None:
    await launched(placed, far)
    for number in range(1, 200):
        far.send(Kind.SCREEN, OFFSET.pack(number) + b"%d" % number)
        far.send(Kind.OUTPUT, OFFSET.pack(number))
    await asyncio.sleep(0.2)
    assert await placed.read() == (SCREEN, SCREEN_HEAD.pack(199, 0) + b"199")


@pytest.mark.parametrize("changes", [{"offset": 99}, {"offset": 101}, {"id": "b" * 16}], ids=str)
async def test_a_session_is_resumed_where_the_client_was_or_not_at_all(far: Exec, changes: dict[str, Any]) -> None:
    async def alive() -> bool:
        return True

    wish = Wish("resume", placed=True, id="a" * 16, offset=100)
    made = HeldProcess(cast(Sandbox, Gone()), Line(far, b""), wish, alive)
    far.answer(**{"offset": 100, "made": False, **changes})
    with pytest.raises(StartFailed):
        await launched(made, far)
    await made.close()


async def again(
    placed: HeldProcess, far: Exec, monkeypatch: pytest.MonkeyPatch, offset: int, how: str = "open"
) -> Exec:
    """Lose the exec, and answer the next one."""
    other = Exec()

    async def opened(sandbox: Sandbox, joins: bool = False) -> Line:
        other.answer(offset=offset, made=False)
        return Line(other, b"")

    monkeypatch.setattr(Line, how, opened)
    monkeypatch.setattr(Gone, "usable", True)
    far.output.put_nowait(None)
    await asyncio.sleep(0.1)
    return other


async def test_a_screen_that_was_cut_off_counts_for_nothing(
    placed: HeldProcess, far: Exec, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.answer(offset=900, made=False)
    await placed.launch(Program(Request(Shell(), Terminal())))
    far.send(Kind.SCREEN, OFFSET.pack(900) + b"half of\x1b[?2004h")
    await asyncio.sleep(0.05)
    other = await again(placed, far, monkeypatch, 0)
    assert b'"offset": 0' in other.written
    other.send(Kind.SCREEN, OFFSET.pack(950) + b"whole")
    other.send(Kind.OUTPUT, OFFSET.pack(950))
    other.send(Kind.OUTPUT, OFFSET.pack(950) + b"new")
    await asyncio.sleep(0.1)
    assert await placed.read() == (SCREEN, SCREEN_HEAD.pack(950, 0) + b"whole")
    # It took what is above with it, and the client must know that it is connected.
    assert await placed.read() == (STDERR, CONNECTED)
    assert await placed.read() == (STDOUT, b"new")


async def test_after_a_screen_that_was_cut_off_output_comes_from_its_beginning(
    placed: HeldProcess, far: Exec, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.answer(offset=900, made=False)
    await placed.launch(Program(Request(Shell(), Terminal())))
    other = await again(placed, far, monkeypatch, 0)
    other.send(Kind.OUTPUT, OFFSET.pack(0) + b"all")
    assert await placed.read() == (STDERR, REOPENING + CONNECTED)
    assert await placed.read() == (STDOUT, b"all")


@pytest.mark.parametrize(("last", "kind"), [(b"none\n", NoResident), (b"sshgate hold", StartFailed)])
async def test_an_exec_that_breaks_does_not_count_as_a_sandbox_without_python(
    far: Exec, last: bytes, kind: type[Exception]
) -> None:
    far.output.put_nowait(last)
    far.output.put_nowait(None)
    with pytest.raises(kind):
        await _hello(far, b"")


async def test_a_resumption_that_finds_no_resident_runs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async def opened(sandbox: Sandbox) -> Line:
        raise NoResident("no python3")

    monkeypatch.setattr(Line, "open", opened)
    wish = Wish("resume", placed=True, id="a" * 16, offset=100)
    with pytest.raises(NoResident):
        await enter(cast(Sandbox, Gone()), cast(Any, None), wish, cast(Any, None))


@pytest.mark.parametrize(
    ("answers", "result"), [(["none"], False), (["", "none"], True), (["", "", "none"], True), ([""] * 4, None)]
)
async def test_a_session_is_hung_up_until_it_has_ended(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], result: bool | None
) -> None:
    async def found(sandbox: Sandbox) -> Line:
        far, answer = Exec(), answers.pop(0)
        far.send(Kind.FAILED if answer else Kind.LISTED, answer.encode() or b"[]")
        return Line(far, b"")

    monkeypatch.setattr(Line, "find", found)
    monkeypatch.setattr(listing, "END_PAUSES", (0.0,) * 4)
    with pytest.raises(StartFailed, match="goes on") if result is None else nullcontext():
        assert await listing.end(cast(Sandbox, Gone()), "build") is result
    assert answers == []


async def test_an_end_that_did_not_happen_is_no_end(
    held: HeldProcess, monkeypatch: pytest.MonkeyPatch, far: Exec
) -> None:
    await launched(held, far)
    monkeypatch.setattr(process, "END_SECONDS", 0.02)
    assert not await held.end()
    far.send(Kind.ENDED, b'["signal", 1]')
    await asyncio.sleep(0.05)
    assert await held.end()
