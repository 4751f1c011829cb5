"""A gateway that ends cuts its sessions, and leaves the rest to the end of their sandboxes."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.access.identity import Identity, LoginName
from sshgate.config.model import Profile
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import Order
from sshgate.session import gateway as gateway_module
from sshgate.session.gateway import Gateway
from sshgate.stream.interfaces import Exec, Exited, Request
from tests.contract.programs import run
from tests.rig.ends import TestClient
from tests.rig.waiting import until

pytestmark = pytest.mark.local


async def test_a_cut_session_is_not_hung_up_in_a_sandbox_that_ends_with_the_gateway(provider: LocalProvider) -> None:
    gateway = Gateway(provider, {"default": Profile()}, None)
    login = gateway.login(Identity(LoginName("alice", None, "work"), "publickey", "SHA256:key", "127.0.0.1"))
    client = TestClient()
    session = asyncio.create_task(login.run(Request(Exec(b"echo $$; exec sleep 1000")), client))
    await asyncio.to_thread(until, lambda: client.written.endswith(b"\n"), 30.0, "its process id")
    pid = bytes(client.written)
    session.cancel()
    await asyncio.gather(session, return_exceptions=True)
    order = Order(Profile(), "alice", "look", "work")
    attachment = await provider.named.join(order, lambda text: None, lambda: lambda: None)
    assert await run(attachment.sandbox, b"kill -0 " + pid) == (b"", b"", Exited(0))
    await attachment.leave()
    await login.close()


async def test_a_hang_up_that_takes_long_keeps_no_session_open(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "HANG_UP_SECONDS", 0.5)
    gateway = Gateway(provider, {"default": Profile()}, None)
    login = gateway.login(Identity(LoginName("alice", None, "work"), "publickey", "SHA256:key", "127.0.0.1"))
    client = TestClient()
    session = asyncio.create_task(login.run(Request(Exec(b"echo $$; exec sleep 1000")), client))
    await asyncio.to_thread(until, lambda: client.written.endswith(b"\n"), 30.0, "its process id")
    pid = bytes(client.written)
    order = Order(Profile(), "alice", "look", "work")
    attachment = await provider.named.join(order, lambda text: None, lambda: lambda: None)
    side = provider._limits.side
    while side.take("alice"):  # as scripts do that the user's own programs stop
        pass
    client.leave()
    async with asyncio.timeout(10):
        await session
    for _ in range(4):
        side.release("alice")
    await login.close()  # which waits for it
    assert (await run(attachment.sandbox, b"kill -0 " + pid))[2] == Exited(1)
    await attachment.leave()
