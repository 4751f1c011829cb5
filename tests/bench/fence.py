"""The rows `fence` and `fence-cold`: how long a program runs before the policy holds, and what a cold login waits."""

from __future__ import annotations

import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import yaml

from tests.bench.measure import Row, Samples, in_turn, ratio, seconds
from tests.bench.scene import Scene, pod
from tests.bench.warm import fill
from tests.rig.cluster import Namespace
from tests.rig.manifests import ROOT
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until

AT_ONCE = 30
# For 5 s, every 5 ms: how many connections to the API server's service address got through, and when the last did.
TRIES = r"""bash -c 'exec 9<> <(:); begin=${EPOCHREALTIME/./} through=0 last=0
while now=${EPOCHREALTIME/./}; [ $((now - begin)) -lt 5000000 ]; do
  if (exec 3<>/dev/tcp/10.43.0.1/443) 2>/dev/null; then through=$((through + 1)) last=$((now - begin)); fi
  read -rt 0.005 -u 9
done; echo $through $last'"""


def fence(scene: Scene, runs: int) -> Row:
    """Cold and warm logins, one by one and 30 at once, in a namespace with the policy of the manifests."""
    policy = _policy()
    every = Samples("last connection to the API server after a program's first instruction")
    pool: dict[str, Any] = {"warm": AT_ONCE, "refill_per_minute": 1200}
    for kind, profile in (("cold", {}), ("warm", pool)):
        gateway, ssh = scene.gateway("kubernetes", policy=policy, **profile)
        for number in (1, AT_ONCE):
            samples, through = Samples(f"{kind}, {number} at once"), 0
            for _ in range(runs if number == 1 else 1):
                if profile:
                    fill(scene, gateway, AT_ONCE)
                with ThreadPoolExecutor(number) as clients:
                    for connections, last in clients.map(_tried, [ssh] * number):
                        samples.values.append(last)
                        through += connections > 0
            print(f"fence: {samples.what}: {through} of {len(samples.values)} got through, s {samples.spread}")
            every.values += samples.values
    most = max(every.values)
    return Row("fence", "s", every, None, most, "never", most == 0)


def cold(scene: Scene, runs: int) -> Row:
    """Cold logins where the policy of the manifests is enforced, and where there is none.

    What the engine itself needs is measured with pods that no gateway has made.
    """
    ours, base = Samples("ssh ... true, cold pod, with the policy"), Samples("without a policy")
    engine = Samples("last connection of a bare pod after its first instruction")
    (gateway, fenced), (_, free) = scene.gateway("kubernetes", policy=_policy()), scene.gateway("kubernetes")
    space = replace(scene.namespace, name=gateway.settings["sandbox"]["namespace"])
    in_turn(
        runs,
        (ours, lambda: seconds(lambda: _logged_in(fenced))),
        (base, lambda: seconds(lambda: _logged_in(free))),
        (engine, lambda: _open_for(space)),
    )
    print(f"fence-cold: {engine.what}: {engine.median:.2f} s ({engine.spread})", flush=True)
    return ratio("fence-cold", "s", ours, base, most=1.3, least=None)


def _open_for(space: Namespace) -> float:
    """For how many seconds after its first instruction a new pod reaches the API server."""
    name = f"bare-{secrets.token_hex(3)}"
    # Ten times less often than a login's program: that would keep a core from the kubelet and the engine.
    seldom = TRIES.replace("-rt 0.005", "-rt 0.05")
    space.apply(pod(name, "/bin/sh", "-c", f"{seldom}; sleep 60"))
    words: list[str] = []

    def done() -> bool:
        with suppress(subprocess.CalledProcessError):
            words[:] = space.kubectl("logs", name).split()
        return len(words) == 2

    until(done, 60, "what a bare pod has found")
    space.kubectl("delete", "pod", name, "--grace-period=1", "--wait=false")
    return int(words[1]) / 1e6


def _policy() -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all((ROOT / "manifests/base/sandboxes/network.yaml").read_text()))
    return found


def _logged_in(ssh: Ssh) -> None:
    subprocess.run(ssh.argv("true"), stdin=subprocess.DEVNULL, check=True, env=environment())


def _tried(ssh: Ssh) -> tuple[int, float]:
    ran = subprocess.run(ssh.argv(TRIES), stdin=subprocess.DEVNULL, check=True, stdout=-1, env=environment())
    through, last = map(int, ran.stdout.split())
    return through, last / 1e6
