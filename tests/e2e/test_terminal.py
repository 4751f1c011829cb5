"""An interactive session: sizes, keys, modes and programs that draw."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.rig.gateway import Gateway
from tests.rig.screen import Screen
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal

MIB = 1 << 20
TTY = ("-tt",)


def test_the_first_size_is_the_clients(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv("stty size", options=TTY), columns=123, rows=45) as terminal:
        terminal.expect(b"45 123")
        assert terminal.until_end() == 0


def test_a_thousand_resizes_end_at_the_last_one(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv(options=TTY), columns=80, rows=24) as terminal:
        terminal.enter("echo rea''dy")
        terminal.expect(b"ready")
        for number in range(1000):
            terminal.resize(40 + number % 160, 10 + number % 50)
        terminal.resize(117, 37)
        # The shell learns it some time after the client has.
        for _ in range(40):
            terminal.enter('echo "is $(stty size)"')
            if terminal.expect(rb"\ris (\d+ \d+)|\nis (\d+ \d+)").group(0).endswith(b"37 117"):
                break
            terminal.drain(0.1)
        else:
            pytest.fail("the last size never came")


def test_a_resize_after_the_end_is_harmless(ssh: Ssh, provider: str) -> None:
    with OnTerminal(ssh.argv("exit 6", options=TTY)) as terminal:
        while terminal.client.poll() is None:
            terminal.resize(90, 30)
            terminal.resize(91, 31)
        # A new size that is on its way when a program in a pod ends may cost the status (SECURITY.md).
        assert terminal.until_end() in ((6,) if provider == "local" else (6, 0))


def test_status_of_a_command_on_a_terminal(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv("exit 77", options=TTY)) as terminal:
        assert terminal.until_end() == 77
    # A terminal for the program, none at the client. Input, or its end, that is on its way when a program in a pod ends
    # may cost the status (SECURITY.md).
    ended = ssh.run("tty; exit 8", options=TTY, stdin=None)
    assert ended.status == 8
    assert ended.out.startswith(b"/dev/pts/")


def test_the_terminal_type_and_language_arrive(ssh: Ssh) -> None:
    options = (*TTY, "-o", "SendEnv=LANG LC_TIME")
    environ = {"LANG": "de_DE.UTF-8", "LC_TIME": "C.UTF-8"}
    argv = ssh.argv('echo "$TERM $LANG $LC_TIME"; test -t 0 && test -t 1 && test -t 2', options=options)
    with OnTerminal(argv, term="xterm-256color", environ=environ) as terminal:
        terminal.expect(rb"xterm-256color de_DE.UTF-8 C.UTF-8\r\n")
        assert terminal.until_end() == 0


def test_the_terminal_is_sane(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv("stty -a", options=TTY), columns=100, rows=30) as terminal:
        terminal.until_end()
        output = terminal.output.decode()
    for setting in ("rows 30; columns 100", "intr = ^C", "susp = ^Z", "eof = ^D", "erase = ^?"):
        assert setting in output
    words = re.split(r"[\s;]+", output)
    for setting in ("isig", "icanon", "iexten", "echo", "icrnl", "opost", "onlcr"):
        assert setting in words


def test_interrupt_ends_a_program_and_the_shell_goes_on(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv(options=TTY)) as terminal:
        # It says that it runs: a ^C before that would only end the line.
        terminal.enter("sh -c 'echo run\"\"ning; exec sleep 600'; echo st''atus $?")
        terminal.expect(rb"running\r\n")
        terminal.type(b"\x03")
        terminal.enter("echo st''ill $?")
        terminal.expect(rb"still 130")


def test_suspend_and_foreground(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv(options=TTY)) as terminal:
        terminal.enter("PS1='rea''dy> '")
        terminal.expect(b"ready> ")
        # It says that it runs: what is typed before that has the line end of a shell's own editor.
        terminal.enter("echo be''gun; cat")
        terminal.expect(rb"begun\r\n")
        terminal.enter("one")
        terminal.expect(b"one\r\none")
        terminal.type(b"\x1a")
        terminal.expect(b"Stopped")
        terminal.enter("fg")
        terminal.expect(rb"fg\r\n.*cat\r\n")  # keys are the foreground program's from here on
        terminal.enter("two")
        terminal.expect(b"two\r\ntwo")
        terminal.type(b"\x04")
        terminal.enter("exit 5")
        assert terminal.until_end() == 5


def test_end_of_file_key_logs_out(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv(options=TTY)) as terminal:
        terminal.enter("echo rea''dy")
        # Before the prompt is there, a terminal may take the key for the end of a line.
        terminal.expect(rb"ready.*\$ ")
        terminal.type(b"\x04")
        assert terminal.until_end() == 0


def test_tilde_dot_disconnects(ssh: Ssh) -> None:
    with OnTerminal(ssh.argv(options=TTY)) as terminal:
        terminal.enter("echo rea''dy")
        terminal.expect(b"ready")
        terminal.type(b"\r~.")
        assert terminal.until_end() == 255


@pytest.mark.alone
def test_interrupt_stops_a_flood_within_a_second_and_memory_is_flat(ssh: Ssh, shared: Gateway) -> None:
    with OnTerminal(ssh.argv(options=TTY)) as terminal:
        terminal.enter("PS1='back''> '")
        terminal.expect(b"back> ")
        terminal.enter("yes")
        assert terminal.drain(2) > MIB
        early = shared.memory
        assert terminal.drain(4) > MIB
        assert shared.memory - early < 8 * MIB
        pressed = time.monotonic()
        terminal.type(b"\x03")
        terminal.expect(b"back> ")
        assert time.monotonic() - pressed < 1.0


def test_an_editor_draws_and_writes(ssh: Ssh, tmp_path: Path) -> None:
    with Screen(tmp_path, ssh.argv(options=TTY), columns=100, rows=30) as screen:
        screen.enter("cd /tmp; PS1='ready> '; clear")
        screen.shows("ready>")
        screen.enter("vi -u NONE note")
        screen.shows('"note"')
        screen.press("i")
        screen.enter("first line")
        screen.enter("second line")
        screen.press("Escape")
        lines = screen.lines()
        assert lines[:2] == ["first line", "second line"]
        assert lines[3:28] == ["~"] * 25
        screen.resize(60, 15)
        screen.press("1", "G", "d", "d")
        screen.shows("second line")
        screen.enter(":wq")
        screen.shows("ready>")
        screen.enter("clear; cat note; rm note")
        screen.shows("second line")


def test_a_pager_fills_the_screen_and_gives_it_back(ssh: Ssh, tmp_path: Path) -> None:
    with Screen(tmp_path, ssh.argv(options=TTY), columns=80, rows=20) as screen:
        screen.enter("PS1='ready> '; clear")
        screen.shows("ready>")
        screen.enter("i=0; while [ $i -lt 99 ]; do i=$((i+1)); echo line-$i; done | less")
        assert screen.shows("line-19")[0] == "line-1"
        screen.press("G")
        assert screen.shows("line-99")[18] == "line-99"
        screen.press("q")
        screen.shows("ready>")


def test_top_shows_the_sandbox_alone(ssh: Ssh, tmp_path: Path) -> None:
    with Screen(tmp_path, ssh.argv("top", options=TTY), columns=100, rows=30) as screen:
        screen.shows("PID USER")
        lines = screen.lines()
        running = [line for line in lines[7:] if line.strip()]
        assert 1 <= len(running) <= 12, lines
        screen.press("q")


def test_a_multiplexer_in_the_sandbox_draws_its_status_line(ssh: Ssh, tmp_path: Path) -> None:
    command = "tmux -f /dev/null -S /tmp/inner new-session -s inner"
    with Screen(tmp_path, ssh.argv(command, options=TTY), columns=90, rows=25) as screen:
        assert "[inner]" in screen.shows("[inner]")[24]
        screen.enter("echo in''side; stty size")
        screen.shows("inside")
        screen.shows("24 90")
        screen.enter("exit")
        screen.shows("[exited]")
