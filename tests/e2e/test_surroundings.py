"""What a session is given and what it meets: environment, greeting, limits, signals, and the closed door."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable

import pytest

from tests.rig.gateway import Gateway
from tests.rig.library import connection
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal

MakeGateway = Callable[..., Gateway]
UserAt = Callable[[Gateway], Ssh]


def test_a_session_knows_where_it_is_and_who_came(ssh: Ssh) -> None:
    names = "SSH_CLIENT SSH_CONNECTION HOME SHELL USER LOGNAME PATH"
    ended = ssh.run(f'for name in {names}; do eval "echo $name=\\$$name"; done; cd ~ && pwd && test -w .')
    assert ended.status == 0
    output = dict(line.split("=", 1) for line in ended.out.decode().splitlines() if "=" in line)
    assert output["SSH_CLIENT"].split()[0] == "127.0.0.1"
    assert output["SSH_CONNECTION"].split()[2:] == ["127.0.0.1", str(ssh.port)]
    assert output["USER"] == output["LOGNAME"]
    assert ended.out.decode().splitlines()[-1] == output["HOME"]
    assert output["SHELL"].startswith("/")
    assert "/bin" in output["PATH"]


def test_who_one_is_is_the_same_everywhere(ssh: Ssh) -> None:
    output = ssh.run("echo $USER $LOGNAME; whoami; id -un; echo ~; eval echo ~$(whoami); echo $HOME").out.split()
    assert len(set(output[:4])) == 1
    assert len(set(output[4:])) == 1


@pytest.mark.parametrize("provider", ["kubernetes"], indirect=True)  # all local sandboxes see one /etc/passwd
def test_the_login_name_is_a_name_of_the_account(ssh: Ssh) -> None:
    """Ansible asks `echo ~LOGIN` for the place of its jobs."""
    for login in ("dev+default", "dev"):
        asked = f"/bin/sh -c 'echo ~{login} && sleep 0'; getent passwd {login} | cut -d: -f1,6; whoami"
        assert ssh.as_user(login).run(asked).out.decode() == f"/home/dev\n{login}:/home/dev\ndev\n"


@pytest.mark.parametrize("term", ["xterm-kitty", "xterm-ghostty", "foot", "wezterm", "rio", "contour", "alacritty"])
def test_terminals_of_today_are_known_or_the_usual_one(ssh: Ssh, provider: str, term: str) -> None:
    ended = ssh.run('echo "$TERM"; clear >/dev/null && tput colors', options=("-tt",), environ={"TERM": term})
    assert ended.status == 0, ended
    output = ended.out.decode().split()
    assert output[1] == "256"
    assert output[0] == term or (provider == "local" and output[0] == "xterm-256color")


def test_only_variables_on_the_list_are_taken(ssh: Ssh) -> None:
    environ = {
        "GIT_PROTOCOL": "version=2  :x!",
        "GIT_SSH_COMMAND": "x",
        "LD_PRELOAD_X": "x",
        "BASH_ENV": "/x",
        "SECRET": "s",
    }
    options = ("-o", f"SendEnv={' '.join(environ)}")
    ended = ssh.run(
        'echo "$GIT_PROTOCOL|$GIT_SSH_COMMAND|$LD_PRELOAD_X|$BASH_ENV|$SECRET"', options=options, environ=environ
    )
    assert ended.out == b"version=2  :x!||||\n"


def test_the_greeting_is_for_interactive_shells_alone(gateway: MakeGateway, local: None, user_at: UserAt) -> None:
    ssh = user_at(gateway("local", ssh={"greeting": "Mind the gap.", "banner": "Keep out."}))
    with OnTerminal(ssh.argv(options=("-tt",))) as terminal:
        terminal.expect(rb"Mind the gap\.\r\n")
        terminal.enter("exit")
        assert terminal.until_end() == 0
    for ended in (ssh.run("echo on"), ssh.run(stdin=b"echo on\n"), ssh.run("echo on", options=("-tt",))):
        assert b"Mind" not in ended.out + ended.err
        assert b"on" in ended.out
    loud = ssh.run("true", options=("-o", "LogLevel=INFO"))
    assert b"Keep out." in loud.err


def test_nobody_gets_in_while_no_key_is_there(gateway: MakeGateway, local: None, user_at: UserAt) -> None:
    served = gateway("local")
    ssh = user_at(served)
    (served.users / "dev").unlink()
    ended = ssh.run("echo in")
    assert (ended.status, ended.out) == (255, b"")
    assert b"Permission denied" in ended.err


def test_local_sandboxes_are_for_loopback_only(gateway: MakeGateway, local: None) -> None:
    with pytest.raises(AssertionError, match=r"open to others: write 127\.0\.0\.1"):
        gateway("local", host="0.0.0.0")


def test_a_full_quota_is_one_sentence(gateway: MakeGateway, provider: str, user_at: UserAt) -> None:
    ssh = user_at(gateway(provider, limits={"sandboxes_per_user": 1}))
    first = ssh.start("echo up; read line; exit 4")
    assert first.stdout is not None
    assert first.stdout.readline() == b"up\n"
    second = ssh.run("echo in", limit=20)
    assert (second.status, second.out) == (255, b"")
    assert second.err.count(b"\n") == 1
    first.communicate(b"\n", timeout=20)
    assert first.returncode == 4
    assert ssh.run("exit 5").status == 5


def test_signals_and_breaks_reach_the_program(ssh: Ssh) -> None:
    async def send() -> list[str]:
        output = []
        async with asyncio.timeout(60), connection(ssh) as made:
            waits = "trap 'echo got it; exit 3' USR1; echo up; while :; do sleep 0.1; done"
            process = await made.create_process(waits)
            await process.stdout.readline()
            process.send_signal("USR1")
            output.append((await process.stdout.readline()).strip())
            await process.wait_closed()
            output.append(str(process.exit_status))
            on_terminal = await made.create_process(
                "trap 'echo broken; exit 4' INT; echo up; while :; do sleep 0.1; done", term_type="xterm"
            )
            await on_terminal.stdout.readline()
            on_terminal.send_break(500)
            output.append((await on_terminal.stdout.read()).strip().rpartition("^C")[2])
            output.append(str(on_terminal.exit_status))
        return output

    assert asyncio.run(send()) == ["got it", "3", "broken", "4"]


def test_the_sandbox_is_not_this_machine(ssh: Ssh) -> None:
    ended = ssh.run("ls /proc | grep -c '^[0-9]'; cat /proc/net/route | wc -l; touch /usr/x 2>/dev/null; echo $?")
    processes, _, touched = ended.out.split()
    assert int(processes) < 15
    assert touched != b"0"


def test_the_sandbox_has_no_privilege(ssh: Ssh) -> None:
    assert ssh.run("mount -t tmpfs none /mnt 2>/dev/null").status != 0
    assert ssh.run("grep CapEff /proc/self/status").out.split()[-1] == b"0" * 16


def test_an_unknown_subsystem_is_refused_and_named(ssh: Ssh) -> None:
    ended = ssh.run("netconf", options=("-s",))
    assert ended.status != 0
    assert b"netconf" in ended.err


def test_sftp_and_scp_work(ssh: Ssh, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("files")
    batch = place / "batch"
    batch.write_text("mkdir d\nput batch d/copy\nls -l d\nget d/copy back\nrm d/copy\nrmdir d\n")
    port = ["-P", str(ssh.port)]
    done = subprocess.run(
        ["sftp", *ssh.options(), *port, "-b", batch, f"{ssh.user}@127.0.0.1"], cwd=place, capture_output=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (place / "back").read_bytes() == batch.read_bytes()
    for more in ([], ["-O"]):
        got = place / f"got{len(more)}"
        done = subprocess.run(
            ["scp", *more, *ssh.options(), *port, f"{ssh.user}@127.0.0.1:/etc/passwd", got], capture_output=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b":/" in got.read_bytes()
