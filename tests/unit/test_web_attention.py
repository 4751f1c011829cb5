"""Calls for attention in a session's output: bells and notifications, split anywhere, also of hostile programs."""

from __future__ import annotations

import pytest

from webshim import attention
from webshim.attention import LONGEST, Attention


@pytest.fixture(autouse=True)
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PAUSE_SECONDS", 1000.0)


def _found(*chunks: bytes) -> object:
    seen = Attention()
    for chunk in chunks:
        seen.feed(chunk)
    summary = seen.summary()
    return summary and summary["text"]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b"make: done\a\r\n", ""),
        (b"\x1b]9;build is green\a", "build is green"),
        (b"\x1b]777;notify;Claude;waits for you\x1b\\", "Claude: waits for you"),
        (b"\x1b]99;i=1:d=0;Hello\x1b\\", "Hello"),
        ("\x1b]9;grün\x07".encode(), "grün"),
        (b"\x1b]9;a\x1b\\ and then \a", "a"),
        (b"\a and then \x1b]9;a\a\x1b]9;b\a", "b"),
        (b"\x1b]9;4;1;50\a", None),
        (b"\x1b]0;a title\a", None),
        (b"\x1b]8;;http://a/\x1b\\x\x1b]8;;\x1b\\", None),
        (b"\x1b[31mred\x1b[0m\r\n", None),
        (b"\x1b]777;precmd\a", None),
        (b"\x1b]9;\xff\xfe\x00\x01\a", "\ufffd\ufffd"),
    ],
)
def test_what_counts_counts_wherever_it_is_split(output: bytes, text: str | None) -> None:
    assert _found(output) == text
    for at in range(1, len(output)):
        assert _found(output[:at], output[at:]) == text, output[:at]
    assert _found(*(bytes([byte]) for byte in output)) == text


def test_what_never_ends_is_not_kept() -> None:
    seen = Attention()
    for _ in range(100):
        seen.feed(b"\x1b]9;" + b"x" * LONGEST)
        seen.feed(b"\x1b]9;" + b"\x1b]" * 1000)
        seen.feed(b"y" * 10_000)
        assert len(repr(seen)) < 100
        assert len(seen._rest) <= LONGEST + 10
    assert seen.summary() is None
    seen.feed(b"\x1b]9;" + b"z" * 1000 + b"\a")
    summary = seen.summary()
    assert summary is not None
    assert summary["text"] == "z" * attention.CHARACTERS


@pytest.mark.parametrize("end", [b"\a", b"\x1b\\"])
def test_the_end_of_a_command_that_is_too_long_is_no_bell(end: bytes) -> None:
    """Such as a picture, or a copy to the clipboard; what follows it counts again."""
    output = b"\x1b]1337;File=:" + b"x" * 3 * LONGEST + end
    for size in (1, 100, LONGEST, len(output)):
        chunks = [output[at : at + size] for at in range(0, len(output), size)]
        assert _found(*chunks) is None, size
        assert _found(*chunks, b"\a") == "", size
        assert _found(*chunks, b"\x1b]9;a\a") == "a", size


def test_a_program_that_rings_without_end_is_noticed_now_and_then() -> None:
    seen = Attention()
    assert [seen.feed(b"\a") for _ in range(5)] == [True, False, False, False, False]
    seen.forget()
    assert seen.summary() is None
    assert seen.feed(b"\a")
