"""Named sandboxes: `user=work` is one sandbox for every connection, until it is idle, expired or ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.scrape import events
from tests.rig.ssh import Ssh, make_key
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

PROFILES: dict[str, Any] = {
    "default": {},
    "other": {"extends": "default"},
    # A name no other gateway of the tests knows: whichever of them leads keeps to what the pod says.
    "fleeting": {"extends": "default", "limits": {"detached": "1s"}},
    "dying": {"extends": "default", "limits": {"max_lifetime": "5m08s"}},
}


@pytest.fixture(scope="module")
def served(make_gateway: MakeGateway, provider: str) -> Gateway:
    return make_gateway(provider, profiles=PROFILES, telemetry={"audit": "audit.jsonl"})


@pytest.fixture(scope="module")
def dev(served: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(served)


@pytest.fixture(scope="module")
def eve(served: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Ssh:
    """Somebody else, with a key of her own."""
    place: Path = tmp_path_factory.mktemp("eve")
    (served.users / "eve").write_text(make_key(place / "id") + "\n")
    return Ssh(place, served.port, "eve")


@pytest.fixture(autouse=True)
def ended(dev: Ssh) -> Iterator[None]:
    """What a test has made is ended after it."""
    yield
    for line in verb(dev, "sandboxes").splitlines()[1:]:
        if (name := line.split()[0]) != "-":
            assert dev.as_user(f"dev={name}").run("end", options=("-s",)).status == 0


def verb(ssh: Ssh, word: str) -> str:
    """What a verb answers."""
    done = ssh.run(word, options=("-s",))
    assert done.status == 0, done.both
    return done.out.decode()


def test_every_connection_lands_in_the_same_sandbox(dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    assert work.run("echo one > /tmp/mark").status == 0
    assert work.run("cat /tmp/mark").out == b"one\n"
    assert dev.as_user("dev=rest").run("cat /tmp/mark").status == 1
    assert dev.run("cat /tmp/mark").status == 1


def test_a_name_may_come_by_the_environment(dev: Ssh) -> None:
    assert dev.as_user("dev=env").run("touch /tmp/mark").status == 0
    assert dev.run("ls /tmp/mark", options=("-o", "SetEnv=SSHGATE_NAME=env")).out == b"/tmp/mark\n"


def test_two_who_come_at_once_get_the_same_one(dev: Ssh) -> None:
    work = dev.as_user("dev=race")
    clients = [work.start("echo x >> /tmp/both; cat /proc/sys/kernel/random/boot_id >/dev/null") for _ in range(4)]
    assert [client.wait(60) for client in clients] == [0] * 4
    for client in clients:
        client.communicate()
    assert work.run("cat /tmp/both").out == b"x\n" * 4


def test_nobody_joins_lists_or_ends_anothers(dev: Ssh, eve: Ssh) -> None:
    assert dev.as_user("dev=work").run("echo mine > /tmp/mark").status == 0
    hers = eve.as_user("eve=work")
    assert hers.run("cat /tmp/mark").status == 1
    listed = verb(eve, "sandboxes").splitlines()
    assert len(listed) == 2
    assert hers.run("end", options=("-s",)).out == b"sandbox 'work' has ended.\n"
    assert verb(eve, "sandboxes") == "you have no sandboxes.\n"
    assert dev.as_user("dev=work").run("cat /tmp/mark").out == b"mine\n"
    assert hers.run("end", options=("-s",)).status == 1


def test_the_list_says_what_there_is(dev: Ssh) -> None:
    assert verb(dev, "sandboxes") == "you have no sandboxes.\n"
    assert dev.as_user("dev=work").run("true").status == 0
    with_one = dev.as_user("dev+other=more").start("echo up; read x")
    assert with_one.stdout is not None
    assert with_one.stdout.readline() == b"up\n"
    until(lambda: " starting " not in verb(dev, "sandboxes"), 20, "the watch having told of both")
    heading, first, second = verb(dev, "sandboxes").splitlines()
    assert heading.split() == ["NAME", "PROFILE", "STATE", "AGE", "LEFT", "CPU", "MEMORY", "HOME", "POD"]
    assert re.match(r"work +default +detached +\d+s +[78]h\d\dm ", first)
    assert re.match(r"more +other +attached +\d+s +[78]h\d\dm ", second)
    with_one.communicate(b"\n", timeout=20)
    until(lambda: " attached " not in verb(dev, "sandboxes"), 20, "the channel having left")


def test_an_end_ends_what_runs_and_the_next_login_is_a_fresh_one(dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    running = work.start("echo up > /tmp/mark; echo up; exec sleep 600")
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    assert verb(work, "end") == "sandbox 'work' has ended.\n"
    _, output = running.communicate(timeout=30)
    assert running.returncode == 255
    assert output.startswith(b"sshgate: ")
    assert work.run("cat /tmp/mark").status == 1


def test_an_end_by_its_user_is_recorded_with_who_and_which(served: Gateway, dev: Ssh) -> None:
    work = dev.as_user("dev+other=told")
    assert work.run("true").status == 0
    claimed = [e for e in events(served.place / "audit.jsonl") if e["event"] == "sandbox.claim"][-1]
    verb(work, "end")
    (ended,) = (e for e in events(served.place / "audit.jsonl") if e["event"] == "sandbox.end" and "by" in e
                and e["name"] == "told")  # fmt: skip
    assert (ended["by"], ended["user"], ended["key"]) == ("user", "dev", claimed["key"])
    assert (ended["sandbox"], ended["profile"]) == (claimed["sandbox"], "other")
    assert ended["connection"] != claimed["connection"]


def test_an_end_without_a_name_or_of_nothing_is_a_sentence(dev: Ssh) -> None:
    unnamed = dev.run("end", options=("-s",))
    assert unnamed.err == b"sshgate: say which: `ssh -s USER=NAME@HOST end`.\n"
    assert unnamed.status == 126
    nothing = dev.as_user("dev=nothing").run("end", options=("-s",))
    assert nothing.err == b"sshgate: you have no sandbox 'nothing'; `ssh -s USER@HOST sandboxes` lists yours.\n"
    assert nothing.status == 1


def test_a_sandbox_keeps_its_profile(dev: Ssh) -> None:
    assert dev.as_user("dev+other=work").run("touch /tmp/mark").status == 0
    assert dev.as_user("dev=work").run("ls /tmp/mark").out == b"/tmp/mark\n"
    refused = dev.as_user("dev+default=work").run("true")
    assert refused.err == (
        b"sshgate: your sandbox 'work' has the profile 'other'; log in without '+default', or end it first.\n"
    )


def test_a_program_left_running_is_there_next_time_and_that_of_a_client_who_left_is_not(dev: Ssh) -> None:
    work = dev.as_user("dev=work")
    assert work.run("setsid sleep 611 </dev/null >/dev/null 2>&1 & exit 0").status == 0
    gone = work.start("echo up; sleep 622")
    assert gone.stdout is not None
    assert gone.stdout.readline() == b"up\n"
    gone.kill()
    gone.communicate()
    until(lambda: b"sleep 622" not in work.run(COMMANDS).out, 30, "the end of the client's program")
    assert b"sleep 611" in work.run(COMMANDS).out


COMMANDS = "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done 2>/dev/null | grep -v tr"


def test_nobody_who_comes_back_ends_it_unless_a_program_runs(dev: Ssh) -> None:
    assert dev.as_user("dev+fleeting=idle").run("true").status == 0
    assert dev.as_user("dev+fleeting=busy").run("setsid sleep 600 </dev/null >/dev/null 2>&1 & exit 0").status == 0
    until(lambda: "idle " not in verb(dev, "sandboxes"), 60, "the end of the one that nothing runs in")
    assert "busy " in verb(dev, "sandboxes")


def test_a_terminal_is_warned_before_its_sandbox_ends(dev: Ssh) -> None:
    dying = dev.as_user("dev+dying=work")
    with OnTerminal(dying.argv(options=("-tt",))) as terminal:
        terminal.enter("echo rea''dy")
        terminal.expect(b"ready")
        terminal.expect(rb"sshgate: this session ends in 5 minutes: its time is over\.")
        terminal.enter("exit 4")
        assert terminal.until_end() == 4
