"""What a forwarded connection is made of: directions that end by themselves, bounds, and nothing left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable

import asyncssh
import pytest

from tests.conftest import MakeGateway
from tests.rig import library
from tests.rig.cluster import BUSYBOX
from tests.rig.forwarding import ECHO, connected, local_port, python, session
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh, end
from tests.rig.waiting import until

PORT = 34567
# Reads nothing of its first connection, answers the others as the echo server does; a word ends its own direction.
STUCK = ECHO.replace("def serve(c):", "import time\ndef serve(c):\n    if c.recv(1) == b'!': time.sleep(600)")
# Ends its direction at once, counts what comes in the other one.
EARLY = (
    "import socket\ns=socket.create_server(('127.0.0.1',34567));print('up',flush=True)\n"
    "while True:\n c,_=s.accept();c.sendall(b'mine is over');c.shutdown(socket.SHUT_WR);n=0\n"
    " while d:=c.recv(65536):n+=len(d)\n print(n,flush=True)"
)
# Counts the descriptors of every relay in the sandbox.
DESCRIPTORS = """for p in /proc/[0-9]*; do
tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'closefd=Fals[e]' && ls $p/fd; done | wc -l"""


@pytest.fixture(scope="module")
def door(make_gateway: MakeGateway, provider: str) -> Gateway:
    return make_gateway(provider, profiles={"default": {}, "shared": {"extends": "default", "scope": "connection"}})


@pytest.fixture(scope="module")
def user(door: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(door)


@contextlib.asynccontextmanager
async def connection(user: Ssh, program: str) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection with one sandbox, in which the program has said its first line."""
    async with library.connection(user, user.user + "+shared") as made:
        process = await made.create_process(program, encoding=None)
        assert await process.stdout.readline()
        yield made


async def descriptors(made: asyncssh.SSHClientConnection) -> int:
    """How many descriptors the relays in the sandbox have."""
    output = await made.run(DESCRIPTORS)
    return int(str(output.stdout))


async def echoed(made: asyncssh.SSHClientConnection, data: bytes) -> bytes:
    """One forwarded connection from its opening to its end."""
    reader, writer = await made.open_connection("localhost", PORT, encoding=None)
    writer.write(data)
    writer.write_eof()
    output: bytes = await reader.read()
    return output


def test_a_server_can_end_its_direction_first(user: Ssh) -> None:
    port = local_port()
    with session(user, python(EARLY), "-L", f"{port}:localhost:{PORT}") as (client, _):
        with connected(port) as talk:
            output = b""
            while chunk := talk.recv(100):
                output += chunk
            assert output == b"mine is over"
            talk.sendall(bytes(300_000))
        assert client.stdout is not None
        assert client.stdout.readline() == b"300000\n"


async def test_a_hundred_streams_at_once_each_get_their_own(user: Ssh) -> None:
    async with connection(user, python(ECHO, str(PORT))) as made:
        sent = [b"%d:" % number + bytes([number]) * 50_000 for number in range(100)]
        got = await asyncio.gather(*(echoed(made, data) for data in sent))
        assert got == [data + b"[end]" for data in sent]


async def test_a_stream_that_nobody_reads_holds_up_no_other_and_takes_no_memory(user: Ssh, door: Gateway) -> None:
    async with connection(user, python(STUCK, str(PORT))) as made:
        await echoed(made, b"?")
        before = door.memory
        stuck = []
        for _ in range(3):
            _, writer = await made.open_connection("localhost", PORT, encoding=None)
            writer.write(b"!" + bytes(20 << 20))
            stuck.append(writer)
        async with asyncio.timeout(30):
            assert await echoed(made, b"?free") == b"free[end]"
        assert door.memory - before < 24 << 20
        for writer in stuck:
            writer.channel.abort()


async def test_a_client_that_reads_nothing_stops_the_server_inside(user: Ssh, door: Gateway) -> None:
    flood = (
        "import socket\ns=socket.create_server(('127.0.0.1',34567));print('up',flush=True)\n"
        "while True:\n c,_=s.accept()\n try:\n  while True:c.sendall(bytes(65536))\n except OSError:c.close()"
    )
    async with connection(user, python(flood)) as made:
        before = door.memory
        reader, writer = await made.open_connection("localhost", PORT, encoding=None)
        taken = 0
        while taken < 20 << 20:
            taken += len(await reader.read(65536))
        assert door.memory - before < 24 << 20
        writer.channel.abort()
        # The server notices that its peer has gone, and takes the next one.
        async with asyncio.timeout(20):
            reader, writer = await made.open_connection("localhost", PORT, encoding=None)
            assert await reader.read(10)
            writer.channel.abort()


async def test_thousands_of_attempts_leave_nothing_behind(user: Ssh, door: Gateway) -> None:
    async with connection(user, python(ECHO, str(PORT))) as made:

        async def closed_port() -> int:
            with pytest.raises(asyncssh.ChannelOpenError, match="refused") as caught:
                await made.open_connection("localhost", 1)
            return caught.value.code

        async def cut_off() -> None:
            _, writer = await made.open_connection("localhost", PORT, encoding=None)
            writer.write(bytes(10_000))
            writer.channel.abort()

        await asyncio.gather(*(closed_port() for _ in range(50)), *(cut_off() for _ in range(50)))
        before = door.memory
        for _ in range(20):
            await asyncio.gather(*(closed_port() for _ in range(50)), *(cut_off() for _ in range(50)))
        assert door.memory - before < 16 << 20
        assert await echoed(made, b"still") == b"still[end]"
        # Of all those streams the relay has none left: only its pipes, its epoll, its wake-up.
        async with asyncio.timeout(20):
            while not 4 < (left := await descriptors(made)) < 16:
                pass
        assert left


