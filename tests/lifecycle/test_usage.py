"""What sandboxes use, as `sandboxes` shows it: figures where the cluster measures, and a dash where nobody does."""

from __future__ import annotations

import re

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.cluster import Namespace
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster


def used(ssh: Ssh) -> tuple[str, str]:
    """The columns CPU and MEMORY of the user's only sandbox."""
    done = ssh.run("sandboxes", options=("-s",))
    assert (done.status, done.err) == (0, b"")
    heading, line = (text.split() for text in done.out.decode().splitlines())
    assert len(heading) == len(line)
    return line[heading.index("CPU")], line[heading.index("MEMORY")]


@pytest.mark.timeout(240)
def test_what_a_sandbox_uses_is_shown_once_it_is_measured(space: Namespace, replica: MakeReplica, user: UserAt) -> None:
    measured = space.kubectl("get", "apiservices", "v1beta1.metrics.k8s.io", "--ignore-not-found", "-o", "name")
    if not measured:
        pytest.skip("this cluster has no metrics API")
    dev = user("dev", replica())
    busy = dev.as_user("dev=busy").start("echo up; while :; do :; done")
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"up\n"
        assert used(dev) == ("-", "-"), "nobody has measured it yet: no figure, and no sentence"
        # Metrics Server asks the nodes every 15 s, and needs two answers about a pod.
        until(lambda: used(dev) != ("-", "-"), 120, "figures")
        cpu, memory = used(dev)
        assert re.fullmatch(r"\d+\.\d\d", cpu)
        assert float(cpu) > 0
        assert re.fullmatch(r"\d+Mi", memory)
    finally:
        busy.kill()
        busy.communicate()
        assert dev.as_user("dev=busy").run("end", options=("-s",)).status == 0
