"""What is kept of a session's output, and how a page begins: every byte once, or a state that stands for it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import webshim.output
from sshgate.stream.modes import Modes
from webshim.output import Output
from webshim.protocol import Snapshot

chunks = st.lists(st.binary(min_size=1, max_size=6000), max_size=30)


def screen(offset: int) -> Snapshot:
    return Snapshot(offset, 80, 24, f"as after {offset}")


@given(chunks, st.integers(1, 20_000), st.randoms())
def test_whatever_is_in_the_ring_is_read_as_it_was_written(
    written: list[bytes], limit: int, chance: random.Random
) -> None:
    output = Output(limit)
    everything = b""
    for chunk in written:
        output.append(chunk)
        everything += chunk
    assert output.end == len(everything)
    assert output.end - output.start >= min(limit, output.end)
    offset = at = chance.randint(output.start, output.end)
    got = b""
    while data := output.read(at, chance.randint(1, 5000)):
        got += data
        at += len(data)
    assert got == everything[offset:]


@given(chunks, st.lists(st.integers(0, 60_000), max_size=5), st.none() | st.integers(0, 70_000))
def test_a_page_begins_where_its_state_is_known(written: list[bytes], snapshots: list[int], held: int | None) -> None:
    output = Output(10_000)
    for index, chunk in enumerate(written):
        output.append(chunk)
        if index < len(snapshots):
            output.keep(screen(snapshots[index]))
    start = output.begin(held, 80, 24)
    assert output.start <= start.offset <= output.end
    if start.snapshot is None:
        assert start.offset == held
    elif not start.redraw:
        assert start.snapshot.offset == start.offset
        assert start.snapshot.data == (
            "" if start.offset == 0 and not start.snapshot.data else f"as after {start.offset}"
        )


def test_snapshots_of_the_future_or_older_ones_are_of_no_use() -> None:
    output = Output()
    output.append(b"x" * 100)
    assert output.keep(screen(50))
    assert not output.keep(screen(49))
    assert not output.keep(screen(101))
    assert output.begin(None, 80, 24).offset == 50
    assert output.begin(70, 80, 24).snapshot is None


def test_a_lost_state_begins_at_a_line_with_the_modes_of_before() -> None:
    output = Output(10_000)
    output.append(b"\x1b[?1000h\x1b[?25l\x1b[?2004h" + b"x" * 9000 + b"\n")
    output.append(b"half a line \x1b[3")
    output.append(b"1m\nnext\n" + b"y" * 9000)
    start = output.begin(None, 80, 24)
    assert start.snapshot is not None
    assert start.redraw
    assert start.snapshot.data == "\x1b[?25l\x1b[?1000h\x1b[?2004h"
    assert output.read(start.offset, 4) == b"next"


def test_on_the_alternate_screen_nothing_old_is_shown() -> None:
    output = Output(10_000)
    output.append(b"\x1b[?1049h" + b"x" * 9000)
    output.append(b"\x1b[?1002h" + b"y" * 9000)
    start = output.begin(None, 80, 24)
    assert start.offset == output.end
    assert start.snapshot is not None
    assert start.snapshot.data == "\x1b[?1049h\x1b[?1002h"


def test_pages_that_come_again_and_again_read_the_ring_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All others wait meanwhile. What has come since counts all the same."""
    fed = 0

    class Counted(Modes):
        def feed(self, data: bytes) -> None:
            nonlocal fed
            fed += len(data)
            super().feed(data)

    monkeypatch.setattr(webshim.output, "Modes", Counted)
    output = Output(10_000)
    for number in range(3000):
        output.append(b"\x1b[?1049h\x1b[?1h" if number == 0 else b"\x1b[%d;1H" % number)
    first = output.begin(None, 80, 24)
    before = fed
    assert [output.begin(None, 80, 24) for _ in range(100)] == [first] * 100
    output.append(b"\x1b[?25l\x1b[?1l")
    start = output.begin(None, 80, 24)
    assert fed - before < 100
    assert (start.offset, start.snapshot and start.snapshot.data) == (output.end, "\x1b[?1049h\x1b[?25l")


def test_small_chunks_do_not_cost_a_hundred_times_their_size() -> None:
    output = Output()
    for _ in range(20_000):
        output.append(b"x")
    assert len(output._chunks) < 10


sequences = [
    b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?1;25h", b"\x1b[?25l", b"\x1b=", b"\x1b>", b"\x1b[4 q", b"text\r\n",
    b"\x1b[31m", b"\x1b", b"\x1b[?", b"\x1bc", b"\x1b[!p",
]  # fmt: skip


@given(st.lists(st.sampled_from(sequences), max_size=20), st.randoms())
def test_modes_are_the_same_however_the_output_is_cut(parts: list[bytes], chance: random.Random) -> None:
    data = b"".join(parts)
    whole, cut = Modes(), Modes()
    whole.feed(data)
    while data:
        size = chance.randint(1, 5)
        cut.feed(data[:size])
        data = data[size:]
    assert cut.sequences() == whole.sequences()
    again = Modes()
    again.feed(whole.sequences())
    assert again.sequences() == whole.sequences()


def test_a_reset_forgets_modes_and_a_fresh_terminal_needs_none() -> None:
    modes = Modes()
    modes.feed(b"\x1b[?1002;1006h\x1b[?1049h\x1b[6 q\x1b=")
    assert modes.alternate
    assert modes.sequences() == b"\x1b=\x1b[?1049h\x1b[?1002h\x1b[?1006h\x1b[6 q"
    modes.feed(b"\x1bc")
    assert (modes.sequences(), modes.alternate) == (b"", False)


def test_output_that_was_joined_begins_with_its_screen_until_the_ring_loses_what_follows() -> None:
    output = Output(10_000)
    output.restart(5_000, b"\x1b[?2004hscreen", b"\x1b[?2004h")
    output.append(b"later")
    assert output.restarts == 1
    start = output.begin(None, 80, 24)
    assert (start.offset, start.screen, start.redraw) == (5_000, b"\x1b[?2004hscreen", False)
    assert output.read(start.offset, 100) == b"later"
    assert output.begin(5_003, 80, 24).snapshot is None
    assert output.begin(4_999, 80, 24).offset == 5_000
    for _ in range(5):
        output.append(b"x" * 4_000)
    start = output.begin(None, 80, 24)
    assert (start.screen, start.redraw) == (b"", True)
    assert start.snapshot is not None
    assert start.snapshot.data == "\x1b[?2004h"


def test_output_that_only_a_page_knows_is_lost_without_its_snapshot() -> None:
    output = Output()
    output.resume(700)
    assert output.blank
    assert output.begin(700, 80, 24).snapshot is None
    output.append(b"more")
    assert output.begin(None, 80, 24).redraw
    assert output.keep(screen(702))
    assert not output.blank
    assert output.begin(None, 80, 24).offset == 702
