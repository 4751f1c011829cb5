"""Connections as OpenSSH's users make them: shared, idle, rekeyed, kept alive, refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig.forwarding import master
from tests.rig.gateway import Gateway
from tests.rig.library import login_answer
from tests.rig.ssh import Ssh, end, make_key
from tests.rig.waiting import until


def test_with_a_scope_of_channel_each_has_its_own_sandbox_and_status(
    gateway: Callable[..., Gateway], provider: str, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    ssh = user_at(gateway(provider, profiles={"default": {"scope": "channel"}}))
    with master(ssh, tmp_path) as control:
        first = ssh.start("echo mine > /tmp/mark; read line; cat /tmp/mark; exit 4", options=control)
        second = ssh.run("test -e /tmp/mark; echo $?; exit 5", options=control)
        assert (second.status, second.out) == (5, b"1\n")
        out, _ = first.communicate(b"\n", timeout=20)
        assert (first.returncode, out) == (4, b"mine\n")


def test_killing_one_client_of_a_connection_leaves_the_others(ssh: Ssh, tmp_path: Path) -> None:
    with master(ssh, tmp_path) as control:
        flood = ssh.start("yes", options=control)
        other = ssh.start("read line; echo got $line", options=control)
        assert flood.stdout is not None
        flood.stdout.read(100_000)
        flood.kill()
        flood.communicate()
        out, _ = other.communicate(b"it\n", timeout=20)
        assert (other.returncode, out) == (0, b"got it\n")


def test_channels_of_one_connection_share_the_sandbox_and_have_their_own_status(ssh: Ssh, tmp_path: Path) -> None:
    with master(ssh, tmp_path) as control:
        first = ssh.start("echo kept > /tmp/mark; read line; exit 4", options=control)
        until(lambda: ssh.run("cat /tmp/mark; exit 5", options=control).out == b"kept\n", 20, "the file of the other")
        assert ssh.run("exit 5", options=control).status == 5
        first.communicate(b"\n", timeout=20)
        assert first.returncode == 4
        assert ssh.run("cat /tmp/mark", options=control).out == b"kept\n"
    assert ssh.run("cat /tmp/mark").status == 1


def test_a_connection_without_sessions_makes_no_sandbox(ssh: Ssh, shared: Gateway) -> None:
    # -N waits; the log says when somebody logged in, and of a session it must say nothing.
    sessions = shared.log().count("session.start")
    client = subprocess.Popen(ssh.argv(options=("-N", "-v")), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert client.stderr is not None
    for line in client.stderr:
        if b"Entering interactive session" in line or b"pledge:" in line:
            break
    end(client)
    client.stderr.close()
    assert shared.log().count("session.start") == sessions


def test_agent_forwarding_brings_no_agent(ssh: Ssh) -> None:
    assert ssh.run('echo "[$SSH_AUTH_SOCK]"', options=("-A",)).out == b"[]\n"


def test_keys_are_exchanged_again_under_load(ssh: Ssh) -> None:
    data = bytes(range(256)) * 4096 * 8
    ended = ssh.run("cat", options=("-o", "RekeyLimit=1M"), stdin=data)
    assert ended.status == 0
    assert ended.out == data


def test_the_clients_questions_are_answered(ssh: Ssh) -> None:
    # With one second between questions and none that may stay unanswered, silence would end it.
    options = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
    assert ssh.run("sleep 4; echo alive", options=options).out == b"alive\n"


def test_host_keys_are_announced_and_survive_a_restart(
    gateway: Callable[..., Gateway], local: None, user_at: Callable[[Gateway], Ssh]
) -> None:
    served = gateway("local")
    ssh = user_at(served)
    # `accept-new` learns one key; the announcement brings the other, once it is proven.
    learn = ("-o", "UpdateHostKeys=yes", "-o", "HostKeyAlgorithms=ssh-ed25519,rsa-sha2-512")
    until(
        lambda: (
            ssh.run("sleep 0.3", options=learn).status == 0 and "ssh-rsa" in (ssh.place / "known_hosts").read_text()
        ),
        20,
        "the RSA key being learnt",
    )
    served.stop()
    served.start()
    strict = ("-o", "StrictHostKeyChecking=yes")
    assert ssh.run("exit 3", options=(*strict, "-o", "HostKeyAlgorithms=rsa-sha2-512")).status == 3
    assert ssh.run("exit 3", options=strict).status == 3


@pytest.mark.parametrize(
    "user",
    ["", "x" * 300, "../dev", "dev/../dev", "$(id)", "d\u0435v", "-dev", ".dev", "..", "nobody",
     "dev+", "dev=", "=x", "+x", "dev+UPPER", "dev=" + "x" * 64, " dev", "root"],
)  # fmt: skip
def test_odd_and_unknown_names_are_refused_alike(ssh: Ssh, user: str) -> None:
    # OpenSSH's client sends only some of these.
    assert login_answer(ssh, user) == "PermissionDenied: Permission denied for user " + user + " on host 127.0.0.1"


def test_a_wrong_key_is_refused_as_an_unknown_user_is(ssh: Ssh, tmp_path: Path) -> None:
    make_key(tmp_path / "id")
    wrong = Ssh(tmp_path, ssh.port).run("echo in")
    unknown = Ssh(tmp_path, ssh.port, "nobody").run("echo in")
    assert wrong.status == unknown.status == 255
    assert wrong.err.replace(b"dev@", b"") == unknown.err.replace(b"nobody@", b"")


@pytest.mark.parametrize("user", ["_a", "a_", "a.b@c", "A" * 100, "0"])
def test_unusual_names_log_in(ssh: Ssh, shared: Gateway, user: str) -> None:
    (shared.users / user).write_text(Path(f"{ssh.key}.pub").read_text())
    ended = ssh.as_user(user).run("echo in")
    assert (ended.status, ended.out) == (0, b"in\n")


def test_a_profile_that_is_not_there_is_one_sentence(ssh: Ssh) -> None:
    ended = ssh.as_user("dev+nothing").run("echo in")
    assert ended.status == 254
    assert ended.err.count(b"\n") == 1
    assert b"'nothing'" in ended.err
