"""Waiting for a sandbox, while the client may disconnect, press Ctrl-C or type ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sshgate.errors import Cancelled
from sshgate.stream.interfaces import Client
from sshgate.stream.tasks import first_of

T = TypeVar("T")

INTERRUPT = b"\x03"
# Bytes that are read before the prompt comes. Further input stays in the client's window.
TYPED_AHEAD = 4096


@dataclass
class WaitResult(Generic[T]):
    """The awaited result, the input that was read meanwhile, and whether input has ended."""

    result: T
    buffered_input: bytes = b""
    eof: bool = False


async def wait_for_sandbox(client: Client, work: Coroutine[Any, Any, T], interruptible: bool) -> WaitResult[T] | None:
    """Await ``work`` while watching the client; return ``None`` if the client disconnects first.

    If anything else ends first, or the caller is cancelled, ``work`` is cancelled and its cleanup is awaited.

    Args:
        interruptible: Whether Ctrl-C ends the wait; true for terminals. Only then is input read.

    Raises:
        Cancelled: The user pressed Ctrl-C.
        Exception: What ``work`` raises.
    """
    waited: WaitResult[Any] = WaitResult(None)
    watchers = [client.wait_closed(), *([_typed(client, waited)] if interruptible else [])]
    first, waited.result = await first_of(work, *watchers)
    return waited if first == 0 else None


async def read_available(client: Client) -> tuple[bytes, bool]:
    """Return input that has already arrived, and whether input has ended. Does not wait."""
    try:
        async with asyncio.timeout(0):
            data = await client.read()
    except TimeoutError:
        return b"", False
    return data or b"", data is None


async def _typed(client: Client, waited: WaitResult[Any]) -> None:
    """Collect typed input. Never returns; raises ``Cancelled`` at Ctrl-C."""
    while len(waited.buffered_input) < TYPED_AHEAD and not waited.eof:
        data = await client.read()
        if data is None:
            waited.eof = True
        elif INTERRUPT in data:
            raise Cancelled("interrupted while the sandbox was starting.")
        else:
            waited.buffered_input += data
    await asyncio.Future()
