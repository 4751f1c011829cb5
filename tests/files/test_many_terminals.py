"""Many terminals of one named sandbox begin at once and are left at once: few execs, and nothing stays in the pod."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncssh
import pytest

from tests.conftest import MakeGateway
from tests.rig import library
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, free_port
from tests.rig.scrape import Scraped
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

# Channels of one connection: 50 at most.
PER_CONNECTION = 25


class Crowd:
    """A gateway, its user in a named sandbox, and what can be seen of them from outside."""

    def __init__(self, gateway: Gateway, ssh: Ssh, health: int, space: Namespace) -> None:
        self.gateway = gateway
        self.ssh = ssh
        self._health = health
        self._space = space

    @property
    def execs(self) -> int:
        """How many the gateway has asked for."""
        return int(Scraped(self._health).total("sshgate_api_requests_total", verb="exec"))

    def inside(self) -> list[str]:
        """Command lines of what runs in the pod, but for what keeps it and what looks."""
        script = (
            "for d in /proc/[0-9]*;do p=${d#/proc/};case $p in 1|$$)continue;;esac;"
            "tr '\\0\\n' '  ' <$d/cmdline 2>/dev/null&&echo;done"
        )
        (pod,) = self._space.living()
        lines = self._space.kubectl("exec", pod, "--", "sh", "-c", script).splitlines()
        return [line for line in lines if line and not line.startswith(("sleep 2147483647", "tr "))]

    def empty(self, limit: float = 20.0) -> None:
        """Return when nothing of any session is left in the pod."""
        left = self.inside()
        deadline = time.monotonic() + limit
        while left:
            assert time.monotonic() < deadline, f"still in the pod: {left}"
            time.sleep(0.2)
            left = self.inside()

    def login(self) -> float:
        """Seconds of one login on a terminal, to the end of its program."""
        began = time.monotonic()
        done = self.ssh.run("echo here", options=("-tt",))
        assert (done.status, done.out) == (0, b"here\r\n"), done.both
        return time.monotonic() - began

    @contextlib.contextmanager
    def ssh_terminal(self) -> Iterator[subprocess.Popen[bytes]]:
        """A client that asks for a terminal and waits."""
        client = self.ssh.start("sleep 600", options=("-tt",))
        try:
            yield client
        finally:
            client.kill()
            client.communicate()

    @asynccontextmanager
    async def terminals(self, count: int) -> AsyncIterator[list[asyncssh.SSHClientConnection]]:
        """So many shells on terminals, begun at once; each has said its prompt's line. Cut with the block."""
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(library.connection(self.ssh))
                for _ in range(-(-count // PER_CONNECTION))
            ]
            await asyncio.gather(*(_shell(connections[one % len(connections)]) for one in range(count)))
            yield connections
            for connection in connections:
                connection.abort()


async def _shell(connection: asyncssh.SSHClientConnection) -> None:
    process = await connection.create_process(term_type="xterm")
    process.stdin.write("echo rea''dy\n")
    output = ""
    while "ready" not in output:
        more = await process.stdout.read(4096)
        assert more, f"no prompt, but {output!r}"
        output += more


@pytest.fixture(scope="module")
def crowd(make_gateway: MakeGateway, namespace: Namespace, user_at: Callable[[Gateway], Ssh]) -> Iterator[Crowd]:
    health = free_port()
    gateway = make_gateway(
        "kubernetes",
        telemetry={"listen": f"127.0.0.1:{health}"},
        profiles={"default": {"hold": "never", "resources": {"limits": {"memory": "3Gi"}}}},
    )
    made = Crowd(gateway, user_at(gateway).as_user("dev=crowd"), health, namespace)
    made.login()
    yield made
    made.ssh.run("end", options=("-s",))


@pytest.mark.timeout(120)
async def test_terminals_that_are_left_at_once_keep_nobody_waiting(crowd: Crowd) -> None:
    quiet = min(crowd.login() for _ in range(3))
    async with crowd.terminals(20):
        before = crowd.execs
    took = crowd.login()
    # The login's own and its look at how it ended; the others are for all that have left.
    assert crowd.execs - before <= 8
    assert took < quiet + 3
    crowd.empty()


@pytest.mark.timeout(300)
async def test_terminals_that_begin_and_are_left_at_once_keep_nobody_out(crowd: Crowd) -> None:
    """Past what a container runtime can begin at a time: they wait for their turns, and no start takes 15 s."""
    async with crowd.terminals(200):
        crowd.login()
        before = crowd.execs
    # All leave at once. What begins meanwhile waits for their ends: else containerd would do neither for minutes.
    await asyncio.to_thread(until, lambda: crowd.ssh.run("true").status == 0, 60, "logins again")
    assert crowd.execs - before <= 16
    crowd.empty(30)


@pytest.mark.timeout(60)
async def test_a_flood_of_signals_is_few_execs(crowd: Crowd) -> None:
    async with asyncio.timeout(50), library.connection(crowd.ssh) as made:
        process = await made.create_process("trap 'n=$((n+1))' USR1; trap 'echo $n; exit 5' TERM; echo up; "
                                            "while :; do sleep 0.05; done")  # fmt: skip
        assert await process.stdout.readline() == "up\n"
        before = crowd.execs
        for _ in range(160):
            process.send_signal("USR1")
            await asyncio.sleep(0.002)
        process.send_signal("TERM")
        count = int(await process.stdout.readline())
        assert (await process.wait()).exit_status == 5
        assert 1 <= count <= crowd.execs - before <= 20


@pytest.mark.timeout(60)
@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2])
async def test_a_login_that_is_given_up_leaves_no_launcher(crowd: Crowd, after: float) -> None:
    for _ in range(4):
        with crowd.ssh_terminal() as client:
            began = crowd.gateway.log().count("session.start")
            await asyncio.to_thread(until, lambda: crowd.gateway.log().count("session.start") > began, 20)  # noqa: B023
            await asyncio.sleep(after)
            client.kill()
    crowd.empty()
