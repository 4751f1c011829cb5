"""The rights without which the gateway serves all the same: each is needed for one thing that is then not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.rig import cluster as rig_cluster
from tests.rig import rights
from tests.rig.cluster import BUSYBOX, Namespace
from tests.rig.gateway import Gateway, configured
from tests.rig.ssh import Ssh, make_key
from tests.rig.waiting import until

pytestmark = pytest.mark.cluster

EVENTS = ("watch", "", "events")
ANCHOR = ("get", "", "configmaps")
USAGE = ("list", "metrics.k8s.io", "pods")

MISSING_SECRET: dict[str, Any] = {
    "volumes": [{"name": "lost", "secret": {"secretName": "lost-secret"}}],
    "containers": [{"name": "shell", "volumeMounts": [{"name": "lost", "mountPath": "/lost"}]}],
}
# Events are known within these seconds; the start is given up before anything else would end it.
STUCK = {"pod_overrides": MISSING_SECRET, "limits": {"start": "6s"}}


@pytest.fixture
def space(cluster: Path) -> Iterator[Namespace]:
    """A namespace whose role a test changes."""
    with rig_cluster.namespace() as place:
        yield place
        place.wait_empty()


@contextmanager
def served(space: Namespace, place: Path, **profile: Any) -> Iterator[tuple[Gateway, Ssh]]:
    """A gateway in this namespace, with what it may do there now, and its user."""
    place.mkdir()
    made = configured(place, space, profiles={"default": {"image": BUSYBOX, "shell": "/bin/sh", **profile}})
    (made.users / "dev").write_text(make_key(place / "id") + "\n")
    made.start()
    try:
        yield made, Ssh(place, made.port)
    finally:
        made.stop()


def lacking(space: Namespace, right: tuple[str, str, str]) -> None:
    rights.change(rights.without(rights.role(space.name)[0], right))


def test_without_watching_events_a_user_does_not_learn_why_a_pod_does_not_start(
    space: Namespace, tmp_path: Path
) -> None:
    with served(space, tmp_path / "with", **STUCK) as (_, ssh):
        report = ssh.run("true")
    assert report.status == 255
    assert b"lost-secret" in report.err
    lacking(space, EVENTS)
    with served(space, tmp_path / "without", **STUCK) as (_, ssh):
        untold = ssh.run("true")
    assert untold.status == 255
    assert untold.err == b"sshgate: the sandbox did not start within 6 s; try again, or ask the operator.\n"


def test_without_reading_the_anchor_what_is_made_does_not_go_with_the_installation(
    space: Namespace, tmp_path: Path
) -> None:
    space.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sshgate-anchor"}})
    with served(space, tmp_path / "with") as (made, ssh):
        assert _owners_while_in(space, ssh) == ["sshgate-anchor"]
        assert "anchor.missing" not in made.log()
    lacking(space, ANCHOR)
    with served(space, tmp_path / "without") as (made, ssh):
        assert _owners_while_in(space, ssh) == []
        (line,) = (line for line in made.log().splitlines() if "anchor.missing" in line)
        assert "sshgate-anchor" in line


def _owners_while_in(space: Namespace, ssh: Ssh) -> list[str]:
    """The names of what owns the pod of a running session."""
    client = ssh.start("echo up; cat")
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        (pod,) = (pod for pod in space.pods() if "deletionTimestamp" not in pod["metadata"])
        return [owner["name"] for owner in pod["metadata"].get("ownerReferences", [])]
    finally:
        client.communicate()


@pytest.mark.slow
def test_without_the_metrics_users_do_not_see_what_their_sandboxes_use(space: Namespace, tmp_path: Path) -> None:
    lacking(space, USAGE)
    with served(space, tmp_path / "one") as (_, ssh):
        client = ssh.start("echo up; cat")
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            until(lambda: _measured(space), 100, "the metrics server having measured it")
            assert _used(ssh) == ("-", "-")
            rights.change(rights.role(space.name)[0])
            cpu, memory = until(lambda: _used(ssh) if _used(ssh) != ("-", "-") else None, 20, "what it uses") or (
                "",
                "",
            )
            assert float(cpu) >= 0
            assert memory.endswith("Mi")
        finally:
            client.communicate()


def _measured(space: Namespace) -> bool:
    found = space.kubectl("get", "--raw", f"/apis/metrics.k8s.io/v1beta1/namespaces/{space.name}/pods")
    return bool(json.loads(found)["items"])


def _used(ssh: Ssh) -> tuple[str, str]:
    """The columns CPU and MEMORY of the user's only sandbox."""
    report = ssh.run("sandboxes", options=("-s",))
    assert report.status == 0, report.both
    heading, row = (line.split() for line in report.out.decode().splitlines())
    return row[heading.index("CPU")], row[heading.index("MEMORY")]
