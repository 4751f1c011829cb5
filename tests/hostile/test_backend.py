"""The tests' own backend keeps the rules of ``streams.Process``."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.access.identity import Identity, LoginName
from sshgate.stream.interfaces import STDERR, STDOUT, Exec, Exited, Outcome, Request, Signal, Signalled
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.hostile.backend import Program, start

WHO = Identity(LoginName("user"), "publickey", "SHA256:x", "127.0.0.1")


async def run(program: Program) -> tuple[dict[int, bytes], Outcome]:
    """Everything it says, and how it ends."""
    output = {STDOUT: b"", STDERR: b""}
    while (chunk := await program.read()) is not None:
        output[chunk[0]] += chunk[1]
    outcome = await program.wait()
    await program.close()
    return output, outcome


async def test_pipes_keep_the_outputs_apart() -> None:
    program = await start(WHO, Request(Exec(b"cat; echo err >&2; exit 3")))
    await program.write(b"in")
    await program.write_eof()
    assert await run(program) == ({STDOUT: b"in", STDERR: b"err\n"}, Exited(3))


async def test_terminal_has_its_size_and_ends() -> None:
    program = await start(WHO, Request(Exec(b"stty size; tty -s"), Terminal("xterm", TerminalSize(91, 33))))
    assert await run(program) == ({STDOUT: b"33 91\r\n", STDERR: b""}, Exited(0))


@pytest.mark.parametrize("terminal", [None, Terminal()])
async def test_signals_arrive(terminal: Terminal | None) -> None:
    program = await start(WHO, Request(Exec(b"echo up; exec sleep 100"), terminal))
    await program.read()
    await program.control(Signal("TERM"))
    assert (await run(program))[1] == Signalled("TERM")


@pytest.mark.parametrize("terminal", [None, Terminal()])
async def test_close_ends_a_program_that_nobody_reads(terminal: Terminal | None) -> None:
    program = await start(WHO, Request(Exec(b"cat /dev/zero"), terminal))
    await program.read()
    async with asyncio.timeout(5):
        await program.close()
    assert await program.wait() == Signalled("KILL")
