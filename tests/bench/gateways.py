"""The row `gateways`: claims a second by ten gateways of one namespace, and by the same patches without any gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

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


_together: Barrier


def gateways(scene: Scene, runs: int) -> Row:
    """As many claims as they can, four at a time in each process; half of the pods are left at the end."""
    ours = Samples(f"claims a second, {GATEWAYS} gateways")
    base = Samples(f"the same patches by {GATEWAYS} processes without a gateway")
    subprocess.run([COMMAND, "simulate", "10", "0"], check=True)
    try:
        for samples, work in ((base, _patched), (ours, _claimed)):
            space, size = scene.empty_namespace(), 2 * GATEWAYS * CLAIMS
            uvloop.run(make_pods(space.kubeconfig, space.name, size))
            ready = "--field-selector=status.phase=Running"
            until(lambda: len(space.kubectl("get", "pods", ready, "-oname").split()) == size, 600, "the pods")  # noqa: B023
            context = get_context("spawn")
            together = context.Barrier(GATEWAYS)
            with ProcessPoolExecutor(GATEWAYS, context, _join, (together,)) as processes:
                args = [(space.kubeconfig, space.name, size, number) for number in range(GATEWAYS)]
                spans = list(processes.map(_run, [work] * GATEWAYS, args))
            begins, ends = zip(*spans, strict=True)
            samples.values.append(GATEWAYS * CLAIMS / (max(ends) - min(begins)))
            space.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
    finally:
        subprocess.run([COMMAND, "simulate", "0", "0"], check=True)
    figure = ours.median / base.median
    return Row("gateways", "/s", ours, base, figure, "at least 0.8 x", figure >= 0.8)


def _join(together: Barrier) -> None:
    """The processes begin together, when all are in sync."""
    global _together
    _together = together


def _run(work, args) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """When this process began, and when it was done."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    return uvloop.run(work(*args))  # type: ignore[no-any-return]


async def _in_turns(one) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    await asyncio.to_thread(_together.wait, 300)
    begin = time.time()
    numbers = iter(range(CLAIMS))

    async def some() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return begin, time.time()


async def _claimed(kubeconfig: Path, namespace: str, size: int, number: int) -> tuple[float, float]:
    provider, profile = provider_of(kubeconfig, namespace, size, refill=1)
    await provider.open()

    async def one(_: int) -> None:
        sandbox = await provider.create(Order(profile, f"user-{number}", secrets.token_hex(6)), lambda _: None)
        assert sandbox.warm

    span = await _in_turns(one)
    await asyncio.to_thread(_together.wait, 300)  # the end of one is not to be in the way of others
    await provider.close()
    return span


async def _patched(kubeconfig: Path, namespace: str, size: int, number: int) -> tuple[float, float]:
    provider, _ = provider_of(kubeconfig, namespace, size)
    await provider.api.open()
    reflector = provider._reflector
    await reflector._list()
    records = sorted((record_of(pod) for pod in reflector.known.values()), key=lambda one: one.uid)[number::GATEWAYS]

    async def one(at: int) -> None:
        claim = Claim(f"user-{number}", secrets.token_hex(6), "nobody", "none", 3600.0)
        await provider.api.patch_pod(records[at].name, claim_patch(records[at], claim, provider.registry.now))

    span = await _in_turns(one)
    await provider.api.close()
    return span
