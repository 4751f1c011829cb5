"""Peers that have logged in and ask for too much: only they pay."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_UNIMPLEMENTED,
)
from asyncssh.packet import Boolean, String, UInt32

from sshgate.config.model import Access, Ssh
from sshgate.ssh._asyncssh.connection import MSG_PING
from sshgate.stream.terminal import Terminal, TerminalSize
from tests.hostile.backend import OnTerminal
from tests.hostile.front_door import FrontDoor, front_door
from tests.hostile.peer import Peer, peer
from tests.hostile.polling import until

PTY = (String(b"xterm"), UInt32(80), UInt32(24), UInt32(0), UInt32(0), String(b"\0"))


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    async with front_door(tmp_path, access=Access(accept_env=("X*",)), ssh=Ssh(channels_per_connection=50)) as opened:
        yield opened


@pytest.fixture
async def guest(door: FrontDoor) -> AsyncIterator[Peer]:
    """A peer that has logged in."""
    async with peer(door.port) as client:
        await client.log_in(asyncssh.read_private_key(door.key))
        yield client


async def runs(client: Peer, channel: int) -> bool:
    """Whether a command on this channel gives what it should."""
    client.request(channel, b"exec", String(b"echo fine"))
    return (await client.hear(MSG_CHANNEL_DATA))[1] == String(b"fine\n")


async def test_a_thousand_channels_give_fifty(door: FrontDoor, guest: Peer) -> None:
    for number in range(1000):
        guest.say(MSG_CHANNEL_OPEN, String(b"session"), UInt32(number), UInt32(1 << 21), UInt32(32768))
    answers = [(await guest.hear(MSG_CHANNEL_OPEN_CONFIRMATION, MSG_CHANNEL_OPEN_FAILURE))[0] for _ in range(1000)]
    assert answers.count(MSG_CHANNEL_OPEN_CONFIRMATION) == 50
    assert await runs(guest, 0)


async def test_channels_that_the_peer_never_closes_still_count(door: FrontDoor, guest: Peer) -> None:
    for number in range(50):
        channel, _ = await guest.open_channel(number)
        guest.request(channel, b"exec", String(b"true"), reply=False)
        await guest.hear(MSG_CHANNEL_CLOSE)
    guest.say(MSG_CHANNEL_OPEN, String(b"session"), UInt32(50), UInt32(1 << 21), UInt32(32768))
    await guest.hear(MSG_CHANNEL_OPEN_FAILURE)
    guest.say(MSG_CHANNEL_CLOSE, UInt32(0))
    await guest.open_channel(51)


async def test_no_more_sessions_is_kept(guest: Peer) -> None:
    first, _ = await guest.open_channel(0)
    guest.say(MSG_GLOBAL_REQUEST, String(b"no-more-sessions@openssh.com"), Boolean(True))
    await guest.hear(MSG_REQUEST_SUCCESS)
    guest.say(MSG_CHANNEL_OPEN, String(b"session"), UInt32(1), UInt32(1 << 21), UInt32(32768))
    await guest.hear(MSG_CHANNEL_OPEN_FAILURE)
    assert await runs(guest, first)


@pytest.mark.parametrize("kind", [b"session", b"direct-tcpip"])
async def test_channels_with_tiny_packets_are_refused(guest: Peer, kind: bytes) -> None:
    """With packets of a byte each, one client would keep the server busy."""
    more = (String(b"127.0.0.1"), UInt32(22), String(b"127.0.0.1"), UInt32(1)) if kind == b"direct-tcpip" else ()
    for _ in range(100):  # more than a connection may have: none is left behind
        guest.say(MSG_CHANNEL_OPEN, String(kind), UInt32(0), UInt32(1 << 21), UInt32(255), *more)
        _, answer = await guest.hear(MSG_CHANNEL_OPEN_FAILURE, MSG_CHANNEL_OPEN_CONFIRMATION)
        assert b"too small" in answer
    assert await runs(guest, (await guest.open_channel(1, packet=256))[0])


@pytest.mark.parametrize("kind", [b"direct-tcpip", b"direct-streamlocal@openssh.com", b"tun@openssh.com", b"x11", b"?"])
async def test_other_channels_are_refused(guest: Peer, kind: bytes) -> None:
    more = {
        b"direct-tcpip": (String(b"127.0.0.1"), UInt32(22), String(b"127.0.0.1"), UInt32(1)),
        b"direct-streamlocal@openssh.com": (String(b"/run/x"), String(b""), UInt32(0)),
        b"tun@openssh.com": (UInt32(1), UInt32(0)),
    }.get(kind, ())
    guest.say(MSG_CHANNEL_OPEN, String(kind), UInt32(0), UInt32(1 << 21), UInt32(32768), *more)
    await guest.hear(MSG_CHANNEL_OPEN_FAILURE)
    assert await runs(guest, (await guest.open_channel(1))[0])


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (b"direct-tcpip", (String(b"caf\xe9.example"), UInt32(80), String(b"127.0.0.1"), UInt32(1))),
        (b"direct-tcpip", (String(b"127.0.0.1"), UInt32(80), String(b"\xe9"), UInt32(1))),
        (b"direct-streamlocal@openssh.com", (String(b"/run/caf\xe9"), String(b""), UInt32(0))),
    ],
)
async def test_destinations_may_be_any_bytes(guest: Peer, kind: bytes, more: tuple[bytes, ...]) -> None:
    """A program behind -D chooses the name, and ends no sessions of its user by it."""
    channel, _ = await guest.open_channel()
    guest.say(MSG_CHANNEL_OPEN, String(kind), UInt32(1), UInt32(1 << 21), UInt32(32768), *more)
    _, answer = await guest.hear(MSG_CHANNEL_OPEN_FAILURE)
    assert b"nothing is forwarded here" in answer
    assert await runs(guest, channel)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        (b"tcpip-forward", (String(b""), UInt32(0))),
        (b"cancel-tcpip-forward", (String(b""), UInt32(1))),
        (b"streamlocal-forward@openssh.com", (String(b"/tmp/x"),)),
        (b"cancel-streamlocal-forward@openssh.com", (String(b"/tmp/x"),)),
        (b"hostkeys-prove-00@openssh.com", (String(b"nonsense"),)),
        (b"unheard-of@example.org", ()),
    ],
)
async def test_other_global_requests_fail_and_nothing_more(guest: Peer, name: bytes, more: tuple[bytes, ...]) -> None:
    for _ in range(1000):
        guest.say(MSG_GLOBAL_REQUEST, String(name), Boolean(True), *more)
    for _ in range(1000):
        await guest.hear(MSG_REQUEST_FAILURE)
    assert await runs(guest, (await guest.open_channel())[0])


async def test_keepalives_of_the_client_are_answered(guest: Peer) -> None:
    guest.say(MSG_GLOBAL_REQUEST, String(b"keepalive@openssh.com"), Boolean(True))
    await guest.hear(MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        (b"x11-req", (Boolean(False), String(b"MIT-MAGIC-COOKIE-1"), String(b"00"), UInt32(0))),
        (b"auth-agent-req@openssh.com", ()),
        (b"xon-xoff", (Boolean(False),)),
        (b"unheard-of@example.org", (String(b"x"),)),
        (b"env", (String(b"OTHER"), String(b"x"))),
        (b"env", (String(b"X Y"), String(b"x"))),
        (b"env", (String(b"X\xff"), String(b"x"))),
        (b"env", (String(b"X"), String(bytes(300_000)))),
    ],
)
async def test_refused_requests_leave_the_channel_usable(guest: Peer, name: bytes, more: tuple[bytes, ...]) -> None:
    channel, _ = await guest.open_channel()
    times = 20 if len(b"".join(more)) > 1000 else 3000
    for _ in range(times):
        guest.request(channel, name, *more)
    for _ in range(times):
        await guest.hear(MSG_CHANNEL_FAILURE)
    assert await runs(guest, channel)


async def test_variables_are_bounded_in_number(door: FrontDoor, guest: Peer) -> None:
    channel, _ = await guest.open_channel()
    for number in range(5000):
        guest.request(channel, b"env", String(b"X%d" % number), String(b"x"), reply=False)
    assert await runs(guest, channel)
    assert len(door.programs.logins[0].requests[0].environment) == 200


@pytest.mark.parametrize(
    ("columns", "rows", "size"),
    [(0, 0, TerminalSize(80, 24)), (1, 1, TerminalSize(1, 1)), (0xFFFFFFFF, 70_000, TerminalSize(65_535, 65_535))],
)
async def test_every_terminal_size_is_made_possible(
    door: FrontDoor, guest: Peer, columns: int, rows: int, size: TerminalSize
) -> None:
    channel, _ = await guest.open_channel()
    guest.request(
        channel, b"pty-req", String(b"x" * 5000), UInt32(columns), UInt32(rows), UInt32(0), UInt32(0), String(b"\0")
    )
    await guest.hear(MSG_CHANNEL_SUCCESS)
    guest.request(channel, b"exec", String(b"stty size"))
    assert (await guest.hear(MSG_CHANNEL_DATA))[1] == String(f"{size.rows} {size.columns}\r\n".encode())
    # Without modes and a size it is a client without a terminal of its own.
    assert door.programs.logins[0].requests[0].terminal == Terminal("xterm", size, {}, scripted=not columns)


async def test_a_terminal_may_have_any_name(door: FrontDoor, guest: Peer) -> None:
    channel, _ = await guest.open_channel()
    guest.request(channel, b"pty-req", String(b"xt\xe9rm"), *PTY[1:])
    await guest.hear(MSG_CHANNEL_SUCCESS)
    guest.request(channel, b"exec", String(b"echo fine"))
    assert (await guest.hear(MSG_CHANNEL_DATA))[1] == String(b"fine\r\n")
    terminal = door.programs.logins[0].requests[0].terminal
    assert terminal is not None
    assert terminal.term == "xterm"


async def test_requests_after_the_start_are_refused(guest: Peer) -> None:
    channel, _ = await guest.open_channel()
    guest.request(channel, b"exec", String(b"read x; echo $x$Y"))
    await guest.hear(MSG_CHANNEL_SUCCESS)
    for name, more in ((b"exec", (String(b"true"),)), (b"shell", ()), (b"pty-req", PTY), (b"subsystem", PTY[:1])):
        guest.request(channel, name, *more)
        await guest.hear(MSG_CHANNEL_FAILURE)
    guest.request(channel, b"env", String(b"XY"), String(b"x"))
    await guest.hear(MSG_CHANNEL_FAILURE)
    guest.say(MSG_CHANNEL_DATA, UInt32(channel), String(b"still\n"))
    assert (await guest.hear(MSG_CHANNEL_DATA))[1] == String(b"still\n")


async def test_signals_reach_the_program_and_a_flood_of_them_is_cut(door: FrontDoor, guest: Peer) -> None:
    channel, _ = await guest.open_channel()
    guest.request(channel, b"exec", String(b"trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.1; done"))
    await guest.hear(MSG_CHANNEL_DATA)
    for _ in range(2000):
        guest.request(channel, b"signal", String(b"unheard-of"), reply=False)
        guest.request(channel, b"signal", String(b"WINCH"), reply=False)
        guest.request(channel, b"window-change", UInt32(1), UInt32(2), UInt32(3), UInt32(4), reply=False)
    output = b""
    async with asyncio.timeout(10):
        while not output.startswith(String(b"exit-status")):
            # What came while too many waited is dropped.
            guest.request(channel, b"signal", String(b"USR1"), reply=False)
            with contextlib.suppress(TimeoutError):
                _, output = await asyncio.wait_for(guest.hear(MSG_CHANNEL_REQUEST), 0.1)
    assert output == String(b"exit-status") + Boolean(False) + UInt32(9)


async def test_the_exit_status_comes_in_order_after_all_output(guest: Peer) -> None:
    channel, _ = await guest.open_channel(window=1000)
    guest.request(channel, b"exec", String(b"head -c 1500 /dev/zero; exit 3"))
    assert len((await guest.hear(MSG_CHANNEL_DATA))[1]) == 1004
    guest.say(MSG_CHANNEL_WINDOW_ADJUST, UInt32(channel), UInt32(5000))
    end = [await guest.hear() for _ in range(4)]
    kinds = [kind for kind, _ in end]
    assert kinds == [MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_REQUEST, MSG_CHANNEL_CLOSE]
    assert end[2][1] == String(b"exit-status") + Boolean(False) + UInt32(3)


async def test_a_signal_is_reported_as_such(guest: Peer) -> None:
    channel, _ = await guest.open_channel()
    guest.request(channel, b"exec", String(b"kill -TERM $$"))
    _, output = await guest.hear(MSG_CHANNEL_REQUEST)
    assert output == String(b"exit-signal") + Boolean(False) + String(b"TERM") + Boolean(False) + String("") + String(
        ""
    )


async def test_stderr_is_extended_data(guest: Peer) -> None:
    channel, _ = await guest.open_channel()
    guest.request(channel, b"exec", String(b"echo oh >&2"))
    assert (await guest.hear(MSG_CHANNEL_EXTENDED_DATA))[1] == UInt32(1) + String(b"oh\n")


async def test_closed_channel_ends_its_program_and_no_other(door: FrontDoor, guest: Peer) -> None:
    first, _ = await guest.open_channel(0)
    second, _ = await guest.open_channel(1)
    for channel in (first, second):
        guest.request(channel, b"exec", String(b"cat"), reply=False)
    await until(lambda: door.programs.logins[0].running == 2)
    guest.say(MSG_CHANNEL_CLOSE, UInt32(first))
    await until(lambda: door.programs.logins[0].running == 1)
    guest.say(MSG_CHANNEL_DATA, UInt32(second), String(b"here"))
    assert (await guest.hear(MSG_CHANNEL_DATA))[1] == String(b"here")


@pytest.mark.parametrize("ends", [True, False], ids=["EOF", "no EOF"])
@pytest.mark.parametrize("size", [100, 1 << 20], ids=["little", "more than is read ahead"])
async def test_what_came_before_a_close_reaches_the_program_and_then_an_eof(
    door: FrontDoor, guest: Peer, tmp_path: Path, ends: bool, size: int
) -> None:
    """As with sshd. Clients of paramiko close a channel without waiting for anything."""
    channel, _ = await guest.open_channel()
    guest.request(channel, b"exec", String(b"cat > %b/new && mv %b/new %b/whole" % ((os.fsencode(tmp_path),) * 3)))
    await guest.hear(MSG_CHANNEL_SUCCESS)
    sent = os.urandom(size)
    for at in range(0, size, 32000):
        guest.say(MSG_CHANNEL_DATA, UInt32(channel), String(sent[at : at + 32000]))
    if ends:
        guest.say(MSG_CHANNEL_EOF, UInt32(channel))
    guest.say(MSG_CHANNEL_CLOSE, UInt32(channel))
    await guest.hear(MSG_CHANNEL_CLOSE)
    assert (tmp_path / "whole").read_bytes() == sent
    await until(lambda: door.programs.logins[0].running == 0)
    assert await runs(guest, (await guest.open_channel(1))[0])


async def test_a_terminal_is_hung_up_once_it_has_what_came_before_a_close(
    door: FrontDoor, guest: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[OnTerminal] = []

    async def write_eof(program: OnTerminal) -> None:
        ends.append(program)

    monkeypatch.setattr(OnTerminal, "write_eof", write_eof)
    channel, _ = await guest.open_channel()
    guest.request(channel, b"pty-req", *PTY, reply=False)
    guest.request(channel, b"exec", String(b"sleep 100"), reply=False)
    guest.say(MSG_CHANNEL_DATA, UInt32(channel), String(b"typed"))
    guest.say(MSG_CHANNEL_CLOSE, UInt32(channel))
    await guest.hear(MSG_CHANNEL_CLOSE)
    await until(lambda: door.programs.logins[0].requests and not door.programs.logins[0].running, 5)
    assert ends == [], "a ^D comes before its hang-up"


@pytest.mark.parametrize("command", [b"sleep 100", b"sleep 0.2; yes"], ids=["silent", "writes"])
async def test_a_program_that_does_not_end_after_a_close_is_ended(
    door: FrontDoor, guest: Peer, monkeypatch: pytest.MonkeyPatch, command: bytes
) -> None:
    """One that still writes meets nobody, as with SIGPIPE."""
    monkeypatch.setattr("sshgate.ssh.channel.LINGER_SECONDS", 0.5 if command == b"sleep 100" else 60.0)
    channel, window = await guest.open_channel()
    guest.request(channel, b"exec", String(command))
    await guest.hear(MSG_CHANNEL_SUCCESS)
    for _ in range(window // 16384):
        guest.say(MSG_CHANNEL_DATA, UInt32(channel), String(bytes(16384)))
    guest.say(MSG_CHANNEL_EOF, UInt32(channel))
    guest.say(MSG_CHANNEL_CLOSE, UInt32(channel))
    await until(lambda: door.programs.logins[0].running == 0, 5)
    await guest.hear(MSG_CHANNEL_CLOSE)


async def test_unknown_messages_are_answered_as_such(guest: Peer) -> None:
    guest.say(200, b"what")
    await guest.hear(MSG_UNIMPLEMENTED)
    assert await runs(guest, (await guest.open_channel())[0])


@pytest.mark.parametrize(
    "nonsense",
    [
        (MSG_CHANNEL_DATA, UInt32(77), String(b"x")),
        (MSG_CHANNEL_OPEN, String(b"session")),
        (MSG_CHANNEL_REQUEST, UInt32(0), b"\xff\xff\xff\xff"),
        (MSG_GLOBAL_REQUEST, String(b"\xff"), Boolean(True)),
        (MSG_CHANNEL_SUCCESS, UInt32(0)),
        (MSG_PING, b"what"),
    ],
)
async def test_broken_messages_end_their_own_connection_only(
    door: FrontDoor, guest: Peer, nonsense: tuple[int, *tuple[bytes, ...]]
) -> None:
    channel, _ = await guest.open_channel()
    guest.request(channel, b"exec", String(b"cat"), reply=False)
    await until(lambda: door.programs.logins[0].running == 1)
    guest.say(*nonsense)
    await guest.until_lost()
    await until(lambda: door.programs.logins[0].running == 0 and door.programs.logins[0].closed)
    assert (await door.ssh("exit 4")).status == 4


async def test_a_request_that_takes_time_keeps_thousands_behind_it_in_order(door: FrontDoor, guest: Peer) -> None:
    door.programs.logins[0].forwards.takes = 0.5
    guest.say(MSG_GLOBAL_REQUEST, String(b"tcpip-forward"), Boolean(True), String(b""), UInt32(0))
    for _ in range(5000):
        guest.say(MSG_GLOBAL_REQUEST, String(b"keepalive@openssh.com"), Boolean(True))
    for _ in range(5001):
        await guest.hear(MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS)
    assert await runs(guest, (await guest.open_channel())[0])


async def test_a_session_is_opened_behind_as_many_listeners_as_a_connection_may_have(
    door: FrontDoor, guest: Peer
) -> None:
    """The first listener waits for the session, which would decide its sandbox."""
    door.programs.logins[0].forwards.takes = 5.0
    for port in range(door.config.ssh.forwards_per_connection):
        guest.say(MSG_GLOBAL_REQUEST, String(b"tcpip-forward"), Boolean(True), String(b""), UInt32(1000 + port))
    assert await runs(guest, (await guest.open_channel())[0])


async def test_no_message_takes_long(door: FrontDoor, guest: Peer) -> None:
    """A message may have a MiB. asyncssh would spend seconds on some of that size."""
    key = String(asyncssh.read_private_key(door.place / "host" / "ssh_host_rsa_key").public_data)
    proof = String(b"hostkeys-prove-00@openssh.com") + Boolean(True)
    guest.say(MSG_GLOBAL_REQUEST, proof, key)
    assert len((await guest.hear(MSG_REQUEST_SUCCESS))[1]) > 300
    guest.say(MSG_GLOBAL_REQUEST, proof, key * 10)
    await guest.hear(MSG_REQUEST_FAILURE)
    channel, _ = await guest.open_channel()
    guest.request(channel, b"pty-req", *PTY[:-1], String((b"\x01" + UInt32(3)) * 20_000))
    await guest.hear(MSG_CHANNEL_FAILURE)
    long = (String(b"x" * 100_000), UInt32(1), String(b""), UInt32(0))
    guest.say(MSG_CHANNEL_OPEN, String(b"direct-tcpip"), UInt32(9), UInt32(1 << 20), UInt32(32768), *long)
    assert b"too long" in (await guest.hear(MSG_CHANNEL_OPEN_FAILURE))[1]
    assert await runs(guest, channel)
    guest.say(MSG_GLOBAL_REQUEST, String(b"tcpip-forward"), Boolean(True), *long[:2])
    assert await guest.until_lost() == "Request too long"
