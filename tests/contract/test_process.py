"""What every provider's programs do alike: bytes, ends, terminals, signals. One suite, both providers, both loops."""

from __future__ import annotations

import asyncio
import hashlib
import secrets

import pytest

from sshgate.errors import BadRequest
from sshgate.sandbox.enter import park
from sshgate.sandbox.interfaces import Sandbox
from sshgate.stream.interfaces import STDOUT, Break, Exited, Lost, Outcome, Resize, Signal, Signalled
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.contract.programs import begin, everything, run, until_output


async def test_exit_statuses_are_exact(sandbox: Sandbox) -> None:
    for status in (0, 1, 2, 42, 126, 127, 128, 137, 254, 255):
        assert (await run(sandbox, b"exit %d" % status))[2] == Exited(status)


async def test_both_outputs_status_and_end_of_input(sandbox: Sandbox) -> None:
    out, err, outcome = await run(sandbox, b"cat; echo problem >&2; exit 7", b"hello")
    assert (out, err, outcome) == (b"hello", b"problem\n", Exited(7))


async def test_stderr_after_the_end_of_stdout_is_not_lost(sandbox: Sandbox) -> None:
    assert (await run(sandbox, b"echo a; exec >&-; sleep 0.1; echo b >&2"))[:2] == (b"a\n", b"b\n")


async def test_a_killed_program_is_reported_as_such(sandbox: Sandbox) -> None:
    assert await run(sandbox, b"kill -9 $$") == (b"", b"", Signalled("KILL"))


async def test_a_broken_pipe_ends_a_program_as_a_signal_not_as_an_error(sandbox: Sandbox) -> None:
    assert (await run(sandbox, b"yes | head -n 1"))[:2] == (b"y\n", b"")


async def test_a_missing_command_is_127(sandbox: Sandbox) -> None:
    _, err, outcome = await run(sandbox, b"no-such-command")
    assert outcome == Exited(127)
    assert b"not found" in err


async def test_megabytes_both_ways_arrive_whole(sandbox: Sandbox) -> None:
    payload = secrets.token_bytes(32 << 20)
    out, _, outcome = await run(sandbox, b"cat", payload)
    assert outcome == Exited(0)
    assert hashlib.sha256(out).digest() == hashlib.sha256(payload).digest()


async def test_an_answer_may_end_in_any_byte(sandbox: Sandbox) -> None:
    """Who waits for the next question says nothing further: nothing of the answer may be held back for that."""
    process = await begin(sandbox, rb'while read -r n; do printf "\\$n"; done')
    for byte in range(256):
        await process.write(b"%03o\n" % byte)
        async with asyncio.timeout(10):
            assert await process.read() == (STDOUT, bytes([byte]))
    await process.write_eof()
    assert await everything(process) == (b"", b"", Exited(0))


async def test_a_status_survives_unread_stdin(sandbox: Sandbox) -> None:
    assert (await run(sandbox, b"exit 5", bytes(10 << 20)))[2] == Exited(5)


async def test_a_reader_that_stops_stops_the_program_and_misses_nothing(sandbox: Sandbox) -> None:
    process = await begin(sandbox, b"head -c 30000000 /dev/zero; exit 4")
    async with asyncio.timeout(10):
        while "paused" not in repr(process):  # noqa: ASYNC110  (the flow has no event for that)
            await asyncio.sleep(0.01)
    out, _, outcome = await everything(process)
    assert (len(out), outcome) == (30_000_000, Exited(4))


async def test_any_bytes_reach_the_command_and_its_environment(sandbox: Sandbox) -> None:
    odd = bytes(range(1, 256))
    out, _, _ = await run(sandbox, b"printf %s \"$ODD\"; printf %s '\xff\xfe\n\\\\'", environment={"ODD": odd})
    assert out == odd + b"\xff\xfe\n\\\\"


