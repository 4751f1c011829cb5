"""Namespaces of their own for one file, or for one test, and gateways in them that can be killed without harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.lifecycle.place import Place
from tests.rig import cluster as rig_cluster
from tests.rig.cluster import POD_GONE, Namespace
from tests.rig.gateway import Gateway, configured
from tests.rig.ssh import Ssh, make_key
from tests.rig.waiting import until

MakeReplica = Callable[..., Gateway]
UserAt = Callable[[str, Gateway], Ssh]


@pytest.fixture(scope="module")
def space(cluster: Path) -> Iterator[Namespace]:
    """A namespace for one file; a pod that is left in it at the end fails the run."""
    with rig_cluster.namespace() as place:
        yield place
        place.wait_empty(60)


@pytest.fixture
def replica(space: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeReplica]:
    """Starts gateways on the namespace; keywords are sections of their configuration."""
    made: list[Gateway] = []

    def make(**sections: Any) -> Gateway:
        gateway = configured(tmp_path_factory.mktemp("gateway"), space, **sections)
        made.append(gateway)
        gateway.start()
        return gateway

    yield make
    for gateway in reversed(made):
        gateway.stop()


@pytest.fixture(scope="session")
def user(tmp_path_factory: pytest.TempPathFactory) -> UserAt:
    """A user at a gateway, with a key of their own there: who somebody is is told by the name alone."""

    def make(name: str, gateway: Gateway) -> Ssh:
        place = tmp_path_factory.mktemp(name)
        with (gateway.users / name).open("a") as keys:
            keys.write(make_key(place / "id") + "\n")
        return Ssh(place, gateway.port, name)

    return make


@pytest.fixture(scope="module")
def ending(cluster: Path) -> Iterator[ExitStack]:
    """The namespaces of a file's tests: the kubelet ends what was in one while the next test runs."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def place(ending: ExitStack, tmp_path: Path) -> Iterator[Place]:
    """A namespace for one test; what is not deleted once its gateways have stopped fails the test.

    What is deleted and yet not gone at the end of the file fails the last one.
    """
    empty = ending.enter_context(rig_cluster.namespace())
    with Place(empty, tmp_path) as made:
        yield made
        made.stop()
        until(lambda: not empty.living(), POD_GONE, "the sandboxes being deleted")
    ending.callback(empty.wait_empty)
