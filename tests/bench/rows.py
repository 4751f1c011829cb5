"""The rows. Each is a function of the scene and the number of runs; a new row is a new function in ``ROWS``."""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import asyncssh
import uvloop

from sshgate.config.model import Profile, SandboxPlace
from sshgate.providers.kubernetes.provider import KubernetesProvider
from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.interfaces import Order
from sshgate.sandbox.launcher import Program
from sshgate.stream.interfaces import Exec, Request
from sshgate.stream.terminal import Terminal
from tests.bench import fence, files, held, models, page, people, warm, web
from tests.bench.forwards import forward, forward_first
from tests.bench.gateways import gateways
from tests.bench.measure import Row, Samples, in_turn, ratio, seconds
from tests.bench.scale import scale
from tests.bench.scene import Scene
from tests.rig.cluster import IMAGE
from tests.rig.ssh import Ssh, environment

MIB = 1 << 20
BULK = 256 * MIB
KEYS = 200
# Idle terminals, over this many connections.
TERMINALS, CONNECTIONS = 100, 5
ECHO = "stty raw -echo; echo ready; exec cat"


def cold_true(scene: Scene, runs: int) -> Row:
    """Log in, get a fresh pod, run `true`, leave."""
    _, ssh = scene.gateway("kubernetes")
    ours, base = Samples("ssh ... true, cold pod"), Samples("kubectl exec POD -- true")
    exec_true = scene.kubectl_exec("true")
    in_turn(runs, (ours, lambda: _timed(ssh.argv("true"))), (base, lambda: _timed(exec_true)))
    return ratio("cold", "s", ours, base, most=4.0, least=None)


def bulk_down(scene: Scene, runs: int) -> Row:
    """256 MiB from a running sandbox."""
    ssh = _running(scene)
    command = f"head -c {BULK} /dev/zero"
    ours, base = Samples(f"ssh ... {command}"), Samples(f"kubectl exec POD -- {command}")
    exec_down = scene.kubectl_exec(*command.split())
    in_turn(runs, (ours, lambda: _rate(ssh.argv(command))), (base, lambda: _rate(exec_down)))
    return ratio("bulk-down", "MiB/s", ours, base, most=None, least=1.0)


def bulk_up(scene: Scene, runs: int) -> Row:
    """256 MiB into a running sandbox, counted there."""
    ssh = _running(scene)
    ours, base = Samples("ssh ... 'wc -c' < 256 MiB"), Samples("kubectl exec -i POD -- wc -c < 256 MiB")
    file = scene.place / "bulk"
    with file.open("wb") as payload:
        payload.truncate(BULK)
    exec_up = scene.kubectl_exec("wc", "-c", stdin=True)
    in_turn(runs, (ours, lambda: _rate(ssh.argv("wc -c"), str(file))), (base, lambda: _rate(exec_up, str(file))))
    return ratio("bulk-up", "MiB/s", ours, base, most=None, least=0.9)


def _running(scene: Scene) -> Ssh:
    """A user of a named sandbox that runs already, as the baseline's pod does. Each use is a login of its own."""
    _, ssh = scene.gateway("kubernetes")
    user = ssh.as_user("dev=bulk")
    user.run("true")
    return user


