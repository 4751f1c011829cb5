"""The row `fence`: how long after a program's first instruction the network policy does not hold yet."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from tests.bench.measure import Row, Samples
from tests.bench.scene import Scene
from tests.bench.warm import fill
from tests.rig.manifests import ROOT
from tests.rig.ssh import Ssh, environment

AT_ONCE = 30
# For 5 s, every 5 ms: how many connections to the API server's service address got through, and when the last did.
TRIES = r"""bash -c 'exec 9<> <(:); begin=${EPOCHREALTIME/./} through=0 last=0
while now=${EPOCHREALTIME/./}; [ $((now - begin)) -lt 5000000 ]; do
  if (exec 3<>/dev/tcp/10.43.0.1/443) 2>/dev/null; then through=$((through + 1)) last=$((now - begin)); fi
  read -rt 0.005 -u 9
done; echo $through $last'"""


def fence(scene: Scene, runs: int) -> Row:
    """Cold and warm logins, one by one and 30 at once, in a namespace with the policy of the manifests."""
    policy = next(yaml.safe_load_all((ROOT / "manifests/base/sandboxes/network.yaml").read_text()))
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


def _tried(ssh: Ssh) -> tuple[int, float]:
    ran = subprocess.run(ssh.argv(TRIES), stdin=subprocess.DEVNULL, check=True, stdout=-1, env=environment())
    through, last = map(int, ran.stdout.split())
    return through, last / 1e6
