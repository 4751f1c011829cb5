"""What of a client's input is an answer of its terminal, which only the active client may give."""

from __future__ import annotations

import pytest

from sshgate.hold.replies import LONGEST, without_answers

ANSWERS = [
    b"\x1b[?62;22c", b"\x1b[>0;276;0c", b"\x1b[12;40R", b"\x1b[?12;40R", b"\x1b[0n", b"\x1b[?13n", b"\x1b[?2026;2$y",
    b"\x1b[4;1$y", b"\x1b[?1u", b"\x1b[8;24;80t", b"\x1b[4;600;800t", b"\x1b[6;16;8t", b"\x1b[48;24;80;600;800t",
    b"\x1b[2;1;1;128;128;1;0x", b"\x1bP>|xterm(390)\x1b\\", b"\x1bP1$r0m\x1b\\", b"\x1bP1+r544e=787465726d\x1b\\",
    b"\x1bP!|00000000\x1b\\", b"\x1b]11;rgb:0000/0000/0000\x07", b"\x1b]4;1;rgb:cd/00/00\x1b\\", b"\x1b]52;c;aGk=\x07",
    b"\x1b_Gi=1;OK\x1b\\", b"\x1b[?997;1n", b"\x1b[O",
]  # fmt: skip
KEYS = [
    b"text\r", b"\x1b", b"\x1b[A", b"\x1b[1;5C", b"\x1bOP", b"\x1b[15~", b"\x1b[97;5u", b"\x1b[57362;1u", b"\x1b[I",
    b"\x1b[<0;10;20M", b"\x1b[M !!", b"\x1b[200~pasted\x1b[201~", b"\x1b[27;5;97~", b"\x1b[Z", b"\x1bP", b"\x1b]",
    b"\x1b_", b"\x1b[", b"\x1bx", b"\xc3\xa4",
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_are_taken_out_whole_or_in_pieces(answer: bytes) -> None:
    assert without_answers(b"a" + answer + b"b") == (b"ab", b"")
    for at in range(3, len(answer)):
        typed, begun = without_answers(b"a" + answer[:at])
        assert (typed, without_answers(begun + answer[at:] + b"b")) == (b"a", (b"b", b"")), at


@pytest.mark.parametrize("keys", KEYS)
def test_what_a_person_does_passes(keys: bytes) -> None:
    assert without_answers(keys) == (keys, b"")


def test_an_answer_without_an_end_is_not_waited_for_without_a_bound() -> None:
    endless = b"\x1b]52;c;" + b"a" * 10 * LONGEST
    assert without_answers(endless) == (endless, b"")


@pytest.mark.parametrize("piece", [b"\x1bP1", b"\x1b]4;", b"\x1b[?1;", b"\x1b_G", b"\x1b[1;1"])
def test_hostile_input_takes_no_more_than_its_length(piece: bytes) -> None:
    without_answers(piece * (1_000_000 // len(piece)))
