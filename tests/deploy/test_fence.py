"""No program of a user runs before the network policy is in force in its pod, with k3s's engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sshgate.lifecycle import schema as labels
from tests.rig import cluster as rig_cluster
from tests.rig import rights
from tests.rig.cluster import BUSYBOX, IMAGE, Namespace
from tests.rig.gateway import Gateway, configured
from tests.rig.manifests import ROOT
from tests.rig.ssh import Ssh, environment, make_key
from tests.rig.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LOGINS = int(os.environ.get("SSHGATE_FENCE_LOGINS", "20"))
AT_ONCE = 5
POLICY = next(yaml.safe_load_all((ROOT / "manifests/base/sandboxes/network.yaml").read_text()))
API_SERVER = "10.43.0.1:443"
# Tries every 10 ms for 3 s, from the first instruction on; a try that gets no answer keeps no other one waiting.
TRIES = """bash -c '
exec 8<> <(:) 9> >(wc -l)
for ((n = 0; n < 300; n++)); do { : 3<>/dev/tcp/10.43.0.1/443 && echo >&9; } 2>/dev/null & read -rt 0.01 -u 8; done
kill $(jobs -p) 2>/dev/null
exec 9>&-; wait; sleep 0.1; echo tried'"""
# The same where there is no bash, nor anything else that the launcher knows to look with.
BUSYBOX_TRIES = (
    "for n in 1 2 3 4 5 6 7 8; do echo | busybox timeout 1 busybox nc -w 1 10.43.0.1 443 >/dev/null 2>&1 && echo in; "
    "sleep 0.1; done; echo tried"
)


@contextmanager
def served(place: Path, space: Namespace, **profiles: Any) -> Iterator[tuple[Gateway, Ssh]]:
    place.mkdir()
    made = configured(place, space, profiles=profiles)
    (made.users / "dev").write_text(make_key(place / "id") + "\n")
    made.start()
    try:
        yield made, Ssh(place, made.port)
    finally:
        made.stop()


@pytest.fixture
def space(cluster: Path) -> Iterator[Namespace]:
    """A namespace with the policy of the manifests."""
    with rig_cluster.namespace() as place:
        place.apply(POLICY)
        yield place


def connections(ssh: Ssh, command: str = TRIES, options: Sequence[str] = ()) -> int:
    """How many of the tries of a login's program got through."""
    argv = ssh.argv(command, options=tuple(options))
    ran = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, env=environment())
    words = ran.stdout.split()
    assert b"tried" in words, (ran.returncode, ran.stdout, ran.stderr)
    return words.count(b"in") if command == BUSYBOX_TRIES else int(words[0] if words[0] != b"tried" else words[1])


def through(users: Sequence[Ssh], command: str = TRIES) -> int:
    with ThreadPoolExecutor(AT_ONCE) as clients:
        return sum(clients.map(lambda user: connections(user, command), users))


def ready(space: Namespace) -> int:
    """The number of warm pods that a login could take."""
    return sum(
        pod["metadata"]["labels"].get(labels.STATE) == labels.WARM
        and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
        for pod in space.pods()
        if "deletionTimestamp" not in pod["metadata"]
    )


def test_the_tries_get_through_without_a_policy(cluster: Path, tmp_path: Path) -> None:
    """The tests below can fail: this is what they count. Nothing waits here, and the log names the reason once."""
    with (
        rig_cluster.namespace() as space,
        served(tmp_path / "gate", space, small={"image": BUSYBOX, "shell": "/bin/sh"}) as (gateway, ssh),
    ):
        assert connections(ssh) > 100
        assert connections(ssh.as_user("dev+small"), BUSYBOX_TRIES) > 3
        assert gateway.log().count("network.unrestricted") == 1
        assert "network.open" not in gateway.log()


@pytest.mark.timeout(1800)
def test_no_cold_login_reaches_the_api_server(space: Namespace, tmp_path: Path) -> None:
    with served(tmp_path / "gate", space) as (gateway, ssh):
        assert through([ssh] * LOGINS) == 0
        assert "network.enforced" in gateway.log()


@pytest.mark.timeout(1800)
def test_no_warm_login_reaches_the_api_server(space: Namespace, tmp_path: Path) -> None:
    """Also of those that take a pod as soon as it is there."""
    with served(tmp_path / "gate", space, default={"warm": AT_ONCE, "refill_per_minute": 1200}) as (_, ssh):
        for _ in range(LOGINS // AT_ONCE):
            until(lambda: ready(space) >= AT_ONCE, 60, "the pool")
            assert through([ssh] * AT_ONCE) == 0


def test_named_sandboxes_and_images_that_cannot_look_are_no_exception(space: Namespace, tmp_path: Path) -> None:
    with served(tmp_path / "gate", space, small={"image": BUSYBOX, "shell": "/bin/sh"}) as (_, ssh):
        assert through([ssh.as_user(f"dev=box{number}") for number in range(AT_ONCE)]) == 0
        assert through([ssh.as_user("dev+small")] * AT_ONCE, BUSYBOX_TRIES) == 0


def test_a_forward_from_a_sandbox_that_just_begins_does_not_get_through(space: Namespace, tmp_path: Path) -> None:
    with (
        served(tmp_path / "gate", space, default={"image": IMAGE, "forward": {"elsewhere": True}}) as (_, ssh),
        ThreadPoolExecutor(AT_ONCE) as clients,
    ):
        # The server answers what is no TLS.
        ended = clients.map(lambda _: ssh.run(options=("-W", API_SERVER), stdin=b"GET / HTTP/1.0\r\n\r\n"), range(5))
        assert {one.out for one in ended} == {b""}


def test_a_gateway_that_may_not_see_the_policies_looks_all_the_same(space: Namespace, tmp_path: Path) -> None:
    right = ("list", "networking.k8s.io", "networkpolicies")
    rights.change(rights.without(rights.role(space.name)[0], right))
    with served(tmp_path / "gate", space) as (_, ssh):
        assert connections(ssh) == 0
    space.kubectl("delete", "networkpolicy", "--all")
    with served(tmp_path / "again", space) as (gateway, ssh):
        assert connections(ssh) > 0
        assert gateway.log().count("network.open") == 1, "it waited in vain, and does not again"
        assert connections(ssh) > 0
        assert gateway.log().count("network.open") == 1
