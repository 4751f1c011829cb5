"""``ssh HOST COMMAND``: what comes out, and how it ends."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asyncssh import SSHCompletedProcess

from tests.rig.library import connection, run_command
from tests.rig.ssh import Ended, Ssh
from tests.rig.terminal import OnTerminal


def test_exit_status_is_exact(ssh: Ssh) -> None:
    for status in (0, 1, 7, 42, 126, 127, 128, 254, 255):
        assert ssh.run(f"exit {status}").status == status


def test_output_and_errors_stay_apart(ssh: Ssh) -> None:
    ended = ssh.run("echo out; echo err >&2; exit 3")
    assert (ended.status, ended.out, ended.err) == (3, b"out\n", b"err\n")


@pytest.mark.parametrize("name", ["KILL", "TERM", "HUP", "ABRT", "USR1"])
def test_a_program_killed_by_a_signal_is_reported_as_such_and_nothing_else_is(ssh: Ssh, name: str) -> None:
    async def ended() -> SSHCompletedProcess:
        async with asyncio.timeout(60), connection(ssh) as made:
            return await made.run(f"kill -{name} $$")

    report = asyncio.run(ended())
    assert (report.exit_signal and report.exit_signal[0], report.stdout, report.stderr) == (name, "", "")
    assert ssh.run(f"kill -{name} $$") == Ended(255, b"", b"")  # OpenSSH's answer to exit-signal


def test_a_status_as_of_a_signal_stays_a_status(ssh: Ssh) -> None:
    assert ssh.run("exit 137") == Ended(137, b"", b"")
    assert ssh.run("sh -c 'kill -TERM $$'; exit $?").status == 143


def test_a_program_begins_as_under_sshd(ssh: Ssh) -> None:
    """No signal is ignored, blocked or caught, but for the C library's own two; only the standard streams are open."""
    for options in ((), ("-tt",), ("-n",)):
        ended = ssh.run("cat /proc/self/status; echo fds: /proc/self/fd/*", options=options, stdin=b"x")
        output = dict(line.split(":", 1) for line in ended.out.decode().splitlines() if ":" in line)
        assert [int(output[f"Sig{kind}"], 16) & ~(3 << 31) for kind in ("Blk", "Ign", "Cgt")] == [0, 0, 0], options
        assert [Path(path).name for path in output["fds"].split()][:-1] == ["0", "1", "2"], options


def test_a_login_shell_is_named_as_one(ssh: Ssh) -> None:
    assert ssh.run(stdin=b'echo "$0" "$#"; shopt -q login_shell && echo login\n').out == b"-bash 0\nlogin\n"
    with OnTerminal(ssh.argv(options=("-tt",))) as terminal:
        terminal.enter('echo "my name is $0."; exit 4')
        terminal.expect(rb"my name is -bash\.\r\n")
        assert terminal.until_end() == 4


@pytest.mark.parametrize("term", ["xterm-nobody-knows", "tmux-256color"])
def test_a_terminal_nobody_knows_here_works_as_the_usual_one(ssh: Ssh, term: str) -> None:
    ended = ssh.run('echo "$TERM"; clear >/dev/null && tput colors', options=("-tt",), environ={"TERM": term})
    assert ended.status == 0, ended
    assert ended.out.split() == [term.replace("nobody-knows", "256color").encode(), b"256"]


def test_missing_command_is_127(ssh: Ssh) -> None:
    ended = ssh.run("no-such-command-here")
    assert ended.status == 127
    assert b"no-such-command-here" in ended.err


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("echo hi; echo there", b"hi\nthere\n"),
        ("/bin/ls / | wc -l | tr -d ' 0-9'", b"\n"),
        ("/bin/false; echo $?", b"1\n"),
        ("cd /tmp && /bin/echo a > f-$$ && cat f-$$ && rm f-$$", b"a\n"),
        ("/bin/sleep 0.1 && echo ok", b"ok\n"),
        ("/bin/echo $((6*7)) \"$(echo 'a  b')\"", b"42 a  b\n"),
        ("cd /bin && /bin/echo tru[e]", b"true\n"),
        ("cat <<'X'\nline $one\nline 'two'\nX\n", b"line $one\nline 'two'\n"),
        ("printf '%s\\n' 'single' \"dou\\\"ble\" back\\\\slash '$HOME'", b'single\ndou"ble\nback\\slash\n$HOME\n'),
    ],
)
def test_the_whole_string_goes_to_the_shell(ssh: Ssh, command: str, out: bytes) -> None:
    ended = ssh.run(command)
    assert (ended.status, ended.out, ended.err) == (0, out, b"")


def test_bytes_that_are_not_utf8_arrive(ssh: Ssh) -> None:
    assert ssh.run(b"printf %s '\xff\xfe\x80\xe9' | od -An -tx1").out.split() == [b"ff", b"fe", b"80", b"e9"]


def test_a_command_of_120_kilobytes_runs(ssh: Ssh) -> None:
    ended = ssh.run("x=" + "a" * 120_000 + "; echo ${#x}")
    assert (ended.status, ended.out) == (0, b"120000\n")


def test_a_command_longer_than_the_kernel_takes_is_one_sentence(ssh: Ssh) -> None:
    # OpenSSH's own client cannot be given such an argument by the kernel either.
    status, err = run_command(ssh, "x=" + "a" * 131_072)
    assert status == 126
    assert err.count(b"\n") == 1
    assert b"131,071" in err


@pytest.mark.parametrize("blank", [" ", "   ", "\t"])
def test_a_blank_command_ends_and_harms_nobody(ssh: Ssh, blank: str) -> None:
    neighbour = ssh.start("read line; echo $line")
    assert ssh.run(blank, limit=20).status == 0
    out, _ = neighbour.communicate(b"still here\n", timeout=20)
    assert (neighbour.returncode, out) == (0, b"still here\n")


def test_an_empty_command_ends_and_harms_nobody(ssh: Ssh) -> None:
    neighbour = ssh.start("read line; echo $line")
    assert run_command(ssh, "")[0] == 0
    out, _ = neighbour.communicate(b"still here\n", timeout=20)
    assert (neighbour.returncode, out) == (0, b"still here\n")


def test_a_shell_without_terminal_reads_lines_from_stdin(ssh: Ssh) -> None:
    ended = ssh.run(stdin=b"echo one\nfalse\necho two $?\nexit 9\n")
    assert (ended.status, ended.out) == (9, b"one\ntwo 1\n")


def test_fifty_at_once_keep_their_status(ssh: Ssh) -> None:
    with ThreadPoolExecutor(10) as pool:
        ended = list(pool.map(lambda _: ssh.run("exit 3", limit=110), range(50)))
    assert [one.status for one in ended] == [3] * 50, {one.both for one in ended}


def test_a_background_program_that_holds_the_output_is_waited_for(ssh: Ssh) -> None:
    # As OpenSSH does: the channel ends when its output has.
    ended = ssh.run("(sleep 1; echo later) & echo now")
    assert (ended.status, ended.out) == (0, b"now\nlater\n")
