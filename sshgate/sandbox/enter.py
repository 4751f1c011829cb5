"""Starting a program in a sandbox: start the launcher, wait for its mark, and send it the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sshgate.errors import ProgramMissing, StartFailed
from sshgate.sandbox import launcher
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.probe import Verdict
from sshgate.sandbox.side_execs import LONGEST_TALK
from sshgate.stream.interfaces import STDERR, Exited, Lost, Process, Resize
from sshgate.stream.terminal import Terminal

# Seconds. A shell prints its mark some milliseconds after the exec started, on a loaded node some hundred.
MARK_SECONDS = 15.0
# Bytes of what the sandbox printed instead of the mark that are kept to explain the failure.
LONGEST_COMPLAINT = 1000


async def park(
    sandbox: Sandbox, terminal: Terminal | None, fresh: bool = False, plain: Sequence[str] | None = None
) -> Process:
    """Get a launcher that has reported its process id and waits for its command line.

    A launcher that is parked in the sandbox is used first, unless ``fresh`` asks for one to be parked. No byte of a
    user has been sent to the sandbox when this returns, and the network policy is in force there (``Sandbox.judge``).
    The caller closes the process. Cancelling ends the launcher in the background.

    Args:
        terminal: the terminal of a new launcher; ``None``: pipes.
        plain: a program of ours that is started instead, without the launcher's mark, if nothing has to be looked at
            first. The process has no ``pid`` then.

    Raises:
        ProgramMissing: the sandbox has no POSIX shell.
        StartFailed: the shell does not answer, or ended; otherwise as ``Sandbox.start``.
    """
    parked = None if fresh else sandbox.parked("pipe" if terminal is None else "terminal")
    if parked is not None:
        return parked
    argv = launcher.PARKED_ARGV if fresh else launcher.ARGV
    probe = sandbox.probe(fresh)
    if plain is not None and probe is None:
        return await sandbox.start(plain, None)
    process = await sandbox.start(argv if probe is None else launcher.looking(argv, probe), terminal)
    try:
        async with asyncio.timeout(MARK_SECONDS) as limit:
            # Only once the launcher runs, it may look for a while: a node that starts nothing is not waited for.
            process.pid, verdict = await _mark(process, lambda: _extend(limit, probe.seconds if probe else 0))
        if probe is not None:
            await sandbox.judge(verdict)
    except TimeoutError as error:
        sandbox.aside.give_up(process)
        raise StartFailed("the sandbox's shell did not answer within 15 s; try again.") from error
    except BaseException:
        sandbox.aside.give_up(process)
        raise
    return process


async def launch(process: Process, program: launcher.Program, no_input: bool = False) -> bytes:
    """Turn a parked launcher into ``program``. Returns output of the program that was read meanwhile, often ``b""``.

    On a terminal this returns once input may be sent.

    Args:
        no_input: the client has ended its input already, without sending a byte.

    Raises:
        BadRequest: no kernel would start such a program; the launcher is still parked.
        StartFailed: the terminal did not get ready.
    """
    text = launcher.line(program, _end_mark(process, program, no_input), no_input)
    if program.request.terminal is None:
        await process.write(text)
        return b""
    # The size goes first, so that the first `stty size` is right.
    await process.control(Resize(program.request.terminal.size))
    await process.write(text)
    try:
        async with asyncio.timeout(MARK_SECONDS):
            return await _terminal_ready(process)
    except TimeoutError as error:
        raise StartFailed("the sandbox's terminal did not get ready within 15 s; try again.") from error


async def _terminal_ready(process: Process) -> bytes:
    """Read to the terminal's mark. Returns the other output, also when the process ends without a mark."""
    seen = b""
    while (chunk := await process.read()) is not None:
        before, mark, after = chunk[1].partition(launcher.TERMINAL_MARK)
        seen += before
        if len(seen) > launcher.ReadyMark.LONGEST:
            raise StartFailed("the sandbox's terminal printed something else than was asked of it; try again.")
        if mark:
            return seen + after
    return seen


async def has_sftp_server(process: Process) -> bool:
    """Whether the sandbox has an sftp-server for the sftp subsystem just launched; if not, use ``ShellFiles``.

    Raises ``StartFailed`` when the shell ends first or does not answer.
    """
    try:
        async with asyncio.timeout(MARK_SECONDS):
            length = 0
            while length <= LONGEST_TALK and (chunk := await process.read()) is not None:
                if chunk[0] != STDERR:
                    return chunk[1] == launcher.SERVER_MARK
                length += len(chunk[1])
    except TimeoutError as error:
        raise StartFailed("the sandbox's shell did not start a file server within 15 s; try again.") from error
    raise StartFailed("the sandbox's shell ended before a file server could start; try again.")


def _end_mark(process: Process, program: launcher.Program, no_input: bool) -> bytes | None:
    """The mark that the launcher has to print at the program's end; ``None`` where the provider needs none."""
    if program.request.terminal is not None:
        return None
    expect = getattr(process, "expect_end_mark", None)
    return expect(no_input) if expect is not None else None


def _extend(limit: asyncio.Timeout, seconds: float) -> None:
    until = limit.when()
    assert until is not None
    limit.reschedule(until + seconds)


async def _mark(process: Process, begun: Callable[[], None]) -> tuple[int, Verdict]:
    """Read up to the mark; ``begun`` is called once, when the launcher has printed its first byte."""
    mark = launcher.ReadyMark()
    first = True
    complaint = b""
    complained = 0
    while (chunk := await process.read()) is not None:
        stream, data = chunk
        if stream == STDERR:
            complaint = (complaint + data)[:LONGEST_COMPLAINT]
            complained += len(data)
            if complained > LONGEST_TALK:
                raise StartFailed("the sandbox's /bin/sh complains without an end.")
            continue
        if first:
            first = False
            begun()
        try:
            pid = mark.feed(data)
        except ValueError as error:
            raise StartFailed("the sandbox's /bin/sh printed something else than was asked of it.") from error
        if pid is not None:
            return pid, mark.verdict
    outcome = await process.wait()
    if isinstance(outcome, Exited) and outcome.status in (126, 127):
        raise ProgramMissing("the sandbox's image has no usable /bin/sh; use an image with a shell.")
    if isinstance(outcome, Lost):
        failure = StartFailed(outcome.reason)
        failure.status = outcome.status
        raise failure
    # Of what a sandbox's program has written, only what does nothing to a terminal: tables and pages show it as well.
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    reason = "".join(one for one in lines[-1] if one.isprintable()) if lines else ""
    raise StartFailed(f"the sandbox's shell ended at once ({outcome})" + (f": {reason}" if reason else "."))
