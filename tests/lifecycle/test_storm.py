"""Many logins at once, on more than one gateway, while gateways are killed: none shares, none leaks."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from sshgate.lifecycle import schema as labels
from tests.lifecycle.place import Place
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ended
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

# `SSHGATE_CLAIMS=1000` for a run before a release.
CLAIMS = int(os.environ.get("SSHGATE_CLAIMS", "100"))
BURST = int(os.environ.get("SSHGATE_BURST", "50"))
AT_ONCE = 6
# A directory can be made once: whoever gets a sandbox that was another's is told.
FRESH = "mkdir /tmp/taken && echo fresh || echo again"
# The words of ssh or of the gateway for a login that did not work out.
REFUSALS = (
    b"Connection refused", b"Connection closed", b"Connection reset", b"closed by remote host", b"sshgate: ",
    b"Broken pipe", b"not known",
)  # fmt: skip


# What bounds the rate is the node: each claim costs it a pod that starts and one that goes, besides a login.
LIMIT = 120 + CLAIMS * 1.5


@pytest.mark.slow
@pytest.mark.timeout(LIMIT + 120)
def test_claims_of_two_gateways_that_are_killed_meanwhile_never_share_a_sandbox(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    profile = {"warm": 6, "refill_per_minute": 1200}
    gateways = [place.gateway(name, profile=profile) for name in ("one", "two")]
    place.filled(6)
    over = threading.Event()
    results: Counter[str] = Counter()
    number = count()

    def log_in() -> None:
        while not over.is_set():
            gateway = gateways[next(number) % 2]
            results[_result(place.user(gateway).run(FRESH, limit=90))] += 1
            if results["fresh"] >= CLAIMS:
                over.set()

    with ThreadPoolExecutor(AT_ONCE) as logins:
        try:
            working = [logins.submit(log_in) for _ in range(AT_ONCE)]
            killed = _kill_in_turn(gateways, results, over)
            for one in working:
                one.result(timeout=LIMIT)
        finally:
            over.set()  # whatever happened: no thread goes on logging in
    how = _how(gateways)
    record_property("claims", json.dumps({**results, **how, "killed": killed}))
    print(f"{dict(results)}, {dict(how)}, {killed} kills")
    assert results["again"] == 0
    assert set(results) <= {"fresh", "refused", "cut"}, results
    assert killed >= 2
    assert results["cut"] <= killed * AT_ONCE
    assert how["warm"] > 0
    for gateway in gateways:
        gateway.stop()
    until(lambda: not place.pods(), 60, "nothing being left")


@pytest.mark.timeout(300)  # more than its own limits, and the end of the file's pods
def test_a_burst_of_logins_on_a_smaller_pool_all_succeed(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    gateway = place.gateway(profile={"warm": 10, "refill_per_minute": 1200})
    ssh = place.user(gateway)
    assert ssh.run("true").status == 0, "the host key is known from here on"
    place.filled(10)
    start = threading.Barrier(BURST)

    def log_in() -> tuple[Ended, float]:
        start.wait()
        began = time.monotonic()
        return ssh.run(FRESH, limit=120), time.monotonic() - began

    with ThreadPoolExecutor(BURST) as logins:
        ended = [one.result() for one in [logins.submit(log_in) for _ in range(BURST)]]
    assert {one.err for one, _ in ended} == {b""}
    assert Counter(_result(one) for one, _ in ended) == {"fresh": BURST}
    how = _how([gateway])
    took = sorted(seconds for _, seconds in ended)
    warm, cold = took[: how["warm"]], took[how["warm"] :]
    figures = {**how, "warm": _percentiles(warm), "cold": _percentiles(cold)}
    record_property("burst", json.dumps(figures))
    print(figures)
    assert how["warm"] >= 10
    place.filled(10)
    assert place.pods(labels.CLAIMED) == []


def _kill_in_turn(gateways: list[Gateway], results: Counter[str], over: threading.Event) -> int:
    """Kill one, start it again, kill the other, each after a sixth of the claims; returns how often."""
    killed = 0
    for turn in range(1, 6):
        deadline = time.monotonic() + LIMIT
        while results["fresh"] < CLAIMS * turn / 6 and not over.wait(0.05):
            assert time.monotonic() < deadline, results
        if over.is_set():
            break
        gateway = gateways[turn % 2]
        gateway.kill()
        killed += 1
        gateway.start()
    return killed


def _result(ended: Ended) -> str:
    if ended.status == 0:
        return ended.out.decode().strip()
    if ended.status == 255 and any(words in ended.err for words in REFUSALS):
        return "refused"
    if ended.status == 255 and not ended.err:
        return "cut"  # ssh says nothing at this log level when its connection dies under a running command
    return f"{ended.status}: {ended.both}"


def _how(gateways: list[Gateway]) -> Counter[str]:
    """How the sandboxes were had, by the gateways' own words."""
    found: Counter[str] = Counter()
    for gateway in gateways:
        for line in gateway.log().splitlines():
            if '"sandbox.claim"' in line and line.startswith("{"):
                found[json.loads(line).get("how", "")] += 1
    return found


def _percentiles(took: list[float]) -> dict[str, float]:
    if len(took) < 2:
        return {}
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {name: round(cuts[at - 1], 3) for name, at in (("p50", 50), ("p95", 95), ("p99", 99))}
