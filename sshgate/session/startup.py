"""Waiting for a sandbox while the client may leave, give up with Ctrl-C, or type ahead."""

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
# What a person may type before the prompt comes; more stays in the client's window.
TYPED_AHEAD = 4096


@dataclass
class Waited(Generic[T]):
    """The awaited result, and what the client typed meanwhile."""

    result: T
    buffered_input: bytes = b""
    eof: bool = False


async def wait_for_sandbox(client: Client, work: Coroutine[Any, Any, T], interruptible: bool) -> Waited[T] | None:
    """Await ``work``; ``None`` when the client left first.

    With ``interruptible`` (a terminal) Ctrl-C raises ``Cancelled``. Whenever ``work`` is not finished it is
    cancelled, and its own clean-up is waited for. Raises what ``work`` raises.
    """
    waited: Waited[Any] = Waited(None)
    watchers = [client.wait_closed(), *([_typed(client, waited)] if interruptible else [])]
    first, waited.result = await first_of(work, *watchers)
    return waited if first == 0 else None


async def read_available(client: Client) -> tuple[bytes, bool]:
    """Input that has come already, and whether it has ended; does not wait."""
    try:
        async with asyncio.timeout(0):
            data = await client.read()
    except TimeoutError:
        return b"", False
    return data or b"", data is None


async def _typed(client: Client, waited: Waited[Any]) -> None:
    """Collect what is typed; returns never, raises ``Cancelled`` at Ctrl-C."""
    while len(waited.buffered_input) < TYPED_AHEAD and not waited.eof:
        data = await client.read()
        if data is None:
            waited.eof = True
        elif INTERRUPT in data:
            raise Cancelled("interrupted while the sandbox was starting.")
        else:
            waited.buffered_input += data
    await asyncio.Future()