def keystroke(scene: Scene, runs: int) -> Row:
    """One byte to a program on a terminal and back: through ssh and the gateway, and over the bare exec."""
    _, ssh = scene.gateway("kubernetes")
    place = scene.namespace
    ours, base = Samples("ssh -tt: key to echo"), Samples("exec websocket: key to echo")

    async def both() -> None:
        provider = KubernetesProvider(
            SandboxPlace(kubeconfig=place.kubeconfig, namespace=place.name, gateway="bench-bare")
        )
        await provider.open()
        try:
            sandbox = await provider.create(Order(Profile(image=IMAGE), "bench", secrets.token_hex(4)), lambda _: None)
            process = await park(sandbox, Terminal())
            output = await launch(process, Program(Request(Exec(ECHO.encode()), Terminal())))
            while b"ready" not in output:
                output += (await process.read() or (0, b""))[1]
            client = await asyncio.create_subprocess_exec(
                *ssh.argv(ECHO, options=("-tt",)), stdin=-1, stdout=-1, stderr=-3, env=environment()
            )
            assert client.stdin is not None
            assert client.stdout is not None
            await client.stdout.readuntil(b"ready\n")
            for turn in range(runs * 10 + 1):

                async def bare(key: bytes) -> None:
                    await process.write(key)
                    await process.read()

                async def through(key: bytes) -> None:
                    client.stdin.write(key)  # type: ignore[union-attr]
                    await client.stdout.readexactly(1)  # type: ignore[union-attr]

                for samples, press in ((base, bare), (ours, through)):
                    figures = [await _pressed(press) for _ in range(KEYS // 10)]
                    if turn:
                        samples.values.append(statistics.median(figures) * 1000)
            client.kill()
            await client.wait()
            await process.close()
        finally:
            await provider.close()

    uvloop.run(both())
    added = ours.median - base.median
    return Row("keystroke", "ms", ours, base, added, "at most 1.5 ms added", added <= 1.5)


def memory(scene: Scene, runs: int) -> Row:
    """What the gateway's memory grows by for each idle terminal session over the exec websocket."""
    gateway, ssh = scene.gateway("kubernetes", scope="connection")
    samples = Samples(f"resident memory per session, {TERMINALS} sessions on {CONNECTIONS} connections")

    async def grow() -> float:
        async with _terminals(ssh, 1, 1):
            # What the first session of all costs once is not a session's.
            before = gateway.memory
            async with _terminals(ssh, CONNECTIONS, TERMINALS // CONNECTIONS):
                await asyncio.sleep(1)  # the flush of what was allocated for the start
                return (gateway.memory - before) / TERMINALS / 1024

    # Memory is not given back to the system, so only the first growth counts.
    samples.values.append(asyncio.run(grow()))
    figure = samples.median
    return Row("memory", "KiB", samples, None, figure, "at most 120 KiB", figure <= 120)


def set_up(scene: Scene, runs: int) -> Row:
    """A connection, a login, `true`: the local provider against sshd on the same machine."""
    _, ssh = scene.gateway("local")
    ours, base = Samples("ssh ... true, local provider"), Samples("ssh ... true, sshd")
    with scene.sshd() as other:
        in_turn(runs, (ours, lambda: _timed(ssh.argv("true"))), (base, lambda: _timed(other.argv("true"))))
    return ratio("set-up", "s", ours, base, most=1.0, least=None)


ROWS: dict[str, Callable[[Scene, int], Row]] = {
    "cold": cold_true,
    "warm": warm.true,
    "warm-named": warm.named,
    "warm-prompt": warm.prompt,
    "warm-memory": warm.memory,
    "warm-writes": warm.writes,
    "claim": warm.claim,
    "bulk-down": bulk_down,
    "bulk-up": bulk_up,
    "keystroke": keystroke,
    "memory": memory,
    "fence": fence.fence,
    "fence-cold": fence.cold,
    "gateways": gateways,
    "scale": scale,
    "set-up": set_up,
    "web-click": web.click,
    "web-key": web.key,
    "web-memory": web.memory,
    "web-draw": page.draw,
    "web-words": page.words,
    "web-first": page.first,
    "forward": forward,
    "forward-first": forward_first,
    **files.ROWS,
    **people.ROWS,
    **held.ROWS,
    **models.ROWS,
}


def _timed(argv: Sequence[str | bytes]) -> float:
    return seconds(lambda: subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, env=environment()))


def _rate(argv: Sequence[str | bytes], source: str = os.devnull) -> float:
    """MiB/s of a transfer whose output is counted when it comes from there, and must be the count otherwise."""
    start = time.perf_counter()
    with open(source, "rb") as stdin:  # noqa: PTH123
        client = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, env=environment())
    assert client.stdout is not None
    total, last = 0, b""
    while chunk := client.stdout.read(MIB):
        total += len(chunk)
        last = chunk
    client.stdout.close()
    assert client.wait() == 0, argv
    moved = BULK if last.split() == [str(BULK).encode()] else total
    if moved != BULK:
        # kubectl exec does it too: the API server reports success and the end of the output is missing.
        print(f"bench: {argv[0]!r} brought {moved} of {BULK} bytes", file=sys.stderr)
    return moved / MIB / (time.perf_counter() - start)


async def _pressed(press: Callable[[bytes], object]) -> float:
    start = time.perf_counter()
    await press(b"x")  # type: ignore[misc]
    return time.perf_counter() - start


class _terminals:  # noqa: N801  (a context manager, used as one)
    """Idle shells on terminals, ``each`` on every one of ``connections``."""

    def __init__(self, ssh: Ssh, connections: int, each: int) -> None:
        self._ssh = ssh
        self._number = connections
        self._each = each
        self._open: list[asyncssh.SSHClientConnection] = []

    async def __aenter__(self) -> None:
        for _ in range(self._number):
            connection = await asyncssh.connect(
                "127.0.0.1", self._ssh.port, config=None, known_hosts=None, username=self._ssh.user,
                client_keys=[str(self._ssh.key)], agent_path=None, gss_host=None,
            )  # fmt: skip
            self._open.append(connection)
            for _ in range(self._each):
                process = await connection.create_process(term_type="xterm", encoding=None)
                await process.stdout.read(1)

    async def __aexit__(self, *_: object) -> None:
        for connection in self._open:
            connection.abort()
            await connection.wait_closed()
