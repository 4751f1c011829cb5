"""Forwards against a relay that lies: everything in a sandbox is in its user's hands, the relay too."""

from __future__ import annotations

import asyncio

import pytest

from sshgate.access.identity import Identity, LoginName
from sshgate.access.policy import Grant
from sshgate.config.model import Profile, SandboxPlace
from sshgate.errors import Unavailable
from sshgate.forwarding import inside, plain
from sshgate.forwarding.destinations import Tcp, Unix
from sshgate.forwarding.relay import ConnectFailed, frame
from sshgate.providers.local.provider import LocalProvider
from sshgate.session import forwards as forwards_module
from sshgate.session.claims import Claims
from sshgate.session.forwards import MAX_REVERSE_CONNECTIONS, Forwards
from sshgate.stream.interfaces import STDOUT, OpenReverseChannel, Request, Shell, Stream
from sshgate.telemetry.events import Events, to_log
from tests.unit.lying_relay import OfALyingRelay


def forwards() -> Forwards:
    identity = Identity(LoginName("user"), "publickey", "SHA256:x", "127.0.0.1")
    context = Events(to_log).context()
    claims = Claims(LocalProvider(SandboxPlace(provider="local")), None, "user", context)
    granted = Grant(Profile(), "channel", Request(Shell()))
    return Forwards(identity, lambda: granted, claims, context)


async def test_so_many_connections_come_back_and_no_more() -> None:
    asked = 0

    async def back(host: str, port: int) -> Stream:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    sandbox, mine = OfALyingRelay(), forwards()
    async with mine.session(Grant(Profile(), "channel", Request(Shell()))) as target:
        target.entered(sandbox)
        await agent(mine, sandbox, back)
        sandbox.relay.accepts(listener=1, count=2 * MAX_REVERSE_CONNECTIONS)
        await sandbox.relay.heard(frame(inside.CLOSE, inside.ACCEPTED_FROM + 2 * MAX_REVERSE_CONNECTIONS - 1))
        assert asked == MAX_REVERSE_CONNECTIONS
        for task in mine._tasks:
            task.cancel()
    await mine.close()


async def agent(mine: Forwards, sandbox: OfALyingRelay, back: OpenReverseChannel) -> None:
    """Has the relay listen for the agent, as its listener 1."""
    making = asyncio.create_task(mine.agent(sandbox, back))
    await sandbox.relay.heard(frame(inside.LISTEN, 1, b"a"))
    sandbox.relay.output.put(frame(inside.LISTENING, 1, b"/tmp/agent"), STDOUT)
    await making


async def test_a_relay_that_nothing_uses_any_more_does_not_stay_behind_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwards_module, "UNUSED_SECONDS", 0.01)

    async def back(host: str, port: int) -> Stream:
        raise AssertionError

    sandbox, mine = OfALyingRelay(), forwards()
    async with mine.session(Grant(Profile(), "connection", Request(Shell()))) as target:
        target.entered(sandbox)
        await agent(mine, sandbox, back)
        streams = []
        for number in (2, 3):
            connecting = asyncio.create_task(mine.connect(Tcp("localhost", 80)))
            await sandbox.relay.heard(frame(inside.OPEN, number, b"t\0P127.0.0.1\n::1"))
            sandbox.relay.output.put(frame(inside.OPENED, number), STDOUT)
            streams.append(await connecting)
    streams[0].close()
    await asyncio.sleep(0.1)
    assert not sandbox.relay.closed, "a connection is open"
    streams[1].close()
    await asyncio.sleep(0.1)
    assert sandbox.relay.closed
    await mine.close()


async def test_a_connection_that_ended_while_a_forward_waited_takes_no_sandbox() -> None:
    mine = forwards()
    connecting = asyncio.create_task(mine.connect(Tcp("localhost", 80)))
    await asyncio.sleep(0)
    await mine.close()
    with pytest.raises(Unavailable, match="the connection has ended"):
        await connecting


@pytest.mark.parametrize("path", ["/tmp/a!!EXEC:id", "/tmp/a,fork", "/tmp/a:b", "/tmp/a b"])
async def test_a_path_that_would_be_more_than_one_to_socat_is_refused(path: str) -> None:
    with pytest.raises(ConnectFailed, match="special characters"):
        await plain.connect(OfALyingRelay(), Unix(path))
