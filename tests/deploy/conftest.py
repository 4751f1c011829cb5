"""One installation for the whole layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import deployed as rig
from tests.rig.deployed import Deployed
from tests.rig.ssh import Ssh


@pytest.fixture(scope="session")
def deployed(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The gateway, deployed by the k3s overlay. Its end deletes all of it, and fails the run if anything is left."""
    if reason := rig.why_not():
        pytest.skip(reason)
    with rig.deployed(tmp_path_factory.mktemp("operator")) as made:
        yield made


@pytest.fixture(scope="session")
def dev(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Ssh:
    """A user whom the gateway lets in."""
    return deployed.user("dev", tmp_path_factory.mktemp("dev"))