async def test_long_commands_run_up_to_what_the_kernel_takes(sandbox: Sandbox) -> None:
    out, _, _ = await run(sandbox, b"printf %s '" + b"x" * 120_000 + b"' | wc -c")
    assert out.strip() == b"120000"
    with pytest.raises(BadRequest, match="131,071 at most"):
        await begin(sandbox, b"x" * 140_000)


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (b"echo hi; echo there", b"hi\nthere\n"),
        (b"/bin/echo abc | wc -c", b"4\n"),
        (b"/bin/false; echo $?", b"1\n"),
        (b"cd /tmp; /bin/echo a > f; cat f", b"a\n"),
        (b"/bin/sleep 0.1 && echo ok", b"ok\n"),
        (b"cd /tmp; touch a.py b.py; /bin/echo *.py", b"a.py b.py\n"),
        (b"", b""),
        (b"   ", b""),
    ],
)
async def test_a_command_is_the_shells_whole(sandbox: Sandbox, command: bytes, output: bytes) -> None:
    out, _, outcome = await run(sandbox, command)
    assert (out.replace(b" ", b"") if b"wc" in command else out, outcome) == (output, Exited(0))


async def test_the_first_size_and_the_last_of_a_thousand_resizes(sandbox: Sandbox) -> None:
    script = b"stty size; while read x; do stty size; done"
    process = await begin(sandbox, script, Terminal(size=TerminalSize(91, 31)))
    await until_output(process, b"31 91\r\n")
    for columns in range(1, 1001):
        await process.control(Resize(TerminalSize(columns, 50)))
    # A node carries out sizes beside stdin: the line may overtake the last one, or all of them.
    async with asyncio.timeout(10):
        seen = b""
        while b"50 1000\r\n" not in seen:
            await process.write(b"\n")
            seen += await until_output(process, b" ")
    await process.close()


async def test_a_terminal_has_a_name_its_type_and_the_clients_modes(sandbox: Sandbox) -> None:
    # Opcode 3 is VERASE, 53 is ECHO (RFC 4254 section 8).
    terminal = Terminal("vt220", modes={3: 8, 53: 0})
    out, _, outcome = await run(sandbox, b"tty; echo $SSH_TTY $TERM; stty -a", terminal=terminal)
    assert outcome == Exited(0)
    lines = out.decode().splitlines()
    assert lines[0].startswith("/dev/pts/")
    assert lines[1] == f"{lines[0]} vt220"
    assert "erase = ^H;" in out.decode()
    assert "-echo " in out.decode()


@pytest.mark.parametrize("typed", [b"", b"line\n", b"half a line"])
async def test_the_end_of_input_on_a_terminal_loses_no_output(sandbox: Sandbox, typed: bytes) -> None:
    out, _, outcome = await run(sandbox, b"wc -c; sleep 0.2; echo after", typed, Terminal(modes={53: 0}))
    assert outcome == Exited(0)
    assert out.split() == [str(len(typed)).encode(), b"after"]


async def test_ctrl_c_reaches_the_foreground_program(sandbox: Sandbox) -> None:
    # Short sleeps: a ^C just before one begins is looked at when it is over.
    process = await begin(sandbox, b"trap 'echo caught; exit 9' INT; echo on; while :; do sleep 0.1; done", Terminal())
    await until_output(process, b"on\r\n")
    await process.write(b"\x03")
    out, _, outcome = await everything(process)
    assert b"caught" in out
    assert outcome == Exited(9)


@pytest.mark.parametrize(
    ("control", "terminal", "status"),
    [
        (Signal("TERM"), None, 11),
        (Signal("USR1"), None, 12),
        (Signal("TERM"), Terminal(), 11),
        (Break(), None, 13),
        (Break(), Terminal(), 13),
    ],
)
async def test_signals_and_breaks_reach_the_program(
    sandbox: Sandbox, control: Signal | Break, terminal: Terminal | None, status: int
) -> None:
    script = b"trap 'exit 11' TERM; trap 'exit 12' USR1; trap 'exit 13' INT; echo on; while :; do sleep 0.1; done"
    process = await begin(sandbox, script, terminal)
    await until_output(process, b"on")
    await process.control(control)
    assert (await everything(process))[2] == Exited(status)


