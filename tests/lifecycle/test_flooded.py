"""A gateway that is flooded for a while stays alive to the others: they take nothing of what it has."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.fairness.attack import ROOT
from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.cluster import Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(180)]

# More than the silence after which a gateway is looked at. `SSHGATE_FLOOD=60` for a run before a release.
SECONDS = float(os.environ.get("SSHGATE_FLOOD", "25"))


@pytest.mark.parametrize("kind", ["ignore before KEXINIT", "refused opens"])
def test_no_sandbox_of_a_flooded_gateway_is_reaped(
    kind: str, space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    one, two = replica(), replica()
    dev, eve = user("dev", one), user("eve", two)
    argv = [sys.executable, "-m", "tests.fairness.flood", kind, str(one.port), str(dev.key), "10", "1"]
    with dev.running() as client, eve.running():
        pods = set(space.living())
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            subprocess.run(argv, cwd=ROOT, input=b"go\n", stdout=subprocess.DEVNULL, check=True, timeout=60)
        assert client.poll() is None
        assert pods <= set(space.living())
    assert "sandbox.reaped" not in two.log()