async def test_more_than_are_allowed_are_refused_and_the_rest_goes_on(user: Ssh) -> None:
    async with connection(user, python(ECHO, str(PORT))) as made:
        opened = [await made.open_connection("localhost", PORT, encoding=None) for _ in range(200)]
        with pytest.raises(asyncssh.ChannelOpenError, match="already 200 forwarded connections"):
            await made.open_connection("localhost", PORT)
        reader, writer = opened[77]
        writer.write(b"on")
        writer.write_eof()
        assert await reader.read() == b"on[end]"
        # Sessions are counted apart.
        assert (await made.run("exit 3")).exit_status == 3


@pytest.mark.cluster
def test_a_sandbox_without_any_program_that_connects_says_so(
    make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], cluster: object
) -> None:
    plain = user_at(make_gateway("kubernetes", profiles={"default": {"image": BUSYBOX}}))
    ended = plain.run(options=("-o", "LogLevel=INFO", "-W", "localhost:80"))
    assert "the sandbox has none of python3, socat and nc to connect with" in ended.both
    remote = plain.run("echo on", options=("-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"))
    assert remote.status == 255


# What finds python3 in the sandbox finds a program that is none; its server is run by the real one.
WITHOUT_PYTHON = """mkdir -p ~/.local/bin && printf '#!/bin/sh\\nexit 127\\n' >~/.local/bin/python3 &&
chmod +x ~/.local/bin/python3; exec /usr/bin/"""


@pytest.mark.cluster
async def test_without_python3_a_connection_goes_by_another_program(
    make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], cluster: object
) -> None:
    door = make_gateway("kubernetes", profiles={"shared": {"extends": "default", "scope": "connection"}})
    server = WITHOUT_PYTHON + python(ECHO, str(PORT)).removeprefix("exec ")
    async with connection(user_at(door), server) as made:
        sent = [bytes([number]) * 100_000 for number in (0, 1, 30, 31, 255)]
        assert await asyncio.gather(*(echoed(made, data) for data in sent)) == [data + b"[end]" for data in sent]
        reader, writer = await made.open_connection("localhost", PORT, encoding=None)
        for number in (1, 30, 31):
            writer.write(bytes([number]))
            async with asyncio.timeout(10):
                assert await reader.readexactly(1) == bytes([number])
        writer.write_eof()
        assert await reader.read() == b"[end]"
        with pytest.raises(asyncssh.ChannelOpenError, match="connection failed"):
            await made.open_connection("localhost", 1)
        # A listener needs more than such a program can do.
        with pytest.raises(asyncssh.ChannelListenError):
            await made.forward_remote_port("localhost", 0, "localhost", 1)


async def test_a_relay_that_is_killed_from_inside_is_started_again(user: Ssh) -> None:
    async with connection(user, python(ECHO, str(PORT))) as made:
        reader, writer = await made.open_connection("localhost", PORT, encoding=None)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        assert (await made.run("pkill -KILL -f closefd=Fals[e]")).exit_status == 0
        async with asyncio.timeout(20):
            assert await reader.read() == b""
            assert await echoed(made, b"anew") == b"anew[end]"


# Says that it is the relay, and then what no relay says.
LIAR = """mkdir -p ~/.local/bin && cat >~/.local/bin/python3 <<'END'
#!/bin/sh
echo 'sshgate relay 1'; head -c 100000 /dev/zero | tr '\\0' '\\377'; cat >/dev/null
END
chmod +x ~/.local/bin/python3; echo up; exec sleep 600"""


@pytest.mark.cluster
async def test_what_is_not_a_relay_is_not_believed(
    make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], cluster: object
) -> None:
    door = make_gateway("kubernetes", profiles={"shared": {"extends": "default", "scope": "connection"}})
    async with connection(user_at(door), LIAR) as made:
        async with asyncio.timeout(20):
            with pytest.raises(asyncssh.ChannelOpenError, match="the sandbox has ended"):
                await made.open_connection("localhost", PORT)
            assert (await made.run("exit 3")).exit_status == 3
    assert "relay.broken" in door.log()
    assert "Traceback" not in door.log()


def test_a_sandbox_that_no_session_needs_goes_when_its_forwards_do(
    gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh]
) -> None:
    brief = gateway(provider, profiles={"default": {"limits": {"idle": "1s", "detached": "1s"}}})
    port = local_port()
    argv = user_at(brief).argv(options=("-N", "-L", f"{port}:localhost:{PORT}"))
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as client:
        for times in (1, 2):
            connected(port).close()
            until(lambda: brief.log().count("sandbox.end") == times, 30, "the end of its sandbox")  # noqa: B023
        end(client)


def test_a_gateway_that_stops_ends_forwards_and_their_sandbox(
    gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh]
) -> None:
    door = gateway(provider)
    port = local_port()
    argv = user_at(door).argv(options=("-N", "-L", f"{port}:localhost:{PORT}", "-R", "7075:localhost:1"))
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        until(lambda: door.log().count('"forward.open"') == 1, 30, "the listener in the sandbox")
        # It ends with 0, within its time, and leaves no process; what it leaves in the cluster fails the run.
        door.stop()
        assert client.wait(10) == 255
    assert "Traceback" not in door.log()
