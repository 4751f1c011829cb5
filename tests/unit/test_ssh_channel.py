"""Session channels, seen by OpenSSH's client: what it asks for arrives, what programs say comes back."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from sshgate.config.model import Access, Ssh
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import Exec, Shell, Subsystem
from tests.hostile.front_door import FrontDoor, front_door
from tests.hostile.polling import until
from tests.hostile.terminal import OnTerminal

ACCESS = Access(accept_env=("LANG", "LC_*", "GIT_*"))


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    async with front_door(tmp_path, access=ACCESS) as opened:
        yield opened


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 137, 254, 255])
async def test_exit_status_is_exact(door: FrontDoor, status: int) -> None:
    assert (await door.ssh(f"exit {status}")).status == status


async def test_program_killed_by_a_signal_never_reads_as_success(door: FrontDoor) -> None:
    assert (await door.ssh("kill -9 $$")).status == 255


async def test_stdout_and_stderr_stay_apart_without_a_terminal(door: FrontDoor) -> None:
    result = await door.ssh("echo out; echo err >&2")
    assert (result.out, result.err) == (b"out\n", b"err\n")


async def test_end_of_stdin_is_a_half_close(door: FrontDoor) -> None:
    assert (await door.ssh("cat | wc -c", stdin=b"x")).out.strip() == b"1"


async def test_twenty_megabytes_come_back_unchanged(door: FrontDoor) -> None:
    data = os.urandom(20 << 20)
    result = await door.ssh("cat", stdin=data, limit=60)
    assert hashlib.sha256(result.out).digest() == hashlib.sha256(data).digest()


async def test_status_survives_unread_stdin(door: FrontDoor) -> None:
    assert (await door.ssh("exit 5", stdin=bytes(10 << 20))).status == 5


async def test_output_arrives_whole_before_the_status(door: FrontDoor) -> None:
    result = await door.ssh("head -c 3000000 /dev/zero; exit 9")
    assert (len(result.out), result.status) == (3_000_000, 9)


async def test_command_arrives_as_the_bytes_it_is(door: FrontDoor) -> None:
    command = b"printf '%s\\n' 'a b' \"$0\"; # \xff\xfe \xc3\xa9\necho '$HOME' \\\\ \t x"
    await door.ssh(command)
    assert door.programs.logins[0].requests[0].kind == Exec(command)


async def test_command_of_120_kib_passes(door: FrontDoor) -> None:
    command = b"wc -c <<'END'\n" + b"x" * 120_000 + b"\nEND"
    assert (await door.ssh(command)).out.strip() == b"120001"


async def test_command_above_200_kib_still_reaches_the_gateway(door: FrontDoor) -> None:
    words = [b"true"] + [b"x" * 100_000] * 2
    await door.ssh(*words)
    assert door.programs.logins[0].requests[0].kind == Exec(b" ".join(words))


async def test_shell_without_a_command(door: FrontDoor) -> None:
    result = await door.ssh(stdin=b"echo from a shell\nexit 3\n")
    assert (result.out, result.status) == (b"from a shell\n", 3)
    assert door.programs.logins[0].requests[0].kind == Shell()


async def test_subsystem_is_asked_by_name(door: FrontDoor) -> None:
    await door.ssh("sftp", options=["-s"])
    assert door.programs.logins[0].requests[0].kind == Subsystem("sftp")


async def test_accepted_variables_arrive_and_others_do_not(door: FrontDoor) -> None:
    sent = ["LANG=C.UTF-8", "LC_TIME=a b!", "GIT_PROTOCOL=version=2", "LD_PRELOAD=/x", "PATH=/x", "OTHER=x"]
    await door.ssh("true", options=["-o", "SetEnv=" + " ".join(f'"{text}"' for text in sent)])
    assert door.programs.logins[0].requests[0].environment == {
        "LANG": b"C.UTF-8",
        "LC_TIME": b"a b!",
        "GIT_PROTOCOL": b"version=2",
    }


async def test_variables_that_change_how_commands_run_are_never_accepted(tmp_path: Path) -> None:
    async with front_door(tmp_path, access=Access(accept_env=("*",))) as door:
        names = ["LD_PRELOAD", "PATH", "BASH_ENV", "ENV", "IFS", "FINE"]
        await door.ssh("true", options=["-o", "SetEnv=" + " ".join(f"{name}=x" for name in names)])
        assert list(door.programs.logins[0].requests[0].environment) == ["FINE"]


async def test_terminal_has_the_clients_size_and_type(door: FrontDoor) -> None:
    async with OnTerminal(door, "stty size; echo $TERM", columns=91, rows=33, term="screen-256color") as client:
        assert await client.until_end() == 0
        assert client.output == b"33 91\r\nscreen-256color\r\n"


async def test_terminal_modes_arrive(door: FrontDoor) -> None:
    async with OnTerminal(door, "true") as client:
        await client.until_end()
    terminal = door.programs.logins[0].requests[0].terminal
    assert terminal is not None
    assert terminal.modes[3] == 127  # VERASE, RFC 4254 section 8


async def test_after_a_thousand_resizes_the_last_one_counts(door: FrontDoor) -> None:
    async with OnTerminal(door, "read x; stty size") as client:
        await until(lambda: door.programs.logins and door.programs.logins[0].running)
        for step in range(1000):
            client.resize(columns=80 + step % 100, rows=24 + step % 50)
        client.resize(columns=123, rows=45)
        await asyncio.to_thread(client.settle)
        client.type(b"\n")
        assert await client.until_end() == 0
        assert b"45 123" in client.output


async def test_control_c_reaches_the_program_as_an_interrupt(door: FrontDoor) -> None:
    async with OnTerminal(door, "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 1; done") as client:
        await client.until_output(b"ready")
        client.type(b"\x03")
        assert await client.until_end() == 4
        assert b"caught" in client.output


async def test_escape_sends_a_break(door: FrontDoor) -> None:
    async with OnTerminal(door, "trap 'echo broken; exit 6' INT; echo ready; while :; do sleep 1; done") as client:
        await client.until_output(b"ready")
        client.type(b"\r~B")
        assert await client.until_end() == 6


async def test_terminal_without_a_size_reads_as_80_by_24(door: FrontDoor) -> None:
    assert (await door.ssh("stty size", options=["-tt"])).out == b"24 80\r\n"


async def test_a_defect_in_a_channel_ends_that_channel_alone(door: FrontDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Flow.put

    def defective(flow: Flow, data: bytes, *stream: int) -> None:
        assert data != b"defect"
        put(flow, data, *stream)

    monkeypatch.setattr(Flow, "put", defective)
    async with (
        asyncio.timeout(20),
        asyncssh.connect(
            "127.0.0.1", door.port, username="user", client_keys=[str(door.key)], known_hosts=None, config=None
        ) as connection,
    ):
        whole, broken = [await connection.create_process("cat", encoding=None) for _ in range(2)]
        broken.stdin.write(b"defect")
        await broken.wait_closed()
        whole.stdin.write(b"whole")
        whole.stdin.write_eof()
        assert await whole.stdout.read() == b"whole"
    await until(lambda: door.programs.logins[0].running == 0)


async def test_reader_that_leaves_ends_the_session(door: FrontDoor) -> None:
    client = await door.start("cat /dev/zero")
    assert client.stdout is not None
    await client.stdout.read(1)
    # As `| head -c 1` does: the client's output is closed while the client itself lives on.
    client.stdout._transport.close()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        await client.wait()
    await until(lambda: door.programs.logins[0].running == 0)


async def test_killed_client_ends_the_session(door: FrontDoor) -> None:
    client = await door.start("sleep 100")
    await until(lambda: door.programs.logins and door.programs.logins[0].running)
    client.kill()
    await until(lambda: door.programs.logins[0].running == 0 and door.programs.logins[0].closed)


async def test_killed_client_is_noticed_while_its_input_waits(door: FrontDoor) -> None:
    client = await door.start("sleep 100")
    assert client.stdin is not None
    client.stdin.write(bytes(4 << 20))
    await until(lambda: door.programs.logins and door.programs.logins[0].running)
    client.kill()
    await until(lambda: door.programs.logins[0].running == 0)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="gate-") as place:
        yield Path(place)


async def test_sessions_of_one_connection_do_not_disturb_each_other(door: FrontDoor, short_path: Path) -> None:
    master = ["-o", f"ControlPath={short_path}/%C"]
    first = await door.start("cat", options=[*master, "-o", "ControlMaster=yes"])
    await until(lambda: list(short_path.glob("?" * 40)))
    others = await asyncio.gather(*(door.ssh(f"exit {n}", options=master) for n in range(1, 9)))
    assert [result.status for result in others] == list(range(1, 9))
    assert (await door.ssh("kill -9 $$", options=master)).status == 255
    out, _ = await first.communicate(b"still here")
    assert (out, first.returncode) == (b"still here", 0)
    assert len(door.programs.logins) == 1


async def test_sessions_above_the_limit_are_refused_and_the_connection_goes_on(
    tmp_path: Path, short_path: Path
) -> None:
    async with front_door(tmp_path, ssh=Ssh(channels_per_connection=2)) as door:
        master = ["-o", f"ControlPath={short_path}/%C"]
        first = await door.start("cat", options=[*master, "-o", "ControlMaster=yes"])
        await until(lambda: list(short_path.glob("?" * 40)))
        second = await door.start("cat", options=master)
        await until(lambda: door.programs.logins[0].running == 2)
        third = await door.ssh("true", options=master)
        assert b"Session open refused by peer" in third.err
        assert third.status == 0  # on a connection of its own
        assert len(door.programs.logins) == 2
        for client in (second, first):
            assert (await client.communicate(b"x"))[0] == b"x"


async def test_fifty_commands_at_once_keep_their_status(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door:
        results = await asyncio.gather(*(door.ssh("exit 3", limit=60) for _ in range(50)))
        assert [result.status for result in results] == [3] * 50


async def test_greeting_is_shown_to_an_interactive_shell_only(tmp_path: Path) -> None:
    async with front_door(tmp_path, ssh=Ssh(greeting="Welcome.\nBe nice.")) as door:
        async with OnTerminal(door) as client:
            await client.until_output(b"Welcome.\r\nBe nice.\r\n")
            client.type(b"exit\n")
            await client.until_end()
        assert (await door.ssh("true", options=["-tt"])).out == b""
        assert (await door.ssh(stdin=b"exit\n")).out == b""


async def test_banner_is_shown_before_login(tmp_path: Path) -> None:
    async with front_door(tmp_path, ssh=Ssh(banner="Private.\nGo away.")) as door:
        result = await door.ssh("true", options=["-o", "LogLevel=INFO"])
        assert b"Private.\r\nGo away." in result.err


async def test_a_login_name_of_a_wrong_form_is_explained(tmp_path: Path) -> None:
    """Before the login, and without a word on whether there is such a user."""
    async with front_door(tmp_path) as door:
        for name in ("dev=My_Work", "nobody=My_Work", "dev+GPU"):
            result = await door.ssh("true", user=name, options=["-o", "LogLevel=INFO"])
            assert (result.status, b"sshgate: this is not a login name" in result.err) == (255, True), name
        result = await door.ssh("true", user="no body", options=["-o", "LogLevel=INFO"])
        assert (result.status, b"sshgate:" in result.err) == (255, False)


async def test_forwards_are_refused_and_the_session_goes_on(door: FrontDoor) -> None:
    result = await door.ssh("true", options=["-R", "0:127.0.0.1:9", "-o", "LogLevel=INFO"])
    assert b"remote port forwarding failed" in result.err
    assert result.status == 0
    assert (await door.ssh("true", options=["-R", "0:127.0.0.1:9", "-o", "ExitOnForwardFailure=yes"])).status == 255
    direct = await door.ssh(options=["-W", "127.0.0.1:22"])
    assert direct.status == 255
    assert (await door.ssh("echo $SSH_AUTH_SOCK$DISPLAY", options=["-A", "-X"])).out == b"\n"


@pytest.mark.parametrize("fast_path", [True, False], ids=["ours", "asyncssh"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_keys_are_exchanged_again_under_load(tmp_path: Path, direction: str, fast_path: bool) -> None:
    async with front_door(tmp_path, ssh=Ssh(rekey_bytes=1 << 20, fast_path=fast_path)) as door:
        options = ["-o", "RekeyLimit=1M"]
        if direction == "up":
            result = await door.ssh("wc -c", stdin=bytes(20 << 20), options=options, limit=60)
            assert result.out.strip() == str(20 << 20).encode()
        else:
            result = await door.ssh(f"head -c {20 << 20} /dev/zero", options=options, limit=60)
            assert len(result.out) == 20 << 20


async def test_silent_client_that_answers_is_kept_and_one_that_does_not_is_cut(tmp_path: Path) -> None:
    async with front_door(tmp_path, ssh=Ssh(keepalive=0.2, keepalive_count=2)) as door:
        assert (await door.ssh("sleep 1.5; exit 8")).status == 8
        client = await door.start("sleep 100")
        await until(lambda: len(door.programs.logins) == 2 and door.programs.logins[1].running)
        client.send_signal(signal.SIGSTOP)
        await until(lambda: door.programs.logins[1].running == 0)


async def test_shutdown_warns_running_sessions_and_waits_for_them(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door:
        client = await door.start("sleep 100")
        await until(lambda: door.programs.logins and door.programs.logins[0].running)
        door.server.stop_accepting()
        await door.server.drain(0.1)
        assert door.server.sessions == 1
        await door.server.close()
        out, err = await client.communicate()
        assert (out, err, client.returncode) == (b"", b"cut\n", 255)
        assert door.programs.logins[0].closed
        assert "0 connections, 0 sessions, closed" in repr(door.server)


async def test_drain_ends_with_the_last_session(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door:
        client = await door.start("cat")
        await until(lambda: door.programs.logins and door.programs.logins[0].running)
        door.server.stop_accepting()
        draining = asyncio.create_task(door.server.drain(30))
        assert (await client.communicate(b"bye"))[0] == b"bye"
        async with asyncio.timeout(5):
            await draining
