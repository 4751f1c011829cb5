"""The copy loop between a client and a process: the whole of the line.

Three pumps run side by side (input, controls, output) until the output has ended or the client has gone.
Nothing else may stand in the way of a byte: no logging, no policy, no lookup.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sshgate.stream.interfaces import STDOUT, Client, Outcome, Process
from sshgate.stream.tasks import cancel


class Traffic:
    """Bytes carried so far, towards the process and towards the client. ``begins`` is called at the first output."""

    __slots__ = ("begins", "down", "up")

    def __init__(self, begins: Callable[[], None] = lambda: None) -> None:
        self.up = 0
        self.down = 0
        self.begins = begins

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
    """Carry bytes until the process has ended and all its output was handed to the client.

    ``early`` is input that was read before the process was there, ``eof`` that it ended already then, ``said``
    is output that was read before.
    Returns how the process ended, or ``None`` when the client went first. Ending the process and closing
    either side is the caller's business. Cancelling stops all pumps; a pump that breaks (a defect of an
    adapter) ends the bridge with its exception.
    """
    output = asyncio.create_task(_output(process, client, traffic, initial_output))
    gone = asyncio.create_task(client.wait_closed())
    side = {
        asyncio.create_task(_input(client, process, traffic, buffered_input, eof)),
        asyncio.create_task(_controls(client, process)),
    }
    tasks = {output, gone, *side}
    try:
        while not (output.done() or gone.done()):
            done, _ = await asyncio.wait({output, gone, *side}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            side -= done
        return await process.wait() if output.done() else None
    finally:
        await cancel(*tasks)


async def _input(client: Client, process: Process, traffic: Traffic, buffered_input: bytes, eof: bool) -> None:
    if buffered_input:
        traffic.up += len(buffered_input)
        await process.write(buffered_input)
    while not eof and (data := await client.read()) is not None:
        traffic.up += len(data)
        await process.write(data)
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
