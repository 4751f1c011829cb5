"""Waiting for a thing, with a limit, without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(holds: Callable[[], T], limit: float = 10.0, what: str = "") -> T:
    """The first true value of ``holds()``. Raises ``AssertionError`` when that takes longer than ``limit`` seconds.

    What has not come soon is looked for less often: the processor is for those that are waited for.
    """
    began = time.monotonic()
    while not (value := holds()):
        if (waited := time.monotonic() - began) > limit:
            raise AssertionError(f"{what or 'it'} is still not so after {limit:g} s: {value!r}")
        time.sleep(min(max(0.02, waited / 20), 0.1))
    return value
