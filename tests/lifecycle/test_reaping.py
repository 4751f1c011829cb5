"""What dead gateways leave behind is removed by those that live."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.cluster import Namespace
from tests.rig.gateway import nothing_left
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster
# From the kill of a gateway to the last deletion of its sandboxes.
WITHIN = 60.0
# The garbage collector takes what has no owner any more within a second.
GARBAGE = 5.0
# `SSHGATE_SESSIONS=20` for a run before a release.
SESSIONS = int(os.environ.get("SSHGATE_SESSIONS", "6"))


def started(ssh: Ssh, count: int) -> list[subprocess.Popen[bytes]]:
    """Clients whose programs run."""
    clients = [ssh.start("echo up; exec sleep 600") for _ in range(count)]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
    return clients


def end(clients: list[subprocess.Popen[bytes]]) -> None:
    for client in clients:
        client.kill()
        client.communicate()


def test_sessions_of_a_killed_gateway_are_removed_by_another_within_a_minute(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    dying, living = replica(), replica()
    lost, kept = started(user("dev", dying), SESSIONS), started(user("eve", living), 1)
    try:
        assert len(space.living()) == SESSIONS + 1
        nothing_left(dying.kill())
        until(lambda: len(space.living()) == 1, WITHIN, "the removal of the dead gateway's sandboxes")
        assert "sandbox.reaped" in living.log()
        assert kept[0].poll() is None
    finally:
        end([*lost, *kept])


def test_a_gateway_that_starts_after_all_were_killed_removes_what_they_left(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    first, second = replica(), replica()
    clients = [*started(user("dev", first), 2), *started(user("eve", second), 2)]
    try:
        for gateway in (first, second):
            nothing_left(gateway.kill())
        assert len(space.living()) == 4
        replica()
        until(lambda: not space.living(), WITHIN, "the removal of everything")
        until(lambda: leases(space) == 2, WITHIN, "the removal of the dead gateways' leases")
    finally:
        end(clients)


def test_a_gateway_that_stops_says_goodbye(space: Namespace, replica: MakeReplica) -> None:
    one = replica()
    until(lambda: leases(space) == 2, 30, "its own lease and the leader's")
    one.stop()
    assert leases(space) == 1


def test_leases_that_somebody_deletes_end_no_session_and_are_made_anew(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    one, other = replica(), replica()
    clients = [*started(user("dev", one), 1), *started(user("eve", other), 1)]
    try:
        before = until(lambda: len(made := instances(space)) == 2 and made, 30, "both gateways' leases")
        space.kubectl("delete", "leases", "--all")
        until(lambda: leases(space) == 3, 30, "their leases and the leader's being made anew")
        assert instances(space) == before
        assert [client.poll() for client in clients] == [None, None]
        assert len(space.living()) == 2
        assert "sandbox.reaped" not in one.log() + other.log()
    finally:
        end(clients)


def test_who_says_goodbye_is_not_waited_for(space: Namespace, replica: MakeReplica) -> None:
    one, other = replica(), replica()
    until(lambda: leases(space) == 3, 30, "their leases and the leader's")
    one.stop()
    # Its released Lease stays until everybody has seen that.
    assert leases(space) == 3
    until(lambda: leases(space) == 2, WITHIN, "the other one having deleted it")
    other.stop()
    assert leases(space) == 1


def leases(space: Namespace) -> int:
    return len(space.leases())


def test_deleting_the_anchor_deletes_what_gateways_made(space: Namespace, replica: MakeReplica, user: UserAt) -> None:
    space.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sshgate-anchor"}})
    served = replica()
    dev = user("dev", served)
    assert dev.as_user("dev=work").run("true").status == 0
    clients = started(dev, 1)
    try:
        assert len(space.living()) == 2
        nothing_left(served.kill())
        space.kubectl("delete", "configmap", "sshgate-anchor")
        until(lambda: not space.pods() and not instances(space), 60, "everything it made being gone")
    finally:
        end(clients)


def test_an_anchor_that_is_made_anew_takes_nothing_that_is_made_later(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    anchor = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sshgate-anchor"}}
    space.apply(anchor)
    served = replica()
    until(lambda: len(instances(space)) == 1, 30, "its lease")
    space.kubectl("delete", "configmap", "sshgate-anchor")
    space.apply(anchor)
    uid = space.kubectl("get", "configmap", "sshgate-anchor", "--output=jsonpath={.metadata.uid}")
    until(lambda: {owner(lease) for lease in space.leases()} == {uid}, 60, "its leases being owned by the new one")
    clients = started(user("dev", served), 1)
    try:
        assert [owner(pod) for pod in space.pods()] == [uid]
        time.sleep(GARBAGE)
        assert clients[0].poll() is None
        assert len(space.living()) == 1
    finally:
        end(clients)


def owner(thing: dict[str, Any]) -> str | None:
    """The uid of what owns an object."""
    references = thing["metadata"].get("ownerReferences", [])
    return references[0]["uid"] if references else None


def instances(space: Namespace) -> list[str]:
    """Leases of lives, without the leader's, which may be an earlier gateway's."""
    names = [lease["metadata"]["name"] for lease in space.leases()]
    return [name for name in names if "sshgate-life-" in name]
