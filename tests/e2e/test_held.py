"""Held sessions in named sandboxes, by real ssh: left, joined again, and put back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.rig.cluster import BUSYBOX
from tests.rig.gateway import Gateway
from tests.rig.relay import Relay
from tests.rig.scrape import events
from tests.rig.ssh import Ssh, end, environment
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

TTY = ("-tt",)
PROFILES: dict[str, Any] = {
    "agent": {"extends": "default", "forward": {"agent": True}},
    "default": {"hold": "named"},
    "unheld": {"extends": "default", "hold": "never"},
    "fleeting": {"extends": "default", "limits": {"detached": "1s"}},
    "bare": {"extends": "default", "image": BUSYBOX, "shell": "/bin/sh"},
    "few": {"extends": "default", "limits": {"sessions": 1}},
    "two": {"extends": "default", "limits": {"sessions_per_user": 2}},
}


@pytest.fixture(scope="module")
def served(make_gateway: MakeGateway, provider: str) -> Gateway:
    return make_gateway(provider, profiles=PROFILES, telemetry={"audit": "audit.jsonl"})


@pytest.fixture(scope="module")
def dev(served: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(served)


@pytest.fixture(autouse=True)
def ended(dev: Ssh) -> Iterator[None]:
    """What a test has made is ended after it."""
    yield
    dev.end_named()


def on(ssh: Ssh, *command: str, columns: int = 80) -> OnTerminal:
    return OnTerminal(ssh.argv(*command, options=TTY), columns)


def test_a_shell_is_left_and_joined_again_with_its_history(dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    with on(work) as terminal:
        terminal.enter("for i in $(seq 1 200); do echo history-$i; done; sleep 2 && echo la''ter &")
        terminal.expect(b"history-200\r\n")
    time.sleep(2.5)
    with on(work) as terminal:
        shown = terminal.expect(b"history-200\r\n.*later").string.decode()
        numbers = [int(one) for one in re.findall(r"history-(\d+)\r\n", shown)]
        assert numbers == list(range(1, 201))
        terminal.enter("exit 7")
        assert terminal.until_end() == 7
    with on(work) as terminal:
        terminal.enter("echo fre''sh; exit")
        terminal.expect(b"fresh")


def test_sessions_have_names_and_new_begins_another(dev: Ssh) -> None:
    with on(dev.as_user("dev=work=build"), "echo up; sleep 600") as terminal:
        terminal.expect(b"up")
    with on(dev.as_user("dev=work=new")) as terminal:
        terminal.enter("echo se''cond; read x")
        terminal.expect(b"second")
        assert b"up" not in terminal.output
        with on(dev.as_user("dev=work=build"), "echo another") as again:
            again.expect(b"up")
            again.type(b"\x03")
            assert again.until_end() in (130, 255)  # a status, or a signal


def test_a_session_that_somebody_uses_is_not_joined_unasked(dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    with on(work) as first:
        first.enter("echo fi''rst; read x")
        first.expect(b"first")
        with on(work) as second:
            second.enter("echo sec''ond; exit")
            second.expect(b"second")
            second.until_end()
        first.type("\r")


def test_a_silent_client_is_given_up_after_two_seconds(dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    with on(work) as first:
        first.enter("echo fi''rst; cat")
        first.expect(b"first")
        first.client.send_signal(signal.SIGSTOP)
        clients = _children(first.client.pid)
        for pid in clients:
            os.kill(pid, signal.SIGSTOP)
        try:
            with on(work) as second:
                second.expect(b"first")
                second.type(b"\x03")
                second.expect(rb"\^C.*\$ ")
                second.enter("exit 3")
                assert second.until_end() == 3
        finally:
            for pid in (*clients, first.client.pid):
                os.kill(pid, signal.SIGCONT)


def test_a_slow_client_that_its_program_floods_is_not_given_up(dev: Ssh) -> None:
    """Its answer comes behind all output that waits for it, but it takes some of that."""
    with Relay(dev.port, slow=64 * 1024) as relay, on(replace(dev, port=relay.port, user="dev=work")) as slow:
        slow.enter("echo u''p; yes | head -c 50000000; read x")
        slow.expect(b"up")
        slow.drain(1)
        with on(dev.as_user("dev=work")) as other:
            other.enter("echo oth''er; exit")
            other.expect(b"other")
            assert other.until_end() == 0
        (work,) = json.loads(dev.run("sessions", "--json", options=("-s",)).out)
        assert [one["state"].split()[0] for one in work["sessions"]] == ["attached"]
        slow.drain(0.5)
        assert b"no sign of life" not in slow.output


def test_a_client_that_sleeps_at_the_end_of_its_session_reads_the_status_at_the_next_login(dev: Ssh) -> None:
    with on(dev.as_user("dev=work=sleeps"), "echo u''p; sleep 2; exit 5") as sleeping:
        sleeping.expect(b"up")
        clients = [*_children(sleeping.client.pid), sleeping.client.pid]
        for pid in clients:
            os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: "ended: status 5" in dev.run("sessions", options=("-s",)).both, 20, "its end")
            with on(dev.as_user("dev=work")) as terminal:
                terminal.expect(rb"session sleeps \(.*\) ended while you were away: status 5")
                terminal.enter("exit")
                terminal.until_end()
        finally:
            for pid in clients:
                os.kill(pid, signal.SIGCONT)


def test_a_client_terminal_is_put_back_when_the_session_is_killed(dev: Ssh) -> None:
    modes = r"printf '\033[?1049h\033[?1000;1006h\033[?2004h\033[?25l\033[>1u'; echo dr''awn; kill -9 $$"
    with on(dev.as_user("dev=work=draws")) as terminal:
        terminal.enter(modes)
        terminal.expect(b"drawn")
        terminal.until_end()
        left = terminal.output
    for undone in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?1006l", b"\x1b[?2004l", b"\x1b[?25h", b"\x1b[<1u"):
        assert undone in left


def test_what_is_not_held_is_as_before(dev: Ssh) -> None:
    work = dev.as_user("dev+unheld=plain")
    with on(work) as terminal:
        terminal.enter("echo be''fore")
        terminal.expect(b"before")
    with on(work) as terminal:
        terminal.enter("echo af''ter; exit")
        terminal.expect(b"after")
        assert b"before" not in terminal.output
    refused = dev.as_user("dev+unheld=plain=build").run("true", options=TTY)
    assert "sessions are not held here (profile 'unheld')" in refused.both
    assert refused.status == 126
    # Pipes are never held.
    assert dev.as_user("dev=work").run("cat", stdin=b"through").out == b"through"


def test_a_sandbox_has_so_many_sessions(dev: Ssh) -> None:
    few = dev.as_user("dev+few=few")
    for _ in range(2):  # one that has ended is in nobody's way
        with on(few, "echo do''ne") as terminal:
            terminal.expect(b"done")
            assert terminal.until_end() == 0
    with on(few, "echo o''ne; sleep 600") as terminal:
        terminal.expect(b"one")
    with on(few, "echo tw''o") as terminal:
        terminal.expect(b"this sandbox has 1 sessions, as many as it may: `ssh -s USER=NAME@HOST sessions` lists them")
        assert terminal.until_end() != 0
    (left,) = json.loads(few.run("sessions", "--json", options=("-s",)).out)[0]["sessions"]
    done = dev.as_user(f"dev=few={left['name']}").run("end-session", options=("-s",))
    assert done.status == 0, done.both
    with on(few, "echo th''ree") as terminal:
        terminal.expect(b"three")


def test_a_user_has_so_many_sessions_in_all_sandboxes(dev: Ssh) -> None:
    one, two = dev.as_user("dev+two=one"), dev.as_user("dev+two=two")
    for user in (one, two):
        with on(user, "echo u''p; sleep 600") as terminal:
            terminal.expect(b"up")
    with on(two, "echo th''ree") as terminal:
        terminal.expect(b"you have 2 sessions in your sandboxes, as many as you may: `ssh -s USER@HOST sessions`")
        assert terminal.until_end() != 0
    assert dev.as_user("dev=one=1").run("end-session", options=("-s",)).status == 0
    with on(two, "echo th''ree") as terminal:
        terminal.expect(b"three")


@pytest.mark.parametrize("provider", ["kubernetes"], indirect=True)  # local sandboxes have this machine's programs
def test_who_has_no_python3_reads_why_nothing_is_held(dev: Ssh) -> None:
    why = "no python3 that could keep sessions; install python3 in its image"
    with on(dev.as_user("dev+bare=work")) as terminal:
        terminal.enter("echo he''re")
        terminal.expect(b"here\r\n")
        listed = dev.run("sessions", options=("-s",))
        assert (listed.status, "work: " in listed.both, why in listed.both) == (0, True, True), listed.both
    with on(dev.as_user("dev+bare=work=build")) as terminal:
        terminal.expect(b"this program is not held: .*" + why.encode())


def test_sessions_are_listed_and_ended(served: Gateway, dev: Ssh) -> None:
    with on(dev.as_user("dev=work=build"), "printf '\\033]0;the title\\007'; echo up; sleep 600") as terminal:
        terminal.expect(b"up")
        (attached,) = json.loads(dev.run("sessions", "--json", options=("-s",)).out)
        assert attached["sandbox"] == "work"
        assert attached["sessions"][0]["state"].startswith("attached from 127.0.0.1")
        assert (attached["sessions"][0]["name"], attached["sessions"][0]["title"]) == ("build", "the title")
        assert attached["sessions"][0]["program"].startswith("printf")
    until(lambda: " detached " in dev.run("sessions", options=("-s",)).both, 20, "the client having left")
    heading, row = dev.as_user("dev=work").run("sessions", options=("-s",)).out.decode().splitlines()
    assert heading.split() == ["SANDBOX", "SESSION", "PROGRAM", "TITLE", "STATE", "SINCE", "AGE", "SIZE", "QUIET"]
    assert row.startswith("work     build    printf")
    done = dev.as_user("dev=work=build").run("end-session", options=("-s",))
    assert done.out == b"session 'build' has ended.\n"
    until(lambda: "ended: signal HUP" in dev.run("sessions", options=("-s",)).both, 20, "its end")
    with on(dev.as_user("dev=work")) as terminal:
        terminal.expect(rb"session build \(printf.*\) ended while you were away: signal HUP")
        terminal.enter("exit")
        terminal.until_end()
    assert dev.run("sessions", options=("-s",)).out == b"you have no held sessions.\n"
    ends = [one for one in events(served.place / "audit.jsonl") if one["event"] == "session.held_end"]
    assert [(one["name"], one.get("ending"), one.get("by")) for one in ends if one["name"] == "build"] == [
        ("build", None, "user"), ("build", "signal HUP", None),
    ]  # fmt: skip
    refused = dev.as_user("dev=work=none").run("end-session", options=("-s",))
    assert refused.err == b"sshgate: you have no session 'none' there; `ssh -s USER=work@HOST sessions` lists them.\n"
    assert dev.run("end-session", options=("-s",)).status == 126
    assert dev.as_user("dev=other").run("sessions", options=("-s",)).status == 1


def test_an_idle_shell_goes_and_a_running_program_keeps_the_sandbox(dev: Ssh) -> None:
    idle, busy = dev.as_user("dev+fleeting=idle"), dev.as_user("dev+fleeting=busy")
    with on(busy) as terminal:
        terminal.enter("echo u''p; sleep 600")
        terminal.expect(b"up")
    with on(idle) as terminal:
        terminal.enter("echo u''p")
        terminal.expect(b"up")

    def names() -> list[str]:
        return [line.split()[0] for line in dev.run("sandboxes", options=("-s",)).out.decode().splitlines()[1:]]

    until(lambda: "idle" not in names(), 60, "the sandbox of the idle shell being ended")
    assert "busy" in names()


def test_the_end_of_a_scripts_input_ends_its_program_and_a_closed_window_does_not(dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    done = work.run("cat; echo ov''er", options=TTY, stdin=b"some input\n")
    assert (done.status, done.out.count(b"some input"), b"over" in done.out) == (0, 2, True)
    with on(work) as terminal:
        terminal.enter("echo u''p")
        terminal.expect(b"up")
    time.sleep(1)
    with on(work) as terminal:
        terminal.expect(b"up")
        terminal.enter("exit")
        terminal.until_end()


def test_a_scripts_input_is_typed_into_no_program_that_was_left(dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    with on(work, "echo u''p; cat") as terminal:
        terminal.expect(b"up")
    done = work.run(options=TTY, stdin=b"echo de''ployed; exit 4\n")
    assert (done.status, b"deployed" in done.out) == (4, True)
    with on(work) as terminal:
        terminal.expect(b"up")
        assert b"ployed" not in terminal.output
        terminal.type(b"\x04")
        terminal.until_end()


def test_the_agent_of_the_program_is_that_of_the_last_client(dev: Ssh, tmp_path: Path) -> None:
    """Begun without an agent, joined with one: SSH_AUTH_SOCK is what it was, SSHGATE_AGENT leads to it."""
    work = dev.as_user("dev+agent=work")
    with on(work) as terminal:
        terminal.enter('echo "agent: ${SSH_AUTH_SOCK-unset}"; export SSH_AUTH_SOCK=$SSHGATE_AGENT')
        terminal.expect(b"agent: unset")
        terminal.enter("ssh-add -l; echo stat''us $?")
        terminal.expect(b"status 2")
    path = str(tmp_path / "agent")
    running = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        until(lambda: Path(path).exists(), 10, "the agent")
        subprocess.run(["ssh-add", "-q", dev.key], check=True, env=environment(SSH_AUTH_SOCK=path))
        with OnTerminal(
            work.argv(options=("-tt", "-A", "-o", f"IdentityAgent={path}")), environ={"SSH_AUTH_SOCK": path}
        ) as terminal:
            terminal.enter("clear; ssh-add -l; echo stat''us $?")
            terminal.expect(b"ED25519.*status 0")
    finally:
        end(running)
    with on(work) as terminal:
        terminal.enter("clear; ssh-add -l; echo stat''us $?; exit")
        terminal.expect(b"status 2")
        terminal.until_end()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
