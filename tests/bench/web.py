"""The rows of the browser's front door, against ssh at the same gateway."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench.measure import Row, Samples, ratio
from tests.bench.scene import Scene
from tests.lifecycle.place import Place
from tests.rig.cluster import Namespace
from tests.rig.ssh import environment
from tests.rig.web import Tab, address, browser, link

WARM = 2
KEYS = 20
SESSIONS, AT_ONCE = 60, 10
ECHO = b"stty raw -echo; echo rea''dy; exec cat"


def click(scene: Scene, runs: int) -> Row:
    """From the click (POST, socket, attach) to the first byte of the prompt; and `ssh -tt`; warm sandboxes for both."""
    gateway, ssh = scene.gateway("kubernetes", web=True, warm=WARM, settle="0s")
    where = gateway.settings["sandbox"]
    file = Path(where["kubeconfig"])
    place = Place(Namespace(where["namespace"], file, file), scene.place)
    ours, base = Samples("click to prompt, warm"), Samples("ssh -tt to prompt, warm")

    async def both() -> None:
        async with browser(address(gateway)) as page:
            await page.login(link(ssh))

            async def clicked() -> float:
                start = time.perf_counter()
                made = await page.new()
                tab = Tab(page, made["id"])
                await tab.open(made["ticket"])
                await tab.until(lambda: tab.received, "the prompt")
                took = time.perf_counter() - start
                await page.ask("DELETE", f"api/sessions/{made['id']}")
                return took

            async def typed() -> float:
                start = time.perf_counter()
                client = await asyncio.create_subprocess_exec(
                    *ssh.argv(options=("-tt",)), stdin=-1, stdout=-1, stderr=-3, env=environment()
                )
                assert client.stdout is not None
                await client.stdout.readexactly(1)
                took = time.perf_counter() - start
                client.kill()
                await client.wait()
                return took

            sides = [(ours, clicked), (base, typed)]
            for turn in range(runs + 1):
                for samples, measure in sides:
                    # Each finds the pool full, and is first in every other turn.
                    await asyncio.to_thread(place.filled, WARM)
                    took = await measure()
                    if turn:
                        samples.values.append(took)
                sides.reverse()

    asyncio.run(both())
    return ratio("web-click", "s", ours, base, most=1.3, least=None)


def key(scene: Scene, runs: int) -> Row:
    """One byte to a program on a terminal and back: through the socket, and through ssh."""
    gateway, ssh = scene.gateway("kubernetes", web=True, warm=WARM, settle="0s")
    ours, base = Samples("socket: key to echo"), Samples("ssh -tt: key to echo")

    async def both() -> None:
        async with browser(address(gateway)) as page:
            await page.login(link(ssh))
            made = await page.new()
            tab = Tab(page, made["id"])
            await tab.open(made["ticket"])
            await tab.type(ECHO + b"\n")
            await tab.see(b"ready\n")
            client = await asyncio.create_subprocess_exec(
                *ssh.argv(ECHO, options=("-tt",)), stdin=-1, stdout=-1, stderr=-3, env=environment()
            )
            assert client.stdin is not None
            assert client.stdout is not None
            await client.stdout.readuntil(b"ready\n")

            async def by_socket() -> None:
                before = tab.received
                await tab.type(b"x")
                await tab.until(lambda: tab.received > before, "the echo")

            async def by_ssh() -> None:
                client.stdin.write(b"x")  # type: ignore[union-attr]
                await client.stdout.readexactly(1)  # type: ignore[union-attr]

            for turn in range(runs * 10 + 1):
                for samples, press in ((base, by_ssh), (ours, by_socket)):
                    figures = []
                    for _ in range(KEYS):
                        start = time.perf_counter()
                        await press()
                        figures.append(time.perf_counter() - start)
                    if turn:
                        samples.values.append(statistics.median(figures) * 1000)
            client.kill()
            await client.wait()
            await page.ask("DELETE", f"api/sessions/{made['id']}")

    asyncio.run(both())
    added = ours.median - base.median
    return Row("web-key", "ms", ours, base, added, "at most 1 ms added", added <= 1.0)


def memory(scene: Scene, runs: int) -> Row:
    """What the gateway's memory grows by for each idle session at a socket, all of them in one named sandbox."""
    gateway, ssh = scene.gateway("kubernetes", web=True, warm=WARM, settle="0s", hold="never")
    samples = Samples(f"resident memory per session, {SESSIONS} sockets")

    async def grow() -> float:
        async with browser(address(gateway)) as page, AsyncExitStack() as stack:
            await page.login(link(ssh))

            async def idle() -> None:
                made = await page.new(name="bench")
                tab = Tab(page, made["id"])
                await tab.open(made["ticket"])
                await tab.until(lambda: tab.received, "a prompt")
                stack.push_async_callback(page.ask, "DELETE", f"api/sessions/{made['id']}")

            await idle()  # what the first of all costs once is not a session's
            before = gateway.memory
            for _ in range(SESSIONS // AT_ONCE):
                await asyncio.gather(*(idle() for _ in range(AT_ONCE)))
            await asyncio.sleep(1)
            return (gateway.memory - before) / SESSIONS / 1024

    samples.values.append(asyncio.run(grow()))
    figure = samples.median
    return Row("web-memory", "KiB", samples, None, figure, "at most 160 KiB", figure <= 160)
