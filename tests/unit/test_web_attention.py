"""Calls for attention in a session's output: bells and notifications, split anywhere, also of hostile programs."""

from __future__ import annotations

import pytest

from webshim import attention
from webshim.attention import LONGEST, Attention


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PAUSE_SECONDS", 0.0)


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
        (b"\x1b]9;a\x1b\\ and then \a", ""),
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
    seen.feed(b"\x1b]9;" + b"z" * LONGEST + b"\a")
    summary = seen.summary()
    assert summary is not None
    assert len(str(summary["text"])) <= attention.CHARACTERS


def test_a_program_that_rings_without_end_is_noticed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PAUSE_SECONDS", 1000.0)
    seen = Attention()
    assert [seen.feed(b"\a") for _ in range(5)] == [True, False, False, False, False]
    seen.forget()
    assert seen.summary() is None
    assert seen.feed(b"\a")
