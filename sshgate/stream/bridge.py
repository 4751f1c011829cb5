"""The copy loop between a client and a process: the whole data path.

Three tasks (input, controls, output) run until the output has ended or the client has disconnected. The loop itself
does no logging, no policy checks and no lookups, so that nothing delays a byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sshgate.stream.interfaces import STDOUT, Client, Outcome, Process
from sshgate.stream.tasks import cancel


class Traffic:
    """Counts the bytes of one session.

    Attributes:
        up: Bytes carried from the client to the process.
        down: Bytes carried from the process to the client.
        begins: Called just before the first output goes to the client.
    """

    __slots__ = ("begins", "down", "up")

    def __init__(self, on_first_output: Callable[[], None] = lambda: None) -> None:
        self.up = 0
        self.down = 0
        self.begins = on_first_output

    def __repr__(self) -> str:
        return f"<Traffic {self.up} up, {self.down} down>"


async def bridge(
    client: Client,
    process: Process,
    traffic: Traffic,
    buffered_input: bytes = b"",
    eof: bool = False,
    initial_output: bytes = b"",
) -> Outcome | None:
    """Copy bytes until the process has ended and all its output has been written to the client.

    Neither side is closed and the process is not ended; the caller does both. Cancellation stops all three tasks and
    waits for them.

    Args:
        traffic: Updated as bytes pass.
        buffered_input: Input that was read from the client before the process was there.
        eof: Whether the client's input has already ended.
        initial_output: Output (stdout) that was already read from the process.

    Returns:
        How the process ended, or ``None`` if the client disconnected first.

    Raises:
        Exception: Whatever an adapter raises, which is a defect of the adapter.
    """
    output = asyncio.create_task(_output(process, client, traffic, initial_output))
    gone = asyncio.create_task(client.wait_closed())
    side = {
        asyncio.create_task(_input(client, process, traffic, buffered_input, eof, gone)),
        asyncio.create_task(_controls(client, process)),
    }
    tasks = output, gone, *side
    try:
        while not (output.done() or gone.done()):
            done, _ = await asyncio.wait({output, gone, *side}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            side -= done
        return await process.wait() if output.done() else None
    finally:
        await cancel(*tasks)


async def _input(
    client: Client, process: Process, traffic: Traffic, buffered_input: bytes, eof: bool, gone: asyncio.Task[None]
) -> None:
    if buffered_input:
        traffic.up += len(buffered_input)
        await process.write(buffered_input)
    while not eof and (data := await client.read()) is not None:
        traffic.up += len(data)
        await process.write(data)
    # A client that has left has not ended its input: on a terminal that would be a ^D instead of a hang-up.
    if not gone.done():
        await process.write_eof()


async def _controls(client: Client, process: Process) -> None:
    while True:
        await process.control(await client.control())


async def _output(process: Process, client: Client, traffic: Traffic, initial_output: bytes) -> None:
    if initial_output:
        traffic.begins()
        traffic.down += len(initial_output)
        await client.write(STDOUT, initial_output)
    while (chunk := await process.read()) is not None:
        if not traffic.down:
            traffic.begins()
        traffic.down += len(chunk[1])
        await client.write(*chunk)
