"""Held sessions beside ones that are not, in the same run: the rows `held-...`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import subprocess
import time
from collections.abc import Callable

import uvloop

from tests.bench import warm
from tests.bench.measure import Row, Samples, in_turn, p99, ratio
from tests.bench.scene import Scene
from tests.rig.library import connection
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

ECHO = "stty raw -echo; echo ready; exec cat"
# Keys of one turn, and so many more turns than runs.
KEYS, TURNS = 20, 10
MIB = 1 << 20
BULK = 64 * MIB
HISTORY = "for i in $(seq 1 2000); do echo line $i of the history; done; echo re''ady"
# A resident takes 64 clients: what comes after them is not held.
SESSIONS, SANDBOXES = 100, 2
RESIDENT = "for p in /proc/[0-9]*; do grep -aqs '#sshgate-hol[d]' $p/cmdline && grep VmRSS $p/status; done"


def _both(scene: Scene) -> tuple[Ssh, Ssh]:
    """A user of a gateway that holds sessions, and of one that does not; their sandboxes run.

    The first names a session, because scripts like ours are not held otherwise.
    """
    sides = []
    for hold, name in (("named", "dev=named=new"), ("never", "dev=never")):
        _, ssh = scene.gateway("kubernetes", hold=hold)
        sides.append(ssh.as_user(name))
        done = sides[-1].run("true")
        assert done.status == 0, done
    return sides[0], sides[1]


def keystroke(scene: Scene, runs: int) -> Row:
    """One byte to a program on a terminal and back."""
    ours, base = Samples("held: key to echo, p50"), Samples("not held")
    found: tuple[list[float], list[float]] = ([], [])

    async def press(client: asyncio.subprocess.Process) -> float:
        assert client.stdin is not None
        assert client.stdout is not None
        began = time.perf_counter()
        client.stdin.write(b"x")
        await client.stdout.readexactly(1)
        return (time.perf_counter() - began) * 1000

    async def both() -> None:
        clients = []
        for user in _both(scene):
            client = await asyncio.create_subprocess_exec(
                *user.argv(ECHO, options=("-tt",)), stdin=-1, stdout=-1, stderr=-3, env=environment()
            )
            assert client.stdout is not None
            await client.stdout.readuntil(b"ready\n")
            clients.append(client)
        for turn in range(runs * TURNS + 1):
            for client, samples, every in zip(clients, (ours, base), found, strict=True):
                figures = [await press(client) for _ in range(KEYS)]
                if turn:
                    every += figures
                    samples.values.append(statistics.median(figures))
        for client in clients:
            client.kill()
            await client.wait()

    uvloop.run(both())
    added = ours.median - base.median
    late = p99(found[0]) - p99(found[1])
    met = added <= 0.4 and late <= 1.5
    return Row("held-keystroke", "ms", ours, base, added, f"at most 0.4 ms added, p99 1.5 ms: {late:.2f}", met)


def prompt(scene: Scene, runs: int) -> Row:
    """Log in to a new named sandbox with a terminal: until the first byte of the prompt, from a warm pod."""
    ours, base = Samples("held: first byte of the prompt, warm pod"), Samples("not held")

    def log_in(hold: str) -> Callable[[], float]:
        gateway, ssh = scene.gateway("kubernetes", hold=hold, warm=warm.POOL, settle="0s")

        def once() -> float:
            warm.fill(scene, gateway, warm.POOL)
            user = ssh.as_user(f"dev=n{secrets.token_hex(4)}")
            took = warm.first_byte(user) * 1000
            assert user.run("end", options=("-s",)).status == 0
            return took

        return once

    in_turn(runs, (ours, log_in("named")), (base, log_in("never")))
    added = ours.median - base.median
    return Row("held-prompt", "ms", ours, base, added, "at most 15 ms added", added <= 15)


def back(scene: Scene, runs: int) -> Row:
    """Come back soon to a shell with a long history: until the first byte of its screen, beside a login to no sandbox.

    For half an hour an exec waits for who comes back at the same gateway; see `providers/kubernetes/returning.py`.
    """
    held, plain = _both(scene)
    ours, base = Samples("coming back: first byte of the screen"), Samples("login, and a list of the verbs")
    prompt = Samples("not held: first byte of a prompt")
    with subprocess.Popen(held.argv(options=("-tt",)), stdin=-1, stdout=-1, stderr=-3, env=environment()) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(HISTORY.encode() + b"\r")
        client.stdin.flush()
        while b"ready" not in client.stdout.readline():
            pass
        client.kill()

    returning = held.as_user("dev=named")

    def once(user: Ssh, *command: str, options: tuple[str, ...] = ()) -> float:
        until(lambda: b" attached " not in returning.run("sessions", options=("-s",)).out, 20, "nobody being there")
        return warm.first_byte(user, *command, options=options) * 1000

    in_turn(
        runs,
        (ours, lambda: once(returning)),
        (base, lambda: once(returning, "help", options=("-s",))),
        (prompt, lambda: once(plain)),
    )
    added = ours.median - base.median
    target = f"at most 60 ms beyond the login; a new prompt, not held: {prompt.median - base.median:.0f}"
    return Row("held-back", "ms", ours, base, added, target, added <= 60)


def bulk(scene: Scene, runs: int) -> Row:
    """64 MiB of output through a terminal."""
    held, plain = _both(scene)
    command = f"stty raw -echo; head -c {BULK} /dev/zero"

    def rate(user: Ssh) -> float:
        began = time.perf_counter()
        done = subprocess.run(
            user.argv(command, options=("-tt", "-n")), stdout=-1, stderr=-3, check=True, env=environment()
        )
        assert len(done.stdout) == BULK, (len(done.stdout), done.stdout.strip(b"\0")[:200])
        return BULK / MIB / (time.perf_counter() - began)

    ours, base = Samples("held: 64 MiB from a terminal"), Samples("not held")
    in_turn(runs, (ours, lambda: rate(held)), (base, lambda: rate(plain)))
    return ratio("held-bulk", "MiB/s", ours, base, most=None, least=0.7)


def memory(scene: Scene, runs: int) -> Row:
    """What the gateway's memory grows by for each held session; and the resident's with one shell."""
    gateway, ssh = scene.gateway(
        "kubernetes", hold="named", limits={"sessions": 2 * SESSIONS, "sessions_per_user": 4 * SESSIONS}
    )
    names = [f"memory{number}" for number in range(SANDBOXES)]
    user = ssh.as_user(f"dev={names[0]}")
    samples = Samples(f"resident memory of the gateway per held session, {SESSIONS} of them")
    resident = 0.0

    async def shells(stack: contextlib.AsyncExitStack, name: str, number: int) -> None:
        there = await stack.enter_async_context(connection(ssh.as_user(f"dev={name}=new")))
        for _ in range(number):
            process = await there.create_process("exec bash", term_type="xterm", encoding=None)
            await process.stdout.read(1)

    async def grow() -> float:
        nonlocal resident
        async with contextlib.AsyncExitStack() as stack:
            for name in names:
                await shells(stack, name, 1)
            resident = int((await asyncio.to_thread(user.run, RESIDENT)).out.split()[1]) / 1024
            before = gateway.memory
            for turn in range(5):
                await shells(stack, names[turn % SANDBOXES], SESSIONS // 5)
            await asyncio.sleep(1)
            grown = gateway.memory - before
            held = await asyncio.to_thread(ssh.run, "sessions", options=("-s",))
            assert held.out.count(b" attached ") == SESSIONS + SANDBOXES, held
            return grown / SESSIONS / 1024

    samples.values.append(asyncio.run(grow()))
    for name in names:
        assert ssh.as_user(f"dev={name}").run("end", options=("-s",)).status == 0
    met = samples.median <= 100 and resident <= 14
    target = f"at most 100 KiB, the resident 14 MiB with one shell: {resident:.1f}"
    return Row("held-memory", "KiB", samples, None, samples.median, target, met)


ROWS = {
    "held-keystroke": keystroke,
    "held-prompt": prompt,
    "held-back": back,
    "held-bulk": bulk,
    "held-memory": memory,
}
