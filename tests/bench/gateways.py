"""The row `gateways`: claims a second by ten gateways of one namespace, and by the same patches without any gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import statistics
import subprocess
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import NamedTuple

import structlog
import uvloop

from sshgate.lifecycle.requests import Claim, claim_patch
from sshgate.providers.kubernetes.pods import record_of
from sshgate.sandbox.interfaces import Order
from tests.bench.measure import Row, Samples
from tests.bench.scale import make_pods, provider_of
from tests.bench.scene import Scene
from tests.rig.cluster import COMMAND
from tests.rig.waiting import until

GATEWAYS = int(os.environ.get("SSHGATE_BENCH_GATEWAYS", "10"))
CLAIMS, AT_ONCE = 20, 4
"""Of each gateway."""
ROUNDS = 3
"""At most: each makes 800 pods ahead."""


_together: Barrier
_server: int


class Part(NamedTuple):
    """What one process saw, in seconds: when it began and was done, and CPU until all were done."""

    began: float
    done: float
    own: float
    server: float
    lost: int = 0


def gateways(scene: Scene, runs: int) -> Row:
    """As many claims as they can, four at a time in each process; half of the pods are left at the end.

    The gateways know each other, as they do seconds after their start. Nothing is refilled: the limit on sandboxes is
    reached, so both sides send the same patches. The CPU shows what cores divide, on a machine that has other work.
    """
    ours = Samples(f"claims a second, {GATEWAYS} gateways")
    base = Samples(f"the same patches by {GATEWAYS} processes without a gateway")
    costs: dict[str, list[tuple[float, float, float]]] = {base.what: [], ours.what: []}
    subprocess.run([COMMAND, "simulate", "10", "0"], check=True)
    try:
        for _ in range(min(runs, ROUNDS)):
            for samples, work in ((base, _patched), (ours, _claimed)):
                rate, *cost = _round(scene, work)
                samples.values.append(rate)
                costs[samples.what].append((cost[0], cost[1], cost[2]))
    finally:
        subprocess.run([COMMAND, "simulate", "0", "0"], check=True)
    for what, found in costs.items():
        own, server, lost = map(statistics.median, zip(*found, strict=True))
        print(
            f"gateways: {what}: CPU {own:.1f} ms each, the API server {server:.1f} ms, {lost:g} races lost", flush=True
        )
    figure = ours.median / base.median
    return Row("gateways", "/s", ours, base, figure, "at least 0.8 x", figure >= 0.8)


def _round(scene: Scene, work) -> tuple[float, float, float, float]:  # type: ignore[no-untyped-def]
    """Claims a second; milliseconds of CPU for each, here and in the API server; and how many races were lost."""
    space, claims = scene.empty_namespace(), GATEWAYS * CLAIMS
    uvloop.run(make_pods(space.kubeconfig, space.name, 2 * claims))
    ready = "--field-selector=status.phase=Running"
    until(lambda: len(space.kubectl("get", "pods", ready, "-oname").split()) == 2 * claims, 600, "the pods")
    server = int(subprocess.run([COMMAND, "pid", "apiserver"], check=True, capture_output=True).stdout)
    context = get_context("spawn")
    together = context.Barrier(GATEWAYS, timeout=300)
    with ProcessPoolExecutor(GATEWAYS, context, _join, (together, server)) as processes:
        args = [(space.kubeconfig, space.name, 2 * claims, number) for number in range(GATEWAYS)]
        started = [processes.submit(_run, work, one) for one in args]
        failed = [error for one in started if (error := one.exception()) is not None]
    for error in sorted(failed, key=lambda one: isinstance(one, BrokenBarrierError)):
        raise error  # that of the one for which the others have waited
    space.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
    began, done, own, busy, lost = zip(*(one.result() for one in started), strict=True)
    took = max(done) - min(began)
    return claims / took, sum(own) / claims * 1000, statistics.median(busy) / claims * 1000, sum(lost)


def _join(together: Barrier, server: int) -> None:
    """The processes begin together, when all are in sync."""
    global _together, _server
    _together, _server = together, server


def _run(work, args) -> Part:  # type: ignore[no-untyped-def]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        return uvloop.run(work(*args))  # type: ignore[no-any-return]
    except BaseException:
        _together.abort()
        raise


async def _in_turns(one) -> Part:  # type: ignore[no-untyped-def]
    await asyncio.to_thread(_together.wait)
    began, own, server = time.time(), time.process_time(), _cpu(_server)
    numbers = iter(range(CLAIMS))

    async def some() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    done = time.time()
    await asyncio.to_thread(_together.wait)  # the end of one is not to be in the way of others
    return Part(began, done, time.process_time() - own, _cpu(_server) - server)


def _cpu(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _claimed(kubeconfig: Path, namespace: str, size: int, number: int) -> Part:
    answers: Counter[tuple[str, str]] = Counter()
    provider, profile = provider_of(
        kubeconfig, namespace, size, lambda verb, outcome, _: answers.update([(verb, outcome)])
    )
    registry = provider.registry
    registry.limit(replace(registry.limits, sandboxes=size))
    await provider.open()
    # A look at the others' Leases is a change.
    async with asyncio.timeout(60):
        while len(registry.live_instances) < GATEWAYS:
            await registry.changed()
    while not registry.cache.share(registry.live_instances):
        pass

    async def one(_: int) -> None:
        sandbox = await provider.create(Order(profile, f"user-{number}", secrets.token_hex(6)), lambda _: None)
        assert sandbox.warm

    part = await _in_turns(one)
    await provider.close()
    return part._replace(lost=answers["patch", "invalid"])


async def _patched(kubeconfig: Path, namespace: str, size: int, number: int) -> Part:
    provider, _ = provider_of(kubeconfig, namespace, size)
    await provider.api.open()
    reflector = provider._reflector
    await reflector._list()
    records = sorted((record_of(pod) for pod in reflector.known.values()), key=lambda one: one.uid)[number::GATEWAYS]

    async def one(at: int) -> None:
        claim = Claim(f"user-{number}", secrets.token_hex(6), "nobody", "none", 3600.0)
        await provider.api.patch_pod(records[at].name, claim_patch(records[at], claim, provider.registry.now))

    part = await _in_turns(one)
    await provider.api.close()
    return part
