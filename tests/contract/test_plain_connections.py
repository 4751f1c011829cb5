"""Connections into a sandbox that has no python3: by what else it has. On this machine's own sandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sshgate.config.model import Profile, SandboxPlace
from sshgate.forwarding import plain
from sshgate.forwarding.destinations import Tcp, Unix
from sshgate.forwarding.relay import ConnectFailed
from sshgate.providers.local.provider import LocalProvider
from sshgate.sandbox.interfaces import Order, Sandbox
from sshgate.stream.interfaces import Exited
from tests.contract.programs import begin, run, until_output
from tests.rig.forwarding import ECHO, python

PORT = 34567

pytestmark = pytest.mark.local


@pytest.fixture
async def sandbox(local: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A sandbox in which the echo server runs. A connection opens after a second without output."""
    monkeypatch.setattr(plain, "REFUSAL_SECONDS", 1.0)
    provider = LocalProvider(SandboxPlace(provider="local"))
    await provider.open()
    made = await provider.create(Order(Profile(), "user", "session"), lambda text: None)
    server = await begin(made, python(ECHO, str(PORT)).encode())
    await until_output(server, b"\n")
    yield made
    await provider.close()


async def test_a_connection_ends_in_each_direction_by_itself(sandbox: Sandbox) -> None:
    stream = await plain.connect(sandbox, Tcp("localhost", PORT))
    await stream.write(b"by socat")
    await stream.write_eof()
    output = b""
    async with asyncio.timeout(20):
        while (data := await stream.read()) is not None:
            output += data
    assert output == b"by socat[end]"
    await stream.closed()


async def test_a_connection_that_is_let_go_of_leaves_no_program(sandbox: Sandbox) -> None:
    stream = await plain.connect(sandbox, Tcp("127.0.0.1", PORT))
    await stream.closed()
    assert (await run(sandbox, b"pgrep socat"))[2] == Exited(1)


async def test_a_connection_that_is_given_up_while_it_opens_leaves_no_program(sandbox: Sandbox) -> None:
    connecting = asyncio.create_task(plain.connect(sandbox, Tcp("127.0.0.1", PORT)))
    async with asyncio.timeout(20):
        while (await run(sandbox, b"pgrep socat"))[2] != Exited(0):
            pass
    assert sandbox.aside.plain_connections == 1
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    async with asyncio.timeout(20):
        while (await run(sandbox, b"pgrep socat"))[2] != Exited(1) or sandbox.aside.plain_connections:
            pass


async def test_a_port_on_which_nobody_listens_is_a_failure(sandbox: Sandbox) -> None:
    with pytest.raises(ConnectFailed):
        await plain.connect(sandbox, Tcp("::1", 1))
    with pytest.raises(ConnectFailed):
        await plain.connect(sandbox, Unix("/tmp/none"))


async def test_bash_alone_is_enough(sandbox: Sandbox) -> None:
    only = b"mkdir /tmp/only; ln -s $(command -v bash) $(command -v cat) /tmp/only; PATH=/tmp/only; "
    # bash cannot end one direction alone: the answer comes, the connection ends with its client.
    process = await begin(sandbox, only + plain.script(Tcp("localhost", PORT)))
    await process.write(b"by bash")
    await until_output(process, b"by bash")
    await process.close()


async def test_a_sandbox_without_any_of_them_says_so(sandbox: Sandbox) -> None:
    outcome = (await run(sandbox, b"PATH=/nowhere; " + plain.script(Tcp("localhost", PORT))))[2]
    assert outcome == Exited(plain.NO_TOOL)
