"""Launchers on terminals, and the signals that reach their programs from a second exec."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sshgate.sandbox import launcher
from sshgate.sandbox import side_scripts as sidescripts
from sshgate.sandbox.launcher import Program
from sshgate.stream.interfaces import Exec, Request, Shell
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.rig.launching import BYTES, CLEAN, PATIENCE, SHELLS, Pty, parked
from tests.rig.waiting import until


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The words that run one of the shells."""
    words = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} on this machine")
    return words


def shown(program: Program, words: Sequence[str] = ("/bin/sh",), size: TerminalSize = TerminalSize()) -> str:  # noqa: B008
    """All that a terminal shows of a program, from the mark that it is out of raw mode."""
    with Pty(words, size) as terminal:
        terminal.type(launcher.line(program))
        assert terminal.read_until(launcher.TERMINAL_MARK) == b"", "the line was echoed"
        return terminal.read_all().decode().replace("\r\n", "\n")


def on_terminal(command: bytes, modes: dict[int, int] | None = None, **environment: bytes) -> Program:
    return Program(Request(Exec(command), Terminal("xterm-256color", modes=modes or {}), environment))


def test_a_terminal_is_sane_and_of_the_right_size(shell: tuple[str, ...]) -> None:
    text = shown(on_terminal(b"stty size; stty -a"), shell, TerminalSize(132, 43))
    assert text.startswith("43 132\n")
    settings_ = set(re.split(r"[\s;]+", text))
    assert {"icanon", "echo", "isig", "opost", "icrnl", "onlcr"} <= settings_


def test_a_terminal_says_its_type_and_name() -> None:
    assert re.fullmatch(
        r"xterm-256color /dev/pts/\d+ yes\n", shown(on_terminal(b"echo $TERM $SSH_TTY $(tty -s && echo yes)"))
    )


