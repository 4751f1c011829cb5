"""The shell command that starts everything, run by the shells that images have, on pipes."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshgate.errors import BadRequest
from sshgate.sandbox import launcher
from sshgate.sandbox import side_scripts as sidescripts
from sshgate.sandbox.launcher import Program, ReadyMark
from sshgate.stream.interfaces import Exec, Request, Shell, Subsystem
from sshgate.stream.terminal import Terminal
from tests.rig.launching import BYTES, CLEAN, PATIENCE, SHELLS, Pty, Ran, parked, run


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The words that run one of the shells."""
    words = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} on this machine")
    return words


def run_exec(command: bytes, **more: bytes) -> Ran:
    return run(Program(Request(Exec(command), environment=more)))


def test_every_byte_of_a_command_arrives(shell: tuple[str, ...]) -> None:
    ran = run(Program(Request(Exec(b"printf %s " + launcher.quote(BYTES)))), words=shell)
    assert ran == Ran(0, BYTES, b"")


def test_every_byte_of_a_variable_arrives(shell: tuple[str, ...]) -> None:
    program = Program(Request(Exec(b'printf "%s|%s" "$A" "$B"'), environment={"A": BYTES}), {"B": BYTES, "A": b"ours"})
    assert run(program, words=shell) == Ran(0, BYTES + b"|" + BYTES, b"")


def test_input_after_the_line_is_the_programs(shell: tuple[str, ...]) -> None:
    stdin = os.urandom(1_000_000)
    assert run(Program(Request(Exec(b"cat"))), stdin, shell) == Ran(0, stdin, b"")


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_any_command_is_taken_whole(data: bytes) -> None:
    text = data.replace(b"\0", b"")
    assert run_exec(b"printf %s " + launcher.quote(text)).out == text


def test_the_end_mark_follows_the_last_byte_of_each_output(shell: tuple[str, ...]) -> None:
    program = Program(Request(Exec(b"cat; echo out; echo err >&2; exit 6")))
    with parked(shell) as running:
        out, err = running.communicate(launcher.line(program, b"MARK") + b"in\n", PATIENCE)
    assert (out, err, running.returncode) == (b"in\nout\nMARK", b"err\nMARK", 6)


def test_with_no_input_the_end_of_stdin_is_the_launchers_alone(shell: tuple[str, ...]) -> None:
    """The program sees its input end at once; the launcher ends only with its own."""
    with parked(shell) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(launcher.line(Program(Request(Exec(b"cat; exit 6"))), b"MARK", no_input=True))
        assert running.stdout.read(4) == b"MARK"
        assert running.poll() is None
        running.stdin.close()
        assert running.wait(PATIENCE) == 6


@pytest.mark.parametrize(
    ("command", "status", "killed"),
    [
        (b"kill -KILL $$", 137, True),
        (b"kill -TERM $$", 143, True),
        (b"kill -HUP $$", 129, True),
        (b"kill -SEGV $$", 139, True),
        (b"exit 137", 137, False),
        (b"exec 3>&2 2>/dev/null; sh -c 'kill -TERM $$'; exit $?", 143, False),
        (b"exit 0", 0, False),
    ],
)
def test_a_killed_program_differs_from_a_status_and_the_shell_prints_nothing(
    shell: tuple[str, ...], command: bytes, status: int, killed: bool
) -> None:
    with parked(shell) as running:
        text = launcher.line(Program(Request(Exec(command))), b"MARK")
        out, err = running.communicate(text + b"MARK", PATIENCE)
    if shell[0] == "bash":
        killed = False  # as /bin/sh it says so too late, and the status has to do
    assert (out, err, running.returncode) == (b"MARK", b"MARK" + launcher.KILLED * killed, status)


def test_no_descriptor_of_the_launcher_reaches_the_program(shell: tuple[str, ...]) -> None:
    with parked(shell) as running:
        out, _ = running.communicate(launcher.line(Program(Request(Exec(b"echo /dev/fd/*"))), b"MARK") + b"MARK")
    assert out.split()[:3] == [b"/dev/fd/0", b"/dev/fd/1", b"/dev/fd/2"]
    assert len(out.split()) == 4 + (b"MARK" not in out.split()[3]), out


@pytest.mark.parametrize("mark", [None, b"MARK"])
def test_signals_are_as_a_program_expects_them(shell: tuple[str, ...], mark: bytes | None) -> None:
    """None ignored, none blocked, none caught: what sshd gives."""
    with parked(shell) as running:
        program = Program(Request(Exec(b"exec cat /proc/self/status")))
        out, _ = running.communicate(launcher.line(program, mark) + b"MARK", PATIENCE)
    printed = dict(line.split(b":", 1) for line in out.splitlines() if b":" in line)
    assert [int(printed[b"Sig" + kind], 16) for kind in (b"Blk", b"Ign", b"Cgt")] == [0, 0, 0]


