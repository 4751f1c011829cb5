"""Many people who type at once, and gateways of several workers: the rows `typists` and `workers-...`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from sshgate.config.model import Profile, SandboxPlace
from sshgate.providers.kubernetes.provider import KubernetesProvider
from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.interfaces import Order
from sshgate.sandbox.launcher import Program
from sshgate.stream.interfaces import Exec, Process, Request
from sshgate.stream.terminal import Terminal
from tests.bench.measure import Row, Samples, in_turn, p99, ratio
from tests.bench.scene import Scene
from tests.rig.cluster import IMAGE
from tests.rig.gateway import Gateway
from tests.rig.processes import descendants
from tests.rig.ssh import Ssh, environment

PEOPLE = (20, 100, 200)
# Terminals in one sandbox, and how many start at a time.
EACH, STARTS = 20, 8
# Somebody who types fast, for so long in each turn.
KEY_SECONDS, TURN_SECONDS = 0.4, 6.0
ECHO = "stty raw -echo; echo ready; exec cat"
MIB = 1 << 20
BULK = 128 * MIB
CLIENTS, LOGINS = 4, 60
FLOODED, FLOODS = 20, 2

Press = Callable[[bytes], Awaitable[object]]


def typists(scene: Scene, runs: int) -> Row:
    """People who type at once: through ssh and the gateway, and over as many bare execs."""
    _, ssh = scene.gateway("kubernetes", hold="never")
    ours, base = Samples(f"ssh -tt, {PEOPLE[-1]} people: p99"), Samples("exec websockets: p99")
    medians = [Samples("ssh: p50"), Samples("exec: p50")]

    async def all_sizes() -> None:
        async with _bare_execs(scene) as add_bare, terminals(ssh) as add_terminals:
            for people in PEOPLE:
                sides = [await add_bare(people), await add_terminals(people)]
                echoes: list[list[float]] = [[], []]
                for turn in range(3):
                    for presses, found in zip(sides, echoes, strict=True):
                        typed = await type_at_once(presses)
                        found += typed if turn else []
                for side, samples, middle, found in zip(
                    ("exec", "ssh "), (base, ours), medians[::-1], echoes, strict=True
                ):
                    p50, late = statistics.median(found), p99(found)
                    print(f"typists    {people} people, {side}: p50 {p50:.2f} ms, p99 {late:.2f} ms, {len(found)} keys")
                    samples.values, middle.values = [late], [p50]

    uvloop.run(all_sizes())
    added, middle = ours.median - base.median, medians[0].median - medians[1].median
    met = added <= 5 and middle <= 1
    return Row("typists", "ms", ours, base, added, f"p99 at most 5 ms added, p50 1 ms: {middle:.2f}", met)


@asynccontextmanager
async def _bare_execs(scene: Scene) -> AsyncIterator[Callable[[int], Awaitable[list[Press]]]]:
    """Makes bare execs until there are so many; each echoes keys."""
    place = scene.namespace
    provider = KubernetesProvider(SandboxPlace(kubeconfig=place.kubeconfig, namespace=place.name, gateway="bench-bare"))
    await provider.open()
    presses: list[Press] = []
    sandboxes = []

    def press(process: Process) -> Press:
        async def pressed(key: bytes) -> None:
            await process.write(key)
            await process.read()

        return pressed

    async def until(number: int) -> list[Press]:
        while len(presses) < number:
            if len(presses) % EACH == 0:
                order = Order(Profile(image=IMAGE), "bench", secrets.token_hex(4))
                sandboxes.append(await provider.create(order, lambda _: None))
            process = await park(sandboxes[-1], Terminal())
            output = await launch(process, Program(Request(Exec(ECHO.encode()), Terminal())))
            while b"ready" not in output:
                output += (await process.read() or (0, b""))[1]
            presses.append(press(process))
        return presses[:number]

    try:
        yield until
    finally:
        await provider.close()


@asynccontextmanager
async def terminals(ssh: Ssh) -> AsyncIterator[Callable[[int], Awaitable[list[Press]]]]:
    """Starts ssh clients until there are so many; each has a terminal that echoes keys."""
    clients: list[asyncio.subprocess.Process] = []

    async def start(number: int) -> asyncio.subprocess.Process:
        user = ssh.as_user(f"dev=people-{number // EACH}")
        client = await asyncio.create_subprocess_exec(
            *user.argv(ECHO, options=("-tt",)), stdin=-1, stdout=-1, stderr=-3, env=environment()
        )
        clients.append(client)
        assert client.stdout is not None
        await client.stdout.readuntil(b"ready\n")
        return client

    async def until(number: int) -> list[Press]:
        while len(clients) < number:
            await asyncio.gather(*(start(one) for one in range(len(clients), min(number, len(clients) + STARTS))))
        return [_press(client) for client in clients[:number]]

    try:
        yield until
    finally:
        for client in clients:
            with contextlib.suppress(ProcessLookupError):
                client.kill()
        await asyncio.gather(*(client.wait() for client in clients))


def _press(client: asyncio.subprocess.Process) -> Press:
    async def pressed(key: bytes) -> None:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(key)
        await client.stdout.readexactly(1)

    return pressed


async def type_at_once(presses: list[Press], seconds: float = TURN_SECONDS) -> list[float]:
    """All type, each at their own moments; milliseconds of each echo."""
    echoes: list[float] = []
    over = time.perf_counter() + seconds

    async def person(press: Press) -> None:
        await asyncio.sleep(random.random() * KEY_SECONDS)
        while (began := time.perf_counter()) < over:
            await press(b"x")
            echoes.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(KEY_SECONDS * (0.5 + random.random()))

    await asyncio.gather(*map(person, presses))
    return echoes


# --- workers ---


def bulk(scene: Scene, runs: int) -> Row:
    """Four clients at once that each fetch 128 MiB from a sandbox of their own: two workers, and one."""
    two, one = Samples("4 clients, 128 MiB each, two workers"), Samples("one")
    sides = [(samples, _pair(scene, workers)[1]) for samples, workers in ((two, 2), (one, 1))]
    for _, ssh in sides:
        for number in range(CLIENTS):
            ssh.as_user(f"dev=bulk-{number}").run("true")

    def fetch(ssh: Ssh) -> float:
        began = time.perf_counter()
        users = [ssh.as_user(f"dev=bulk-{number}") for number in range(CLIENTS)]
        clients = [
            subprocess.Popen(user.argv(f"head -c {BULK} /dev/zero"), stdout=subprocess.DEVNULL, env=environment())
            for user in users
        ]
        assert [client.wait() for client in clients] == [0] * CLIENTS
        return CLIENTS * BULK / MIB / (time.perf_counter() - began)

    in_turn(min(runs, 5), *((samples, lambda ssh=ssh: fetch(ssh)) for samples, ssh in sides))
    return ratio("workers-bulk", "MiB/s", two, one, most=None, least=1.0)


def logins(scene: Scene, runs: int) -> Row:
    """Logins a second that need no sandbox, eight clients at a time."""
    two, one = Samples("logins a second, two workers"), Samples("one")
    sides = [(samples, _pair(scene, workers)[1]) for samples, workers in ((two, 2), (one, 1))]

    async def log_in(ssh: Ssh) -> float:
        turn = asyncio.Semaphore(8)

        async def once() -> None:
            async with turn:
                client = await asyncio.create_subprocess_exec(
                    *ssh.argv("help", options=("-s",)), stdin=-3, stdout=-3, stderr=-3, env=environment()
                )
                assert await client.wait() == 0

        began = time.perf_counter()
        await asyncio.gather(*(once() for _ in range(LOGINS)))
        return LOGINS / (time.perf_counter() - began)

    in_turn(min(runs, 5), *((samples, lambda ssh=ssh: uvloop.run(log_in(ssh))) for samples, ssh in sides))
    return ratio("workers-logins", "/s", two, one, most=None, least=1.0)


def keys(scene: Scene, runs: int) -> Row:
    """Twenty people type while somebody floods: another worker than theirs, and the only one."""
    two, one = Samples("p99 of 20 people, another worker is flooded"), Samples("their own, the only one")
    for samples, number in ((two, 2), (one, 1)):
        gateway, ssh = _pair(scene, number)
        samples.values = uvloop.run(_flooded(gateway, ssh, min(runs, 5)))
    return ratio("workers-keys", "ms", two, one, most=1.0, least=None)


async def _flooded(gateway: Gateway, ssh: Ssh, runs: int) -> list[float]:
    """The 99th percentiles of some turns in which nobody but one worker is flooded, and the people are at another."""
    serving = sorted(child.pid for child in descendants(gateway.pid)) or [gateway.pid]
    people, flooded = serving[0], serving[-1]
    clients: list[asyncio.subprocess.Process] = []
    while len(clients) < FLOODED:
        user = ssh.as_user(f"dev=keys-{len(clients) // EACH}")
        client = await asyncio.create_subprocess_exec(
            *user.argv(ECHO, options=("-tt",)), stdin=-1, stdout=-1, stderr=-3, env=environment()
        )
        assert client.stdout is not None
        await client.stdout.readuntil(b"ready\n")
        if _server_of(client.pid, gateway.port, serving) == people:
            clients.append(client)
        else:
            client.kill()
            await client.wait()
    found = []
    try:
        for _ in range(runs):
            floods = await _floods(gateway, ssh, serving, flooded)
            for flood in floods:
                assert flood.stdin is not None
                flood.stdin.write(b"\n")
            # As long as a flood goes on.
            found.append(p99(await type_at_once([_press(client) for client in clients], 2.0)))
            await asyncio.gather(*(flood.communicate() for flood in floods))
    finally:
        for client in clients:
            client.kill()
        await asyncio.gather(*(client.wait() for client in clients))
    return found


async def _floods(gateway: Gateway, ssh: Ssh, serving: list[int], flooded: int) -> list[asyncio.subprocess.Process]:
    """Processes with one connection each to this worker, ready to flood it."""
    floods: list[asyncio.subprocess.Process] = []
    while len(floods) < FLOODS:
        flood = await asyncio.create_subprocess_exec(
            "nice", sys.executable, "-m", "tests.fairness.flood", "ignore", str(gateway.port), str(ssh.key), "1", "32",
            stdin=-1, stdout=-1,
        )  # fmt: skip
        assert flood.stdout is not None
        await flood.stdout.readuntil(b"ready\n")
        if _server_of(flood.pid, gateway.port, serving) == flooded:
            floods.append(flood)
        else:
            flood.kill()
            await flood.wait()
    return floods


def _server_of(client: int, port: int, serving: list[int]) -> int:
    """The process that serves a client's connection to this port, by the kernel's tables."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = _sockets(client)
    (local,) = {row[1] for row in rows if row[9] in ours and row[2].endswith(f":{port:04X}")}
    (inode,) = {row[9] for row in rows if row[2] == local and row[1].endswith(f":{port:04X}")}
    (found,) = [pid for pid in serving if inode in _sockets(pid)]
    return found


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.update(re.findall(r"^socket:\[(\d+)\]", str(link.readlink())))
    return found


def _pair(scene: Scene, workers: int) -> tuple[Gateway, Ssh]:
    return scene.gateway("kubernetes", workers=workers, hold="never")


ROWS: dict[str, Callable[[Scene, int], Row]] = {
    "typists": typists,
    "workers-bulk": bulk,
    "workers-logins": logins,
    "workers-keys": keys,
}