@pytest.mark.parametrize(
    ("term", "became"),
    [
        ("vt100", "vt100"),
        ("dumb", "dumb"),
        ("xterm-nobody-knows", "xterm-256color"),
        ("my-own", "my-own"),
        ("dir-one", "dir-one"),
    ],
)
def test_a_type_of_terminal_that_the_image_does_not_know_becomes_the_usual_one(
    shell: tuple[str, ...], term: str, became: str, tmp_path: Path
) -> None:
    for place in ("home/.terminfo/m/my-own", "one/d/dir-one"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    program = Program(
        Request(Exec(b'echo $TERM; echo "[$IFS]" | od -An -c'), Terminal(term)),
        {"HOME": f"{tmp_path}/home".encode(), "TERMINFO_DIRS": f"/nowhere:{tmp_path}/one".encode()},
    )
    assert shown(program, shell).split() == [became, "[", "\\t", "\\n", "]", "\\n"]


def test_long_and_odd_values_pass_the_raw_terminal(shell: tuple[str, ...]) -> None:
    value = b"x" * 9000 + BYTES
    assert shown(on_terminal(b'printf %s "$A" | cksum; printf %s "$A" | wc -c', A=value), shell).splitlines()[
        1
    ].strip() == str(len(value))


@pytest.mark.parametrize(
    ("modes", "words"),
    [
        ({3: 8}, ["erase = ^H"]),
        ({1: 1, 5: 2}, ["intr = ^A", "eof = ^B"]),
        ({1: 255}, ["intr = <undef>"]),
        ({1: ord("'")}, ["intr = '"]),
        ({53: 0}, ["-echo"]),
        ({72: 0, 38: 0, 42: 1}, ["-onlcr", "-ixon", "iutf8"]),
        ({53: 1, 3: 127, 999: 5, 128: 38400}, ["echo", "erase = ^?"]),
    ],
)
def test_modes_of_the_client_are_set(modes: dict[int, int], words: list[str]) -> None:
    text = shown(on_terminal(b"stty -a", modes))
    for word in words:
        assert re.search(rf"(^|[\s;]){re.escape(word)}([\s;]|$)", text), text


def test_interrupts_reach_the_program() -> None:
    with Pty() as terminal:
        terminal.type(launcher.line(on_terminal(b"trap 'echo caught; exit 4' INT; echo ready; sleep 60 & wait")))
        terminal.read_until(b"ready")
        terminal.type(b"\x03")
        terminal.read_until(b"caught")
        assert terminal.running.wait(PATIENCE) == 4


# --- signals from a second exec ---


def aside(argv: Sequence[str], shell: Sequence[str] = ("/bin/sh",)) -> list[str]:
    """The words that the script said, of which the last is a dot."""
    # Each script looks at every process of this machine, several times.
    done = subprocess.run([*shell, *argv[1:]], timeout=3 * PATIENCE, check=True, env=CLEAN, capture_output=True)
    assert done.stderr == b""
    return done.stdout.decode().split()


@contextlib.contextmanager
def started(command: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has said ``ready``."""
    with parked() as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(launcher.line(Program(Request(Exec(command)))))
        assert running.stdout.readline() == b"ready\n"
        yield running


def test_a_signal_reaches_the_whole_group() -> None:
    with started(
        b"trap 'wait; echo told; exit 5' TERM; (trap 'echo child; exit' TERM; echo ready; sleep 60 & wait) & wait"
    ) as p:
        assert aside(sidescripts.signal_argv([sidescripts.signal_item(p.pid, "TERM")])) == ["."]
        assert p.stdout is not None
        assert p.stdout.read() == b"child\ntold\n"
        assert p.wait(PATIENCE) == 5


def test_a_signal_to_the_foreground_leaves_the_shell() -> None:
    with Pty() as terminal:
        terminal.type(launcher.line(Program(Request(Shell(), Terminal()), {"PS1": b"$ ", "ENV": b""}, "/bin/sh")))
        terminal.read_until(launcher.TERMINAL_MARK)
        terminal.type(b"echo read''y; sleep 77; echo st=$?\n")
        terminal.read_until(b"ready\r\n")
        until(lambda: b"sleep 77" in subprocess.run(["ps", "-o", "args", "-g", str(terminal.running.pid)],
                                                    capture_output=True, check=False).stdout)  # fmt: skip
        assert aside(
            sidescripts.signal_argv([sidescripts.signal_item(terminal.running.pid, "TERM", foreground=True)])
        ) == ["."]
        terminal.read_until(b"st=143")
        terminal.type(b"exit 6\n")
        assert terminal.running.wait(PATIENCE) == 6


def test_who_catches_a_hangup_and_goes_on_is_killed() -> None:
    with started(b"trap : HUP; echo ready; while :; do sleep 1; done") as p:
        assert aside(sidescripts.end_argv([str(p.pid)])) == ["begun", "."]
        assert p.wait(PATIENCE) == -signal.SIGKILL


def test_who_was_started_to_outlive_a_hangup_stays() -> None:
    mine = f"0.{os.getpid()}"  # no other run's

    def left() -> list[int]:
        report = subprocess.run(["pgrep", "-fx", f"sleep 6[67]{mine}"], capture_output=True, check=False).stdout
        return [int(pid) for pid in report.split()]

    command = f"nohup sleep 66{mine} >/dev/null & setsid sleep 67{mine} & echo ready; exec sleep 68"
    try:
        with started(command.encode()) as p:
            until(lambda: len(left()) == 2, PATIENCE, "both programs: a hang-up before nohup is one ends it")
            assert aside(sidescripts.end_argv([str(p.pid)])) == ["begun", "."]
            assert p.wait(PATIENCE) == -signal.SIGHUP
            assert len(left()) == 2
    finally:
        for pid in left():
            os.kill(pid, signal.SIGKILL)


def test_who_heeds_a_hangup_ends_by_it() -> None:
    with started(b"echo ready; sleep 60") as p:
        assert aside(sidescripts.end_argv([str(p.pid)])) == ["begun", "."]
        assert p.wait(PATIENCE) == -signal.SIGHUP


def test_ending_a_group_that_is_gone_is_no_error() -> None:
    with parked() as running:
        running.kill()
        running.wait(PATIENCE)
        assert aside(sidescripts.end_argv([str(running.pid)])) == ["begun", "."]


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_who_has_a_child_is_busy_and_who_has_ended_is_gone(shell: tuple[str, ...]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} on this machine")
    with started(b"echo ready; read line; sleep 60 & echo busy; wait") as p, started(b"echo ready; read x") as idle:
        pids = [str(p.pid), str(idle.pid)]
        assert aside(sidescripts.busy_argv(pids), shell) == ["."]
        assert p.stdin is not None
        assert p.stdout is not None
        p.stdin.write(b"go\n")
        assert p.stdout.readline() == b"busy\n"
        assert aside(sidescripts.busy_argv(pids), shell) == [pids[0], "."]
        assert aside(sidescripts.gone_argv(pids), shell) == ["."]
        idle.kill()
        idle.wait(PATIENCE)
        assert aside(sidescripts.gone_argv(pids), shell) == [pids[1], "."]


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_a_signal_comes_once(shell: tuple[str, ...]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} on this machine")
    # A real-time signal is queued, so none is lost in another of its kind; busybox has only its number.
    count = (
        "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, {s.SIGRTMIN}); print('ready', flush=True); input(); "
        "print(sum(1 for _ in iter(lambda: s.sigtimedwait({s.SIGRTMIN}, 0), None)), flush=True)"
    )
    with started(f"exec {sys.executable} -c {shlex.quote(count)}".encode()) as p:
        assert aside(sidescripts.signal_argv([f"g{p.pid}:{signal.SIGRTMIN:d}"]), shell) == ["."]
        assert p.stdin is not None
        assert p.stdout is not None
        p.stdin.write(b"go\n")
        assert p.stdout.readline() == b"1\n"


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_many_are_signalled_and_hung_up_by_one_script(shell: tuple[str, ...]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} on this machine")
    # Not a shell, which forks: between fork and exec its child would catch what is sent to the group as well.
    catch = (
        "import signal as s; both = {s.SIGUSR1, s.SIGUSR2}; s.pthread_sigmask(s.SIG_BLOCK, both); "
        "print('ready', flush=True); print(s.sigwait(both).name, s.sigwait(both).name, flush=True); exit(4)"
    )
    with (
        started(f"exec {sys.executable} -c {shlex.quote(catch)}".encode()) as signalled,
        started(b"echo ready; exec sleep 60") as calm,
        started(b"trap : HUP; echo ready; while :; do sleep 0.1; done") as stubborn,
    ):
        items = [sidescripts.signal_item(signalled.pid, name) for name in ("USR1", "USR2")]
        assert aside(sidescripts.signal_argv([*items, sidescripts.signal_item(2**22 + 1, "TERM")]), shell) == ["."]
        assert signalled.stdout is not None
        assert sorted(signalled.stdout.read().split()) == [b"SIGUSR1", b"SIGUSR2"]
        assert signalled.wait(PATIENCE) == 4
        assert aside(sidescripts.end_argv([str(calm.pid), str(stubborn.pid)]), shell) == ["begun", "."]
        assert calm.wait(PATIENCE) == -signal.SIGHUP
        assert stubborn.wait(PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_many_are_hung_up_on_a_line_and_not_sooner_than_their_parent_notices(shell: tuple[str, ...]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} on this machine")
    running = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(sidescripts.FEW + 1)]

    def zombies() -> list[subprocess.Popen[bytes]]:
        return [one for one in running if ") Z" in Path(f"/proc/{one.pid}/stat").read_text()]

    argv = (*shell, *sidescripts.end_argv([str(one.pid) for one in running])[1:])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as script:
        assert script.stdin is not None
        assert script.stdout is not None
        assert script.stdout.readline() == b"begun\n"
        time.sleep(0.1)
        assert not zombies()
        script.stdin.write(b"\n")
        script.stdin.close()
        while running:
            most = min(len(running), sidescripts.TOGETHER)
            until(lambda: len(zombies()) >= most, PATIENCE)  # noqa: B023
            time.sleep(0.3)
            ended = zombies()
            assert len(ended) == most
            for one in ended:
                assert one.wait() == -signal.SIGHUP
                running.remove(one)
        assert script.stdout.read() == b".\n"


@pytest.mark.parametrize("name", ["", "int", "INT;reboot", "-9", "9", "$(x)", "A" * 17, "INT\n", "XY", "_BLOCK"])
def test_only_names_of_signals_are_sent(name: str) -> None:
    with pytest.raises(ValueError, match="not a signal name"):
        sidescripts.signal_item(1, name)