def test_the_launchers_tools_are_the_systems_and_the_programs_the_images(tmp_path: Path) -> None:
    """A user's directory may be the first of an image's PATH."""
    for name in ("stty", "id", "cat", "tail", "tty", "sleep"):
        trap = tmp_path / name
        trap.write_text(f"#!/bin/sh\n: >{tmp_path}/ran-{name}\n")
        trap.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    with parked(PATH=path) as running:
        out, _ = running.communicate(launcher.line(Program(Request(Exec(b"echo $PATH; id"))), b"MARK"), PATIENCE)
    assert out == path.encode() + b"\nMARK"
    with Pty(PATH=path) as terminal:
        terminal.type(launcher.line(Program(Request(Exec(b"echo $PATH"), Terminal()))))
        assert path.encode() in terminal.read_all()
    assert subprocess.run(sidescripts.end_argv([str(1 << 22)]), env={"PATH": path}, check=False).returncode == 0
    assert [file.name for file in tmp_path.glob("ran-*")] == ["ran-id"]


def test_a_profile_sets_the_programs_path() -> None:
    assert run(Program(Request(Exec(b"echo $PATH")), {"PATH": b"/x:/bin"})).out == b"/x:/bin\n"


def test_an_image_whose_tools_are_elsewhere_can_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's directories come first, not alone."""
    (tmp_path / "sftp-server").write_text("#!/bin/sh\necho served\n")
    (tmp_path / "sftp-server").chmod(0o755)
    monkeypatch.setattr(launcher, "SFTP_SERVERS", ())  # those of this machine would come first
    assert run(Program(Request(Subsystem("sftp"))), PATH=f"{tmp_path}:/bin").out.endswith(b"served\n")


MUCH = 2 * launcher.UNTAKEN
WRITES_MUCH = Program(Request(Exec(b"read x; head -c %d /dev/zero; exit 6" % MUCH)))


def test_much_output_is_waited_for_when_its_input_had_ended(shell: tuple[str, ...]) -> None:
    """Until somebody says that it has come: before that nothing may end the connection."""
    with parked(shell) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(launcher.line(WRITES_MUCH, b"MARK") + b"in\nmore")
        running.stdin.close()
        _read(running.stdout, MUCH + 4)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        subprocess.run(sidescripts.signal_argv([sidescripts.taken_item(running.pid)]), check=True)
        assert running.wait(PATIENCE) == 6


def test_much_output_is_not_waited_for_when_the_mark_ends_its_input(shell: tuple[str, ...]) -> None:
    with parked(shell) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(launcher.line(WRITES_MUCH, b"MARK") + b"in\n" + bytes(range(256)))
        _read(running.stdout, MUCH + 4)
        assert running.poll() is None
        running.stdin.write(b"MARK")
        running.stdin.close()
        assert running.wait(PATIENCE) == 6


def _read(output: IO[bytes], size: int) -> None:
    while size > 0:
        data = output.read(size)
        assert data
        size -= len(data)


def test_the_process_id_is_the_programs() -> None:
    with parked() as running:
        out, _ = running.communicate(launcher.line(Program(Request(Exec(b"echo $$")))), PATIENCE)
        assert int(out) == running.pid


@pytest.mark.parametrize(
    ("command", "ran"),
    [
        (b"echo hi; echo there", Ran(0, b"hi\nthere\n", b"")),
        (b"/bin/echo a b | wc -c", Ran(0, b"4\n", b"")),
        (b"/bin/false; echo $?", Ran(0, b"1\n", b"")),
        (b"/bin/sleep 0 && echo ok", Ran(0, b"ok\n", b"")),
        (b"echo out; echo err >&2; exit 7", Ran(7, b"out\n", b"err\n")),
        (b"kill -9 $$", Ran(-9, b"", b"")),
        (b"", Ran(0, b"", b"")),
        (b"  \n ", Ran(0, b"", b"")),
        (b"no-such-program", Ran(127, b"", b"bash: line 1: no-such-program: command not found\n")),
        (b"/etc/passwd", Ran(126, b"", b"bash: line 1: /etc/passwd: Permission denied\n")),
        (b"echo $0 $#", Ran(0, b"bash 0\n", b"")),
    ],
)
def test_a_command_does_as_under_openssh(command: bytes, ran: Ran) -> None:
    assert run_exec(command) == ran


@pytest.mark.parametrize("mark", [None, b"MARK"])
def test_shells_start_as_login_shells_by_their_name(shell: tuple[str, ...], mark: bytes | None) -> None:
    text = launcher.line(Program(Request(Shell())), mark)
    with parked(shell) as running:
        out, err = running.communicate(text + b'shopt -q login_shell && echo login "$0" "$#" "$-"; exit 3\n', PATIENCE)
    assert (running.returncode, out.removesuffix(b"MARK"), err.removesuffix(b"MARK")) == (
        3,
        b"login -bash 0 hBs\n",
        b"",
    )


