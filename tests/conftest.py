"""What the tests share: a cluster, namespaces, gateways and users at real clients."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest

from tests.rig import cluster as rig_cluster
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, configured, running
from tests.rig.ssh import Ssh, make_key

# A slow machine is no fault of the code.
hypothesis.settings.register_profile("sshgate", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("sshgate")

# A run under nohup, or in the background of a script, ignores these, and every program it starts would too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def _tidy_up(*_: object) -> None:
    """SIGTERM ends the tests as ^C does: else namespaces, gateways and files with a token would stay.

    A second one must not end that half-way: it comes where a whole group of processes is ended, and its first one too.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, _tidy_up)

PROVIDERS = [
    pytest.param("local", marks=pytest.mark.local),
    pytest.param("kubernetes", marks=pytest.mark.cluster),
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers beside each other take file after file: those that take long come first, and none is last alone."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        count = Counter(item.path for item in items)
        items.sort(key=lambda item: (-slow[item.path], -count[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What fails on a busy machine only is found by the logs of the gateways."""
    report = yield
    if report.failed:
        report.sections += [(f"gateway {one.place.name}, last lines", one.last_lines()) for one in running()]
    return report


class MakeGateway(Protocol):
    """Starts a gateway; keywords are sections of its configuration, merged over the tests' own."""

    def __call__(self, provider: str, host: str = "127.0.0.1", **sections: Any) -> Gateway: ...


@pytest.fixture(scope="session")
def cluster() -> Path:
    """The kubeconfig of the test cluster; skips where there is none."""
    if reason := rig_cluster.why_not():
        pytest.skip(reason)
    return rig_cluster.kubeconfig()


@pytest.fixture
def own_cluster(cluster: Path) -> Iterator[None]:
    """The test may stop parts of the cluster; the next test finds it as if nothing had been."""
    if not rig_cluster.is_our_own():
        pytest.skip("only a cluster of our own can be stopped")
    yield
    rig_cluster.recover()


@pytest.fixture(scope="session")
def namespace(cluster: Path) -> Iterator[Namespace]:
    """The namespace of this run, with restricted pods only. A pod that is left at the end fails the run."""
    with rig_cluster.namespace() as place:
        yield place
        place.wait_empty()


@pytest.fixture(scope="session")
def local() -> None:
    """Skips where bubblewrap cannot make a sandbox."""
    if shutil.which("bwrap") is None:
        pytest.skip("no bubblewrap on this machine")
    tried = subprocess.run(["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"bubblewrap makes no sandbox here: {tried.stderr.decode(errors='replace').strip()}")


@pytest.fixture(scope="session")
def make_gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeGateway]:
    """Gateways that run until the end of the test run; the end checks that each stops as it should."""
    with _gateways(request, tmp_path_factory) as make:
        yield make


@pytest.fixture
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeGateway]:
    """Gateways of one test alone; the end checks that each stops as it should."""
    with _gateways(request, tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="session", params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    """Every test that asks for it runs on both."""
    name: str = request.param
    request.getfixturevalue("local" if name == "local" else "cluster")
    return name


@pytest.fixture(scope="session")
def shared(make_gateway: MakeGateway, provider: str) -> Gateway:
    """One gateway for all the tests that leave it as it was."""
    return make_gateway(provider)


@pytest.fixture(scope="session")
def ssh(shared: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    """A user at the shared gateway."""
    return user_at(shared)


@pytest.fixture(scope="session")
def user_at(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Gateway], Ssh]:
    """Makes the user ``dev``, with a key that this gateway lets in."""

    def make(gateway: Gateway) -> Ssh:
        place = tmp_path_factory.mktemp("user")
        (gateway.users / "dev").write_text(make_key(place / "id") + "\n")
        return Ssh(place, gateway.port)

    return make


class _gateways:  # noqa: N801  (a context manager, used as one)
    """Makes gateways and stops them all, also when one of them does not stop well."""

    def __init__(self, request: pytest.FixtureRequest, places: pytest.TempPathFactory) -> None:
        self._request = request
        self._places = places
        self._made: list[Gateway] = []

    def __enter__(self) -> MakeGateway:
        return self.make

    def __exit__(self, *_: object) -> None:
        errors = []
        for gateway in reversed(self._made):
            try:
                gateway.stop()
            except AssertionError as error:
                errors.append(str(error))
        assert not errors, "\n".join(errors)

    def make(self, provider: str, host: str = "127.0.0.1", **sections: Any) -> Gateway:
        place = self._places.mktemp(f"gateway-{provider}")
        space: Namespace | None = self._request.getfixturevalue("namespace") if provider == "kubernetes" else None
        made = configured(place, space, host, **sections)
        self._made.append(made)
        made.start()
        return made
