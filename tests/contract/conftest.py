"""Both event loops for the files whose bytes depend on them, and the provider of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from sshgate.config.model import SandboxPlace
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import Sandbox
from tests.contract.programs import make

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

ON_BOTH_LOOPS = ("test_kubernetes_exec.py", "test_process.py")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """asyncio's own loop, and uvloop too where it makes a difference."""
    if item.path.name in ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def provider(local: None) -> AsyncIterator[LocalProvider]:
    """An open provider. Suites of both providers have a fixture of their own."""
    made = LocalProvider(SandboxPlace(provider="local"))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def sandbox(provider: LocalProvider) -> Sandbox:
    """A sandbox of the usual profile."""
    return await make(provider)