@pytest.mark.parametrize("name", ["dash", "sh"])
def test_every_shell_is_a_login_shell_by_its_name(name: str) -> None:
    assert run(Program(Request(Shell()), shell=f"/bin/{name}"), b"echo $0\n").out == f"-{name}\n".encode()


def test_a_bash_env_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("echo read\n")
    program = Program(Request(Shell()), {"BASH_ENV": f"{tmp_path}/env".encode()})
    assert run(program, b"shopt -q login_shell && echo login\n").out == b"read\nlogin\n"


def test_nothing_of_the_launcher_is_left_in_the_environment() -> None:
    out = run_exec(b"env", LANG=b"C").out.decode()
    names = {line.partition("=")[0] for line in out.splitlines()}
    assert names <= {*CLEAN, "LANG", "SHELL", "USER", "LOGNAME", "PWD", "OLDPWD", "SHLVL", "_"}
    assert {"SHELL=/bin/bash", "LANG=C"} <= set(out.splitlines())


def test_programs_start_in_the_home_directory(tmp_path: Path) -> None:
    program = Program(Request(Exec(b"pwd")), {"HOME": str(tmp_path).encode()})
    assert run(program).out == f"{tmp_path}\n".encode()


def test_a_home_that_is_missing_is_no_hindrance() -> None:
    assert run(Program(Request(Exec(b"echo ok")), {"HOME": b"/nowhere"})) == Ran(0, b"ok\n", b"")


def test_an_image_without_the_wanted_shell_uses_another_one() -> None:
    ran = run(Program(Request(Exec(b"echo $0 $SHELL")), shell="/nowhere/bash"))
    assert ran == Ran(0, b"sh /bin/sh\n", b"")
    ran = run(Program(Request(Exec(b"echo $0")), {"SHELL": b"/bin/dash"}, shell="/nowhere/bash"))
    assert ran.out in (b"dash\n", b"sh\n")


def test_variables_no_shell_can_set_are_left_out() -> None:
    environment = {"1A": b"x", "A-B": b"x", "A;reboot": b"x", "": b"x", "NUL": b"a\0b", "OK": b"fine"}
    ran = run(Program(Request(Exec(b"echo $OK; env | grep -c NUL"), environment=environment)))
    assert ran.out == b"fine\n0\n"


def test_the_longest_command_runs() -> None:
    command = b"echo " + b"x" * (launcher.LONGEST_COMMAND - 5)
    assert run_exec(command).out == command[5:] + b"\n"


def test_sftp_is_the_sandboxes_own_server() -> None:
    if not any(os.access(path, os.X_OK) for path in launcher.SFTP_SERVERS):
        pytest.skip("no sftp-server on this machine")
    with parked() as running:
        assert running.stdin is not None
        assert running.stdout is not None
        # SSH_FXP_INIT of version 3. Input stays open: at its end the server drops what it has not yet said.
        running.stdin.write(launcher.line(Program(Request(Subsystem("sftp")))) + struct.pack(">IBI", 5, 1, 3))
        assert running.stdout.read(1) == launcher.SERVER_MARK
        assert running.stdout.read(5)[4] == 2  # SSH_FXP_VERSION
        running.stdin.close()
        assert running.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Request(Exec(b"a\0b")), "NUL byte"),
        (Request(Exec(b"x" * (launcher.LONGEST_COMMAND + 1))), r"131,072 bytes long .* send it on stdin instead"),
        (Request(Subsystem("netconf")), "no subsystem 'netconf'"),
        (Request(Shell(), environment={"BIG": b"x" * launcher.LONGEST_COMMAND}), "the variable BIG is longer"),
        (
            Request(Shell(), environment={f"V{number}": b"x" * 100_000 for number in range(11)}),
            "the environment is too large",
        ),
    ],
)
def test_what_no_kernel_starts_is_refused_with_a_sentence(request_: Request, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        launcher.line(Program(request_))


@given(st.binary(max_size=400), st.binary(max_size=50))
def test_a_line_is_one_line_of_plain_text(command: bytes, value: bytes) -> None:
    request = Request(Exec(command.replace(b"\0", b"")), Terminal("x\n'"), {"A": value})
    text = launcher.line(Program(request))
    assert re.fullmatch(rb"[\x20-\x7e]+\n", text)


# --- the mark ---


@given(st.binary(max_size=100).filter(lambda data: b"\1" not in data), st.integers(1, 2**22), st.data())
def test_the_mark_is_found_however_it_is_cut(before: bytes, pid: int, cut: st.DataObject) -> None:
    text = before + b"\1%d\2" % pid
    mark = ReadyMark()
    while text:
        size = cut.draw(st.integers(1, len(text)))
        found = mark.feed(text[:size])
        text = text[size:]
        assert (found is None) == bool(text)
    assert found == pid


def test_what_is_no_launcher_is_noticed() -> None:
    mark = ReadyMark()
    assert mark.feed(b"Welcome!" * 100) is None
    with pytest.raises(ValueError, match="Welcome!"):
        mark.feed(b"x" * ReadyMark.LONGEST)
