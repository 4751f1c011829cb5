"""The rows of the warm pool: what a login costs when its sandbox is there already."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import secrets
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from urllib.request import urlopen

import uvloop

from sshgate.config.model import Profile, SandboxPlace
from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes import podspec
from sshgate.providers.kubernetes.api.client import JSON_PATCH
from sshgate.providers.kubernetes.provider import KubernetesProvider
from sshgate.sandbox.interfaces import Order
from tests.bench.measure import Row, Samples, in_turn, ratio, seconds
from tests.bench.scene import Scene
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

POOL = 4
# The growth of so many stands out from noise.
LARGE = 24
# Logins a second, and for how long.
RATE, SECONDS = 20, int(os.environ.get("SSHGATE_BENCH_SECONDS", "60"))


def true(scene: Scene, runs: int) -> Row:
    """Log in, get a warm pod, run `true`, leave."""
    gateway, ssh = scene.gateway("kubernetes", warm=POOL, settle="0s")
    ours, base = Samples("ssh ... true, warm pod"), Samples("kubectl exec POD -- true")
    exec_true = scene.kubectl_exec("true")

    def log_in() -> float:
        fill(scene, gateway, POOL)
        return _timed(ssh.argv("true"))

    in_turn(runs, (ours, log_in), (base, lambda: _timed(exec_true)))
    return ratio("warm", "s", ours, base, most=0.5, least=None)


def named(scene: Scene, runs: int) -> Row:
    """The same with a name that is new each time, beside one without."""
    gateway, ssh = scene.gateway("kubernetes", warm=POOL, settle="0s")
    ours, base = Samples("ssh user=NAME ... true, warm pod"), Samples("ssh ... true, warm pod")

    def log_in(user: Ssh) -> float:
        fill(scene, gateway, POOL)
        return _timed(user.argv("true"))

    def log_in_named() -> float:
        user = ssh.as_user(f"{ssh.user}=n{secrets.token_hex(4)}")
        took = log_in(user)
        assert user.run("end", options=("-s",)).status == 0
        return took

    in_turn(runs, (ours, log_in_named), (base, lambda: log_in(ssh)))
    return ratio("warm-named", "s", ours, base, most=1.25, least=None)


def prompt(scene: Scene, runs: int) -> Row:
    """Log in with a terminal: until the first byte of the prompt."""
    gateway, ssh = scene.gateway("kubernetes", warm=POOL, settle="0s")
    ours, base = Samples("ssh, first byte of the prompt, warm pod"), Samples("kubectl exec POD -- true")
    exec_true = scene.kubectl_exec("true")

    def log_in() -> float:
        fill(scene, gateway, POOL)
        return first_byte(ssh)

    in_turn(runs, (ours, log_in), (base, lambda: _timed(exec_true)))
    return ratio("warm-prompt", "s", ours, base, most=0.5, least=None)


def memory(scene: Scene, runs: int) -> Row:
    """What the gateway's memory grows by for each warm pod with two launchers, where nothing keeps sessions."""
    samples = Samples(f"resident memory per warm pod, {LARGE} pods with two launchers each against 1")
    sizes = []
    for size in (1, 1 + LARGE):
        gateway, _ = scene.gateway("kubernetes", warm=size, refill_per_minute=1200, hold="never")
        fill(scene, gateway, size)
        sizes.append(gateway.memory)
        gateway.stop()
    samples.values.append((sizes[1] - sizes[0]) / LARGE / 1024)
    figure = samples.median
    return Row("warm-memory", "KiB", samples, None, figure, "at most 150 KiB", figure <= 150)


def writes(scene: Scene, runs: int) -> Row:
    """Patches and deletions for each warm login, by the gateway's own count; refilling creates one more."""
    listen = f"127.0.0.1:{free_port()}"
    gateway, ssh = scene.gateway("kubernetes", telemetry={"listen": listen}, warm=10, settle="0s")
    fill(scene, gateway, 10)
    samples = Samples("PATCH and DELETE for each warm login")
    before = _writes(listen)
    for _ in range(10):
        _timed(ssh.argv("true"))
    # The deletion of the last one is under way when its client has gone.
    until(lambda: _writes(listen) - before >= 20, 10, "the deletions")
    samples.values.append((_writes(listen) - before) / 10)
    # The gateway's own Lease is renewed every 5 s, which is a patch as well.
    return Row("warm-writes", "", samples, None, samples.median, "at most 2.2", samples.median <= 2.2)


def claim(scene: Scene, runs: int) -> Row:
    """20 claims a second for a minute: pods on a node that is only an object, so that nothing but the claim counts."""
    samples = Samples(f"claim, {RATE} a second for {SECONDS} s, refilled meanwhile")
    uvloop.run(_claims(scene, samples))
    figure = statistics.quantiles(samples.values, n=100, method="inclusive")[98]
    print(f"claim: p50 {statistics.median(samples.values):.4f} s, p99 {figure:.4f} s, {len(samples.values)} claims")
    return Row("claim", "s", samples, None, figure, "p99 at most 0.25 s", figure <= 0.25)


