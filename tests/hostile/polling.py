"""Waiting for a thing, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], limit: float = 10.0) -> None:
    """Return as soon as ``holds()`` is true. Raises ``TimeoutError`` when that takes longer than ``limit`` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while not holds():
        if loop.time() > deadline:
            raise TimeoutError(f"still not so after {limit:g} s")
        await asyncio.sleep(0.01)