async def test_a_signal_that_is_none_is_ignored(sandbox: Sandbox) -> None:
    process = await begin(sandbox, b"read x; exit 3")
    await process.control(Signal("; kill -9 1"))
    await process.write_eof()
    assert (await everything(process))[2] == Exited(3)


async def test_a_blocked_stdin_does_not_block_signals(sandbox: Sandbox) -> None:
    process = await begin(sandbox, b"trap 'exit 6' TERM; echo on; while :; do sleep 0.1; done")
    await until_output(process, b"on")
    writing = asyncio.create_task(process.write(bytes(64 << 20)))
    done, _ = await asyncio.wait({writing}, timeout=0.5)
    assert not done
    await process.control(Signal("TERM"))
    assert (await everything(process))[2] == Exited(6)
    async with asyncio.timeout(5):
        await writing


async def test_programs_in_one_sandbox_do_not_disturb_each_other(sandbox: Sandbox) -> None:
    async def one(number: int) -> None:
        out, _, outcome = await run(sandbox, b"cat; exit %d" % number, b"%d" % number)
        assert (out, outcome) == (b"%d" % number, Exited(number))

    await asyncio.gather(*(one(number) for number in range(10)))


async def test_a_group_can_be_ended_and_the_sandbox_lives_on(sandbox: Sandbox) -> None:
    process = await begin(sandbox, b"trap : HUP TERM; sleep 1000 & echo on; while :; do sleep 1; done")
    await until_output(process, b"on")
    assert process.pid is not None
    await process.close()
    await sandbox.aside.hang_up(process.pid)
    out, _, _ = await run(sandbox, b"ps | grep -c '[s]leep 1000'")
    assert out.strip() == b"0"


async def test_closing_a_running_program_is_quick_and_repeatable(sandbox: Sandbox) -> None:
    process = await park(sandbox, None)
    async with asyncio.timeout(5):
        await process.close()
        await process.close()
    assert isinstance(await process.wait(), Lost)
    await process.write(b"discarded")
    await process.write_eof()
    assert await process.read() is None


@pytest.mark.parametrize(
    ("command", "terminal", "counts"),
    [
        (b"echo on; sleep 1000", True, False),
        (b"sleep 1000 & echo on; wait", True, False),
        (b"trap '' HUP; sleep 1000 & trap - HUP; echo on; wait", True, True),
        (b"setsid sleep 1000 & echo on; wait", True, True),
        (b"echo on; sleep 1000", False, True),
    ],
    ids=["terminal", "background", "nohup", "setsid", "pipes"],
)
async def test_what_a_terminal_without_its_client_holds_is_not_running(
    sandbox: Sandbox, command: bytes, terminal: bool, counts: bool
) -> None:
    """A gateway that was killed hangs up none of its terminals; the node keeps them."""
    assert not await sandbox.aside.anything()
    process = await begin(sandbox, command, Terminal() if terminal else None)
    await until_output(process, b"on")
    await asyncio.sleep(0.2)  # for the last fork
    assert await sandbox.aside.anything() is counts
    await process.close()


async def test_deleting_a_sandbox_ends_its_programs(sandbox: Sandbox) -> None:
    process = await begin(sandbox, b"echo on; sleep 1000")
    await until_output(process, b"on")
    await sandbox.delete()
    await sandbox.delete()
    async with asyncio.timeout(10):
        _, _, outcome = await everything(process)
    assert isinstance(outcome, Lost) or _killed(outcome)


async def test_a_start_that_is_cancelled_leaves_a_usable_sandbox(sandbox: Sandbox) -> None:
    await run(sandbox, b"true")
    starting = asyncio.create_task(park(sandbox, None))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert (await run(sandbox, b"exit 3"))[2] == Exited(3)


def _killed(outcome: Outcome) -> bool:
    return outcome == Exited(137) or outcome == Signalled("KILL")