async def _claims(scene: Scene, samples: Samples) -> None:
    node = f"sshgate-bench-{secrets.token_hex(3)}"
    space, count = scene.empty_namespace(), RATE * SECONDS
    place = SandboxPlace(kubeconfig=space.kubeconfig, namespace=space.name, gateway="bench-claims")
    profile = Profile(
        name="claims", warm=count, refill_per_minute=RATE * 60, settle=0, parked=(), node_selector={"bench": node}
    )
    provider = KubernetesProvider(place, {"claims": profile})
    await provider.api.open()
    async with _node(provider, node):
        await asyncio.gather(*(_ready_pods(provider, profile, node, count // 20) for _ in range(20)))
        await provider.open()
        try:
            samples.values += await claim_all(provider, profile, count)
        finally:
            await provider.close()
            space.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")


async def claim_all(provider: KubernetesProvider, profile: Profile, count: int) -> list[float]:
    """So many claims, ``RATE`` a second, each deleted again; the seconds that each took."""
    clock = asyncio.get_running_loop().time
    began = clock()

    async def one(number: int) -> float:
        await asyncio.sleep(began + number / RATE - clock())
        start = clock()
        sandbox = await provider.create(Order(profile, f"user-{number}", f"bench-{number}"), lambda _: None)
        took = clock() - start
        assert sandbox.warm
        await sandbox.delete()
        return took

    return await asyncio.gather(*(one(number) for number in range(count)))


@contextlib.asynccontextmanager
async def _node(provider: KubernetesProvider, name: str) -> AsyncIterator[None]:
    """A node that is an object and no machine."""
    api, path = provider.api, f"/api/v1/nodes/{name}"
    await api.request("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"bench": name}}})
    beating = asyncio.create_task(_alive(provider, path))
    try:
        yield
    finally:
        beating.cancel()
        with contextlib.suppress(Exception):
            await api.open()
            await api.request("DELETE", path)
            await api.close()


async def _alive(provider: KubernetesProvider, path: str) -> None:
    """Say that the node is ready, again and again: after 50 s without it its pods are not ready either."""
    capacity = {"cpu": "1000", "memory": "4Ti", "pods": "5000", "ephemeral-storage": "4Ti"}
    began = _now()
    while True:
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": _now(), "lastTransitionTime": began}
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
        patch = [{"op": "replace", "path": "/status", "value": status}]
        await provider.api.request("PATCH", f"{path}/status", patch, content=JSON_PATCH)
        await asyncio.sleep(10)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _ready_pods(provider: KubernetesProvider, profile: Profile, node: str, count: int) -> None:
    """Warm pods that say that they are ready."""
    api = provider.api
    now = _now()
    status = {
        "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "startTime": now,
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
    }  # fmt: skip
    for _ in range(count):
        manifest = podspec.warm_pod(profile, provider.owner, f"sshgate-warm-claims-{secrets.token_hex(4)}")
        manifest["spec"]["nodeName"] = node
        name = manifest["metadata"]["name"]
        await api.create_pod(manifest)
        patch = [{"op": "replace", "path": "/status", "value": status}]
        await api.request("PATCH", api.path("pods", name, "status"), patch, content=JSON_PATCH)


def fill(scene: Scene, gateway: Gateway, size: int) -> None:
    """Wait until the pool is full and all that is parked waits in each of its pods."""
    # Two launchers, and for held sessions another one, its program at the resident, and the resident.
    each = 2 if gateway.settings["profiles"]["default"].get("hold") == "never" else 5
    until(lambda: _parked(scene, gateway) >= each * size, 90, f"a pool of {size} with all that is parked")


def _parked(scene: Scene, gateway: Gateway) -> int:
    """The processes that wait in the ready warm pods of a gateway's namespace, by what /proc in them lists."""
    space = replace(scene.namespace, name=gateway.settings["sandbox"]["namespace"])
    ready = [
        pod
        for pod in space.pods()
        if pod["metadata"]["labels"].get(labels.STATE) == labels.WARM
        and "deletionTimestamp" not in pod["metadata"]
        and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
    ]
    script = r"grep -lz '[_]_l\|^#sshgate-hol[d]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
    report = [space.kubectl("exec", pod["metadata"]["name"], "--", "/bin/sh", "-c", script) for pod in ready]
    # An exec that ends at once sometimes prints nothing: the caller looks again.
    return sum(int(text) for text in report if text.strip())


def _writes(listen: str) -> float:
    with urlopen(f"http://{listen}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("sshgate_api_requests_total")]
    return sum(float(line.split()[-1]) for line in lines if 'verb="patch"' in line or 'verb="delete"' in line)


def _timed(argv: Sequence[str | bytes]) -> float:
    return seconds(lambda: subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, env=environment()))


def first_byte(ssh: Ssh, *command: str, options: tuple[str, ...] = ()) -> float:
    """From the start of the client on a terminal of its own to the first thing it shows."""
    ours, theirs = pty.openpty()
    start = time.perf_counter()
    argv = ssh.argv(*command, options=options)
    client = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment())
    try:
        os.close(theirs)
        assert os.read(ours, 1)
        return time.perf_counter() - start
    finally:
        client.kill()
        client.wait()
        os.close(ours)
