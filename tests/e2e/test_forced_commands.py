"""Keys that may run one command and nothing else: what a client cannot make of them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_authorized_keys import Door
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ended, Ssh, environment

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def served(make_gateway: Callable[..., Gateway], local: None, user_at: Callable[[Gateway], Ssh]) -> Door:
    gateway = make_gateway("local")
    return Door(gateway, user_at(gateway))


@pytest.fixture
def door(served: Door) -> Iterator[Door]:
    served.allow()
    yield served
    served.allow()
    served.ssh.as_user("dev=repo").run(options=("-s", "end"))


def test_a_key_that_may_only_fetch_runs_nothing_else(door: Door, tmp_path: Path) -> None:
    far = door.ssh.as_user("dev=repo")
    made = far.run(
        "git init -q /tmp/repo && cd /tmp/repo && git -c user.name=d -c user.email=d@x commit -q --allow-empty -m one"
    )
    assert made.status == 0, made.both
    door.allow('command="git upload-pack /tmp/repo",restrict')
    # The client's git is configured to send what makes the far git run a program of the client's.
    hook = {
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "uploadpack.packObjectsHook",
        "GIT_CONFIG_VALUE_0": "touch /tmp/pwned; exec", "GIT_EXTERNAL_DIFF": "touch /tmp/pwned",
        "CLAUDE_CONFIG_DIR": "/tmp/mine", "ANTHROPIC_BASE_URL": "http://evil.example",
    }  # fmt: skip
    sent = ("-o", "SetEnv=" + " ".join(f'{name}="{text}"' for name, text in hook.items()))
    ssh = shlex.join(list(map(str, far.argv(options=sent)))[:-2])  # git adds host and command
    cloned = subprocess.run(
        ["git", "clone", "-q", "ssh://dev=repo@127.0.0.1/tmp/repo", tmp_path / "back"],
        env=environment(GIT_SSH_COMMAND=ssh, GIT_SSH_VARIANT="ssh"),
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert cloned.returncode == 0, cloned.stderr
    door.allow()
    assert far.run("ls /tmp/pwned").status == 2
    door.allow('command="env",restrict')
    sent = ("-o", f"{sent[1]} GIT_PROTOCOL=version=2 LANG=C NO_COLOR=1")
    names = {line.split(b"=")[0] for line in far.run(options=sent).out.splitlines()}
    assert names >= {b"GIT_PROTOCOL", b"LANG", b"NO_COLOR"}
    assert not names & {name.encode() for name in hook}


def test_its_sandbox_is_the_login_names_or_the_key_lines_never_a_variables(door: Door) -> None:
    far = door.ssh.as_user("dev=repo")
    chosen = ("-o", "SetEnv=SSHGATE_NAME=repo")
    door.allow()
    assert far.run("echo named >/tmp/mark").status == 0
    assert door.run("cat /tmp/mark", *chosen).out == b"named\n"
    door.allow('command="cat /tmp/mark"')
    assert door.run("x", *chosen).status == 1
    assert far.run("x").out == b"named\n"
    door.allow('command="cat /tmp/mark",environment="SSHGATE_NAME=repo"')
    assert door.run("x").out == b"named\n"
    other = door.ssh.as_user("dev=other").run("x")
    assert (other.status, "your key is for 'repo' only" in other.both) == (254, True)


def files(door: Door, *commands: str, user: str = "dev=repo") -> Ended:
    """What sftp says to these commands."""
    argv = ["sftp", *door.ssh.options(), "-P", str(door.ssh.port), "-b", "-", f"{user}@127.0.0.1"]
    done = subprocess.run(argv, input="\n".join(commands).encode(), capture_output=True, timeout=60, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_internal_sftp_opens_files_and_no_shell(door: Door, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    door.allow('command="internal-sftp"')
    done = files(door, "pwd", f"put {tmp_path}/file here", "ls")
    assert (done.status, b"Remote working directory" in done.out, b"here" in done.out) == (0, True, True), done.both
    for command in ((), ("id",)):
        refused = door.ssh.as_user("dev=repo").run(*command)
        assert (refused.status, "your key is for sftp only" in refused.both) == (254, True)
    door.allow('command="internal-sftp -R -d /usr"')
    done = files(door, "pwd", f"put {tmp_path}/file /tmp/written")
    assert b"Remote working directory: /usr" in done.out
    assert b"Permission denied" in done.err


def test_a_wrapper_can_go_on_with_what_was_asked(door: Door, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    door.allow('command="exec $SSH_ORIGINAL_COMMAND"')
    done = files(door, f"put {tmp_path}/file here", "ls")
    assert (done.status, b"here" in done.out) == (0, True), done.both
    for old in ((), ("-O",)):
        argv = [
            "scp",
            *old,
            "-q",
            *door.ssh.options(),
            "-P",
            str(door.ssh.port),
            tmp_path / "file",
            "dev=repo@127.0.0.1:",
        ]
        subprocess.run(argv, check=True, timeout=60, capture_output=True)
    assert door.ssh.as_user("dev=repo").run("cat file").out == b"content"


def test_a_url_may_name_a_profile(door: Door) -> None:
    argv = ["ssh", *door.ssh.options(), f"ssh://dev+default@127.0.0.1:{door.ssh.port}", "echo", "in"]
    done = subprocess.run(argv, check=False, timeout=60, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"in\n"), done.stderr
