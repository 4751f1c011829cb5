"""Terminal sizes: whatever a client asks for becomes one that a kernel takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshgate.stream.terminal import LARGEST, TerminalSize


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ((132, 43, 10, 20), TerminalSize(132, 43, 10, 20)),
        ((0, 0, 0, 0), TerminalSize(80, 24)),
        ((0, 50, 0, 0), TerminalSize(80, 50)),
        ((1, 1, 0, 0), TerminalSize(1, 1)),
        ((2**32 - 1, 2**31, 2**32 - 1, 70_000), TerminalSize(LARGEST, LARGEST, LARGEST, LARGEST)),
        ((-1, -5, -1, -1), TerminalSize(80, 24)),
    ],
)
def test_a_size_is_made_safe(asked: tuple[int, int, int, int], size: TerminalSize) -> None:
    assert TerminalSize.of(*asked) == size


@given(st.integers(), st.integers(), st.integers(), st.integers())
def test_any_size_fits_a_winsize(columns: int, rows: int, width: int, height: int) -> None:
    size = TerminalSize.of(columns, rows, width, height)
    assert 1 <= size.columns <= LARGEST
    assert 1 <= size.rows <= LARGEST
    assert 0 <= size.pixel_width <= LARGEST
    assert 0 <= size.pixel_height <= LARGEST
    assert TerminalSize.of(size.columns, size.rows, size.pixel_width, size.pixel_height) == size


def test_a_size_reads_as_people_say_it() -> None:
    assert str(TerminalSize(80, 24)) == "80x24"
