"""Copies if the sandbox has Python: ``agent`` runs there, and both ends exchange records."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import zlib
from collections.abc import AsyncIterator

from sshgate.stream.tasks import all_of
from sshgate.transfer.destination import Budget, WriteOptions
from sshgate.transfer.display import Display
from sshgate.transfer.partial_file import display_path
from sshgate.transfer.receiver import Receiver
from sshgate.transfer.records import (
    CHUNK,
    FRAME,
    Chunk,
    Decoder,
    Done,
    End,
    Have,
    Offer,
    Problem,
    ProtocolError,
    Record,
    encode,
)
from sshgate.transfer.remote_shell import RemoteFailure, RemoteShell, describe_end, quote_words
from sshgate.transfer.sender import ReadOptions, walk

_SHARED = ("records", "dirwalk", "sender", "partial_file", "destination", "receiver", "agent")
_TOO_OLD = 99
# Data of a large file is sent in messages of this size (as ``exec.process.MESSAGE``), other records in smaller ones.
_MESSAGE = 4 * FRAME
_LOADER = b"""import os,sys
if sys.version_info<(3,8):sys.exit(99)
os.write(1,b"\\1sshgate-cp python\\2")
n=int(sys.argv[1])
b=b""
while len(b)<n:
 c=os.read(0,n-len(b))
 if not c:sys.exit(1)
 b+=c
import zlib
exec(zlib.decompress(b).decode())"""


def build_agent() -> bytes:
    """Return ``agent`` and the modules that it imports as one compressed program."""
    package = __name__.rpartition(".")[0]
    names = [f"{package}.{module}" for module in _SHARED]
    sources = [(name, inspect.getsource(importlib.import_module(name))) for name in names]
    root = package.partition(".")[0]
    program = f"""import sys,types
for name in {(root, package)!r}:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, source in {sources!r}:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
sys.exit(module.main(*sys.argv[2:]))
"""
    return zlib.compress(program.encode(), 9)


async def start_agent(shell: RemoteShell, program: bytes, task: str, *arguments: str) -> bool:
    """Start the agent in the sandbox. Records may be written at once, while the agent is still being compiled.

    Args:
        program: The agent, from ``build_agent``.
        task: With ``arguments``, the arguments of ``agent.main``.

    Returns:
        False if Python there cannot be executed or is older than 3.8; then the shell loop goes on.

    Raises:
        RemoteFailure: The far end has ended.
    """
    interpreter = (b"python3", b"-I", b"-S", b"-B", b"-c", _LOADER)
    line = quote_words(*interpreter, str(len(program)).encode(), task.encode(), *(word.encode() for word in arguments))
    await shell.write(line + b";s=$?;[ $s = %d ]||[ $s = 126 ]||exit $s" % _TOO_OLD)
    if not await shell.wait_for_word(b"python"):
        return False
    await shell.process.write(program)
    return True


async def send(
    shell: RemoteShell, sources: list[bytes], writing: WriteOptions, wants_totals: bool, display: Display
) -> None:
    """Send ``sources`` to the agent, started with the task ``receive``. Cancellation stops the copy.

    Raises:
        RemoteFailure: The far end failed or was cut off.
        ProtocolError: The far end's answers cannot be valid.
        Stopped: There is more than may be copied.
    """
    reading, budget = ReadOptions(writing.resume, wants_totals, wholes=True), Budget(writing)
    answers: asyncio.Queue[Have] = asyncio.Queue(1)
    sending = _sending(shell, sources, reading, budget, answers, display)
    done, end = await all_of(_read_answer(shell, answers, display), sending)
    display.entries, display.size = done.entries, done.size
    if display.failed == 0 and tuple(done) != tuple(end):
        raise ProtocolError("it has put in place something else than was sent")


async def _sending(
    shell: RemoteShell,
    sources: list[bytes],
    reading: ReadOptions,
    budget: Budget,
    answers: asyncio.Queue[Have],
    display: Display,
) -> End:
    records = walk(sources, reading)
    queue: list[bytes] = []
    size = 0
    answer: Have | None = None
    while True:
        record = records.send(answer)
        answer = None
        if isinstance(record, Problem):
            display.fail(*record)
            continue
        budget.charge_record(record)
        display.show(record)
        queue.append(encode(record))
        size += len(queue[-1])
        if size >= (_MESSAGE if isinstance(record, Chunk) else CHUNK) or isinstance(record, (Offer, End)):
            await shell.process.write(b"".join(queue))
            queue.clear()
            size = 0
        if isinstance(record, Offer):
            answer = await answers.get()
        if isinstance(record, End):
            return record


async def _read_answer(shell: RemoteShell, answers: asyncio.Queue[Have], display: Display) -> Done:
    """Read the receiving agent's answers up to ``Done``, and put each ``Have`` into ``answers``."""
    async for record in _records(shell):
        if isinstance(record, Have):
            if answers.full():  # there is one answer to each offer
                raise ProtocolError("its records are in a wrong order")
            answers.put_nowait(record)
        elif isinstance(record, Problem):
            _failed(record, display)
        elif isinstance(record, Done):
            return record
        else:
            raise ProtocolError("its records are in a wrong order")
    raise RemoteFailure(f"{describe_end(await shell.process.wait())} in the middle of the copy, which is not complete.")


async def fetch(shell: RemoteShell, writing: WriteOptions, display: Display) -> None:
    """Receive from the agent, started with the task ``send``. Cancellation stops the copy.

    Raises:
        RemoteFailure: The far end failed or was cut off.
        ProtocolError: The far end sent invalid records.
        Stopped: The copy cannot go on here, such as for a full disk.
    """
    receiver = Receiver(writing, display.fail, lambda: os.urandom(8).hex())
    try:
        async for record in _records(shell):
            if isinstance(record, Problem):
                _failed(record, display)
                continue
            display.show(record)
            answer = receiver.apply(record)
            display.entries, display.size = receiver.entries, receiver.size
            if answer is not None:
                await shell.process.write(encode(answer))
            if isinstance(record, End):
                if not receiver.failed and (receiver.entries, receiver.size) != tuple(record):
                    raise ProtocolError("it has sent something else than it says")
                return
    finally:
        receiver.close()
    raise RemoteFailure(f"{describe_end(await shell.process.wait())} in the middle of the copy, which is not complete.")


async def _records(shell: RemoteShell) -> AsyncIterator[Record]:
    if not await shell.wait_for_word(b"agent"):
        raise RemoteFailure("the sandbox's Python could not run the copy; nothing was copied.")
    decoder = Decoder()
    while (data := await shell.read()) is not None:
        for record in decoder.feed(data):
            yield record


def _failed(record: Problem, display: Display) -> None:
    if not record.path:
        reason = display_path(record.reason.encode("utf-8", "surrogateescape"))
        raise RemoteFailure(f"in the sandbox: {reason}")
    display.fail(*record)
