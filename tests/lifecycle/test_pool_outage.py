"""The API server goes away and comes back: logins get a sentence meanwhile, the pool is as it was."""

from __future__ import annotations

import os
import time

import pytest

from sshgate.lifecycle import schema as labels
from sshgate.lifecycle.cache import RESERVATION_SECONDS
from tests.lifecycle.place import Place, names
from tests.rig.cluster import component
from tests.rig.gateway import free_port
from tests.rig.scrape import get
from tests.rig.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.timeout(240)]

# `SSHGATE_OUTAGE=30` for a run before a release.
OUTAGE = float(os.environ.get("SSHGATE_OUTAGE", "8"))
# After this a server that can be reached again has been noticed by everything that watches it.
NOTICED = 30.0
# The scheduler and the kubelet wait for up to a minute after several outages before they look again.
BACKED_OFF = 75.0


# pytest ends the fixtures of a test from its last: the cluster is well again before the leftovers are looked for.
def test_an_api_server_that_goes_away_costs_a_sentence_and_no_sandbox(place: Place, own_cluster: None) -> None:
    health = free_port()
    gateway = place.gateway(profile={"warm": 2}, telemetry={"listen": f"127.0.0.1:{health}"})
    ssh = place.user(gateway)
    assert ssh.run("echo in").out == b"in\n"
    before = names(place.filled(2))
    until(lambda: get(health, "/readyz") == (200, "ok\n"), NOTICED, "being ready")
    began = time.monotonic()
    component("stop", "apiserver")
    try:
        refused = ssh.run("true")
        assert refused.status == 255
        assert b"sshgate: the API server" in refused.err
        assert time.monotonic() - began < 12, "told, not waited for"
        # Nobody new is sent here, and a restart would mend nothing.
        reason = until(lambda: _unready(health), NOTICED, "being unready")
        assert reason.startswith("the API server "), reason
        assert get(health, "/healthz") == (200, "ok\n")
        # The length of the outage is what is tested.
        time.sleep(max(0.0, OUTAGE - (time.monotonic() - began)))
    finally:
        component("start", "apiserver")
    until(lambda: ssh.run("echo in").out == b"in\n", NOTICED, "logins working again")
    until(lambda: get(health, "/readyz") == (200, "ok\n"), NOTICED, "being ready again")
    until(lambda: not place.pods(labels.CLAIMED), NOTICED, "nothing claimed being left")
    # A sandbox whose claim was never answered is nobody else's for a moment; another one is made meanwhile.
    after = names(place.filled(2, RESERVATION_SECONDS + BACKED_OFF))
    assert len(after & before) >= 1, "the pool was kept"
    assert gateway.log().count("pool.broken") == 0


def _unready(health: int) -> str:
    """Why it is not ready; empty while it is."""
    status, reason = get(health, "/readyz")
    return reason if status == 503 else ""
