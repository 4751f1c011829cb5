"""Both event loops and both providers for the files that need them; else the provider of this machine."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from sshgate.config.model import Profile, SandboxPlace
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import Order, Provider, Sandbox
from tests.contract.kubernetes_namespace import Namespace, namespace
from tests.rig.cluster import IMAGE, RUNTIME_CLASS

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

ON_BOTH_LOOPS = ("test_kubernetes_exec.py", "test_process.py")
ON_BOTH_PROVIDERS = ("test_held.py", "test_process.py")
PROVIDERS = [pytest.param("local", marks=pytest.mark.local), pytest.param("kubernetes", marks=pytest.mark.cluster)]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """asyncio's own loop, and uvloop too where it makes a difference."""
    if item.path.name in ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "provider" in metafunc.fixturenames and metafunc.definition.path.name in ON_BOTH_PROVIDERS:
        metafunc.parametrize("provider", PROVIDERS, indirect=True)


@pytest.fixture
async def place() -> AsyncIterator[Namespace]:
    """A namespace on the test cluster."""
    async with namespace() as made:
        yield made


@pytest.fixture
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    """An open provider."""
    if getattr(request, "param", "local") == "kubernetes":
        async with namespace() as place, place.provider() as made:
            yield made
    else:
        request.getfixturevalue("local")
        local = LocalProvider(SandboxPlace(provider="local"))
        await local.open()
        yield local
        await local.close()


@pytest.fixture
async def sandbox(provider: Provider) -> AsyncIterator[Sandbox]:
    """A sandbox of the usual profile."""
    profile = Profile(image=IMAGE, runtime_class=RUNTIME_CLASS)
    made = await provider.create(Order(profile, "alice", secrets.token_hex(5)), lambda text: None)
    yield made
    await made.delete()
