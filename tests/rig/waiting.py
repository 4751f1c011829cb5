"""Waiting for a thing, with a limit, without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(holds: Callable[[], T], limit: float = 10.0, what: str = "") -> T:
    """The first true value of ``holds()``. Raises ``AssertionError`` when that takes longer than ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not (value := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'it'} is still not so after {limit:g} s: {value!r}")
        time.sleep(0.02)
    return value
