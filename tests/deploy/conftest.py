"""One installation for the whole layer."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import deployed as rig
from tests.rig.deployed import Deployed
from tests.rig.ssh import Ssh


@pytest.fixture(scope="session")
def deployed(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The gateway, deployed by the k3s overlay. Its end deletes all of it, and fails the run if anything is left."""
    # There is one installation on a cluster: another run of these tests waits for this one's end.
    with cluster.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if reason := rig.why_not():
            pytest.skip(reason)
        with rig.deployed(tmp_path_factory.mktemp("operator")) as made:
            yield made


@pytest.fixture(scope="session")
def dev(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Ssh:
    """A user whom the gateway lets in."""
    return deployed.user("dev", tmp_path_factory.mktemp("dev"))


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """The first test that needs the installation also waits for its image, and its last for its end."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if "deployed" in fixtures:
            item.add_marker(pytest.mark.timeout(600))
        if not fixtures.isdisjoint({"deployed", "namespaces"}):
            item.add_marker(pytest.mark.installation)
    yield
    # Another overlay over the installation: the last thing that is done to it.
    items.sort(key=lambda item: "kind" in getattr(item, "fixturenames", ()))
