"""What a terminal is shown that joins a held session."""

from __future__ import annotations

import pytest

from sshgate.hold.screen import REPLAY, first_shown, put_back, quiet, title
from sshgate.stream.modes import Modes

QUERIES = [
    b"\x1b[c", b"\x1b[>c", b"\x1b[=0c", b"\x1b[6n", b"\x1b[?6n", b"\x1b[5n", b"\x1b[?2026$p", b"\x1b[4$p", b"\x1b[>0q",
    b"\x1b[?u", b"\x1b[14t", b"\x1b[18t", b"\x1b[21t", b"\x1b[x", b"\x1bZ", b"\x05", b"\x07", b"\x1b]10;?\x07",
    b"\x1b]4;1;?\x1b\\", b"\x1b]52;c;?\x07", b"\x1b]52;c;aGk=\x07", b"\x1b]9;ready\x07", b"\x1bP$qm\x1b\\",
    b"\x1bP+q544e\x1b\\", b"\x1b_Gi=1,a=q;AAAA\x1b\\", b"\x1b[1;1;1;1;1;1*y", b"\x1b[?1;1;0S", b"\x1b[0i",
]  # fmt: skip
SHOWN = [
    b"text\r\n", b"\x1b[31mred\x1b[0m", b"\x1b[2A\x1b[K", b"\x1b]0;title\x07", b"\x1b]8;;https://example.org\x1b\\",
    b"\x1b[?25l", b"\x1b[>1u", b"\x1b[4 q", b"\x1b]11;#000000\x07", b"\x1b[3;5H", b"\x1b7\x1b8",
    b"\x1b(0", b"\x1b[1;5r",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_nothing_is_shown_again_that_a_terminal_answers(query: bytes) -> None:
    assert quiet(b"before" + query + b"after") == b"beforeafter"


@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_on_the_screen_stays(shown: bytes) -> None:
    assert quiet(b"before" + shown + b"after") == b"before" + shown + b"after"


def test_the_beginning_of_a_sequence_stays_because_the_rest_of_it_follows() -> None:
    for beginning in (b"\x1b[", b"\x1b]0;tit", b"\x1bPq", b"\x1b"):
        assert quiet(b"x" + beginning) == b"x" + beginning


@pytest.mark.parametrize("piece", [b"\x1bP", b"\x1b]4;?", b"\x1b]4;" + b"?" * 500, b"\x1b[1;", b"\x1b_"])
def test_hostile_output_takes_no_more_than_its_length(piece: bytes) -> None:
    quiet(piece * (1_000_000 // len(piece)))


def test_the_title_is_the_last_one() -> None:
    assert title(b"\x1b]0;one\x07 \x1b]2;two \xc3\xa9\x1b\\ text") == "two é"
    assert title(b"none") == ""


def test_a_whole_shell_is_shown_without_a_redraw() -> None:
    shown, redraw = first_shown(Modes(), b"$ ls\r\na b\r\n$ ", whole=True, rows=24)
    assert shown.endswith(b"\x1b[H\x1b[2J$ ls\r\na b\r\n$ ")
    assert not redraw


def test_a_long_one_begins_with_a_line_and_the_modes_before_it() -> None:
    data = b"\x1b[?2004h" + b"line of text\r\n" * (REPLAY // 10)
    shown, redraw = first_shown(Modes(), data, whole=True, rows=24)
    assert b"\x1b[?2004h" + b"line of text\r\n" in shown
    assert len(shown) < REPLAY + 100
    assert redraw


def test_a_full_screen_program_whose_beginning_is_lost_has_its_modes_and_redraws() -> None:
    before = Modes()
    before.feed(b"\x1b[?1049h\x1b[?1002h")
    shown, redraw = first_shown(before, b"\x1b[5;5Hpiece\x1b[?25l", whole=False, rows=24)
    assert shown.endswith(b"\x1b[?1049h\x1b[?25l\x1b[?1002h")
    assert b"piece" not in shown
    assert redraw
    shown, redraw = first_shown(before, b"\x1b[5;5Hpiece\x1b[?1049l\x1b[?1002l$ ", whole=False, rows=24)
    assert b"piece" not in shown
    assert shown.endswith(b"$ ")


def test_the_terminal_is_put_back() -> None:
    modes = Modes()
    modes.feed(b"\x1b[?1049h\x1b[?2004h\x1b[?25l\x1b[?1002;1006h\x1b[>5u\x1b[>4;2m\x1b[5 q\x1b=")
    undone = put_back(modes, joined=True)
    after = Modes()
    after.feed(modes.sequences() + undone)
    assert after.sequences() == b""
    assert not after.alternate
    assert undone.endswith(b"\x1b[23;0t")
    assert put_back(Modes(), joined=False) == b""


def test_the_main_screen_is_behind_a_full_screen_program_and_the_title_is_there() -> None:
    data = b"$ vim\r\n\x1b[?2004h\x1b]0;first\x07\x1b[?1049h\x1b]2;the title\x07\x1b[5;5Hdrawn\x1b[?2004l"
    shown, redraw = first_shown(Modes(), data, whole=True, rows=24)
    assert redraw
    assert b"\x1b]2;the title\x07" in shown
    assert b"drawn" not in shown
    main, _, alternate = shown.partition(b"\x1b[?1049h")
    assert b"$ vim\r\n\x1b[?2004h" in main
    assert main.endswith(b"\x1b[?2004l")
    assert alternate == b""


def test_lines_that_are_drawn_in_place_are_not_wrapped_by_a_narrower_window() -> None:
    frames = b"one\r\ntwo\x1b[2K\x1b[1A\x1b[2K\x1b[Gone"
    narrow, _ = first_shown(Modes(), frames, whole=True, rows=24, narrower=True)
    assert narrow.endswith(b"\x1b[?7l" + frames + b"\x1b[?7h")
    for data, narrower in ((frames, False), (b"long lines\r\n" * 9, True)):
        assert first_shown(Modes(), data, whole=True, rows=24, narrower=narrower)[0].endswith(data)


@pytest.mark.parametrize("piece", [b"\x1b[1A", b"\x1b[?1;", b"\x1b[K\x1b[1", b"\x1b[?1049"])
def test_what_is_shown_first_is_found_in_time(piece: bytes) -> None:
    first_shown(Modes(), piece * (1_000_000 // len(piece)), whole=True, rows=24, narrower=True)
