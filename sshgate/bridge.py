"""The copy loop between a client and a process: the whole of the line.

Three pumps run side by side (input, controls, output) until the output has ended or the client has gone.
Nothing else may stand in the way of a byte: no logging, no policy, no lookup.
"""

from __future__ import annotations

import asyncio

from sshgate.streams import Client, Outcome, Process


async def bridge(client: Client, process: Process) -> Outcome | None:
    """Carry bytes until the process has ended and all its output was handed to the client.

    Returns how the process ended, or ``None`` when the client went first. Ending the process and closing
    either side is the caller's business. Cancelling stops all pumps.
    """
    output = asyncio.create_task(_output(process, client))
    gone = asyncio.create_task(client.wait_closed())
    side = [asyncio.create_task(_input(client, process)), asyncio.create_task(_controls(client, process))]
    try:
        await asyncio.wait((output, gone), return_when=asyncio.FIRST_COMPLETED)
        if not output.done():
            return None
        output.result()
        return await process.wait()
    finally:
        tasks = [output, gone, *side]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            # A pump that broke is a defect of an adapter; it must not pass as a quiet end.
            if isinstance(result, Exception) and result is not _raised(output):
                raise result


def _raised(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


async def _input(client: Client, process: Process) -> None:
    while (data := await client.read()) is not None:
        await process.write(data)
    await process.write_eof()


async def _controls(client: Client, process: Process) -> None:
    while True:
        await process.control(await client.control())


async def _output(process: Process, client: Client) -> None:
    while (chunk := await process.read()) is not None:
        await client.write(*chunk)
