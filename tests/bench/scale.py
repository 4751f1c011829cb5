"""The row `scale`: what a claim costs the gateway with a hundred warm pods, and with thousands."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import secrets
import statistics
import subprocess
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import structlog
import uvloop

from sshgate.config.model import Profile, SandboxPlace
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.api.client import Observe, unobserved
from sshgate.providers.kubernetes.provider import KubernetesProvider
from tests.bench.measure import Row, Samples
from tests.bench.scene import Scene
from tests.bench.warm import RATE, claim_all
from tests.rig.cluster import COMMAND
from tests.rig.waiting import until

SIZES = [int(size) for size in os.environ.get("SSHGATE_BENCH_PODS", "100,1000").split(",")]
CLAIMS, MAKERS = 80, 20
SIMULATED = "sshgate.dev/simulated"


def scale(scene: Scene, runs: int) -> Row:
    """CPU of the gateway's process for each claim, its longest block of the event loop, and memory for each pod."""
    costs = []
    subprocess.run([COMMAND, "simulate", "10", "0"], check=True)
    try:
        for size in SIZES:
            space = scene.empty_namespace()
            try:
                uvloop.run(make_pods(space.kubeconfig, space.name, size))
                ready = "--field-selector=status.phase=Running"
                until(lambda: len(space.kubectl("get", "pods", ready, "-oname").split()) == size, 600, "the pods")  # noqa: B023
                # A process of its own: memory that another size has freed would be used again.
                with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as own:
                    print(own.submit(_allocated, space.kubeconfig, space.name, size).result(), flush=True)
                    costs.append(own.submit(_measured, space.kubeconfig, space.name, size).result())
            finally:
                space.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
    finally:
        subprocess.run([COMMAND, "simulate", "0", "0"], check=True)
    ours, base = (
        Samples(f"CPU for each claim, {size} warm pods", [cost])
        for size, cost in ((SIZES[-1], costs[-1]), (SIZES[0], costs[0]))
    )
    figure = ours.median / base.median
    return Row("scale", "ms", ours, base, figure, "at most 1.25 x", figure <= 1.25)


def provider_of(
    kubeconfig: Path, namespace: str, size: int, observe: Observe = unobserved, refill: int = RATE * 60
) -> tuple[KubernetesProvider, Profile]:
    """A gateway's provider for this many warm pods on simulated nodes."""
    profile = Profile(
        name="scale", warm=size, refill_per_minute=refill, settle=0, parked=(), node_selector={SIMULATED: "true"},
        tolerations=({"key": SIMULATED, "operator": "Exists"},),
    )  # fmt: skip
    place = SandboxPlace(kubeconfig=kubeconfig, namespace=namespace, gateway="bench-scale")
    return KubernetesProvider(place, {"scale": profile}, observe=observe), profile


async def make_pods(kubeconfig: Path, namespace: str, size: int) -> None:
    """The warm pods, made ahead."""
    provider, profile = provider_of(kubeconfig, namespace, size)
    await provider.api.open()

    async def some() -> None:
        for _ in range(size // MAKERS):
            name = f"sshgate-warm-scale-{secrets.token_hex(4)}"
            await provider.api.create_pod(podspec.warm_pod(profile, provider.owner, name))

    await asyncio.gather(*(some() for _ in range(MAKERS)))
    await provider.api.close()


def _allocated(kubeconfig: Path, namespace: str, size: int) -> str:
    """The memory that Python has allocated for the pods; what is resident has gaps, and buffers of the list."""
    return uvloop.run(_allocate(kubeconfig, namespace, size))


async def _allocate(kubeconfig: Path, namespace: str, size: int) -> str:
    provider, _ = provider_of(kubeconfig, namespace, size)
    await provider.api.open()
    tracemalloc.start()
    # Not the whole provider: closing it would delete the pool.
    await provider._reflector.start()
    gc.collect()
    allocated, _ = tracemalloc.get_traced_memory()
    await provider._reflector.close()
    await provider.api.close()
    return f"scale: {size} pods: {allocated / size / 1024:.2f} KiB allocated for each, at most 4 with thousands"


def _measured(kubeconfig: Path, namespace: str, size: int) -> float:
    """CPU milliseconds for each claim; prints the rest."""
    return uvloop.run(_measure(kubeconfig, namespace, size))


async def _measure(kubeconfig: Path, namespace: str, size: int) -> float:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    requests: Counter[str] = Counter()
    traffic = [0]
    provider, profile = provider_of(kubeconfig, namespace, size, lambda verb, *_: requests.update([verb]))
    _count_lines(provider, traffic)
    await provider.api.open()
    memory = _resident()
    start, busy = time.perf_counter(), time.process_time()
    await provider.open()
    synced, synced_cpu = time.perf_counter() - start, time.process_time() - busy
    memory = _resident() - memory
    try:
        await asyncio.sleep(2)
        busy = time.process_time()
        await asyncio.sleep(2)
        idle = (time.process_time() - busy) / 2
        requests.clear()
        traffic[0] = 0
        async with _blocks() as blocks:
            start, busy = time.perf_counter(), time.process_time()
            took = await claim_all(provider, profile, CLAIMS)
            cost = (time.process_time() - busy - idle * (time.perf_counter() - start)) / CLAIMS * 1000
        asked, seen = dict(requests), traffic[0]
    finally:
        await provider.close()
    print(
        f"scale: {size} pods: synced in {synced:.2f} s (CPU {synced_cpu:.2f} s), {memory / size / 1024:.1f} KiB each, "
        f"CPU idle {idle:.1%}, {cost:.2f} ms a claim, claim p50 {statistics.median(took):.4f} s, "
        f"longest block {max(blocks) * 1000:.0f} ms; each claim and its end: "
        f"{', '.join(f'{count / CLAIMS:.2f} {verb}' for verb, count in sorted(asked.items()))}, "
        f"{seen / CLAIMS / 1024:.1f} KiB of watch",
        flush=True,
    )
    return cost


def _count_lines(provider: KubernetesProvider, traffic: list[int]) -> None:
    """Add up the bytes of the lines of its watch."""
    stream = provider.api.stream

    @asynccontextmanager
    async def counted(*arguments: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        async def each(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for line in lines:
                traffic[0] += len(line)
                yield line

        async with stream(*arguments) as lines:
            yield each(lines)

    provider.api.stream = counted  # type: ignore[method-assign, assignment]


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@asynccontextmanager
async def _blocks() -> AsyncIterator[list[float]]:
    """By how much the event loop was late, again and again."""
    late = [0.0]
    clock = asyncio.get_running_loop().time

    async def look() -> None:
        while True:
            due = clock() + 0.005
            await asyncio.sleep(0.005)
            late.append(clock() - due)

    looking = asyncio.create_task(look())
    try:
        yield late
    finally:
        looking.cancel()
