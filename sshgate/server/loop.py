"""The event loop of a process that serves: the gateway's, and the broker's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes a uvloop, if that is installed and SSHGATE_LOOP is not ``asyncio``; else ``None``."""
    if os.environ.get("SSHGATE_LOOP") == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
