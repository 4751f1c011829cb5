"""``ssh HOST COMMAND``: what comes out, and how it ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.rig.library import run_command
from tests.rig.ssh import Ssh


def test_exit_status_is_exact(ssh: Ssh) -> None:
    for status in (0, 1, 7, 42, 126, 127, 128, 254, 255):
        assert ssh.run(f"exit {status}").status == status


def test_output_and_errors_stay_apart(ssh: Ssh) -> None:
    ended = ssh.run("echo out; echo err >&2; exit 3")
    assert (ended.status, ended.out, ended.err) == (3, b"out\n", b"err\n")


def test_program_killed_by_a_signal_never_reads_as_success(ssh: Ssh) -> None:
    assert ssh.run("kill -9 $$").status in (137, 255)
    assert ssh.run("sh -c 'kill -TERM $$'; exit $?").status == 143


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
