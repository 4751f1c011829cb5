"""The link between gateways and a broker in another process, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from sshgate.access.ledger import MemoryUserRecords
from sshgate.broker import link
from sshgate.broker.budget import Accounts, KeptRecords
from sshgate.broker.caller import Caller
from sshgate.broker.egress_counts import Destination
from sshgate.broker.link import GatewayLinks, Linked, Links, Peer
from sshgate.broker.remote import BrokerListener, RemoteBroker
from sshgate.broker.sockets import GONE_SECONDS, LIMIT, SocketStream
from sshgate.config.model import Address, Broker
from sshgate.errors import Unavailable
from tests.unit.test_broker_budget import COST, Clock, Gateway

USED = {"work": [Destination("a.example", 443, None, 3, 10, 20, 1000.0)]}


class Sandboxes:
    """The part of a broker that serves sandboxes; here nobody asks it."""

    async def open(self) -> None:
        pass

    async def serve(self, stream: object, caller: Caller, brought: Mapping[str, str] | None = None) -> None:
        raise AssertionError(f"{caller} is no gateway")

    def reconfigure(self, config: object) -> None:
        pass

    async def close(self) -> None:
        pass


async def connected(user: str, name: str | None) -> Mapping[str, Sequence[Destination]]:
    return USED if (user, name) == ("ada", "work") else {}


@pytest.fixture
def settings(tmp_path: Path) -> Broker:
    (tmp_path / "secret").write_text("0123456789abcdef" * 4)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Broker(listen=Address("127.0.0.1", port), secret=tmp_path / "secret")


@contextlib.asynccontextmanager
async def broker(settings: Broker) -> AsyncIterator[Links]:
    links = Links()
    links.connected = connected
    listener = BrokerListener(settings, Linked(Sandboxes(), links))
    await listener.open()
    try:
        yield links
    finally:
        await listener.close()


@contextlib.asynccontextmanager
async def gateway(settings: Broker, records: MemoryUserRecords) -> AsyncIterator[GatewayLinks]:
    links = GatewayLinks(RemoteBroker(settings), KeptRecords(records))
    links.open()
    try:
        yield links
    finally:
        await links.close()


async def linked(links: Links, count: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(links._peers) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_the_broker_charges_is_written_by_a_gateway(settings: Broker) -> None:
    records, clock = MemoryUserRecords(), Clock()
    async with broker(settings) as links, gateway(settings, records):
        await linked(links)
        spending = Gateway(records, "broker", clock)
        spending.accounts = Accounts(links, "broker", clock)
        spending.metering._accounts = spending.accounts
        await spending.turn()
        await spending.turn()
        await spending.accounts.flush()
        assert (await Accounts(KeptRecords(records), "gateway", clock).of("ada")).day_nano == 2 * COST
        assert (await Accounts(links, "another", clock).of("ada")).day_nano == 2 * COST


async def test_a_gateway_gets_the_brokers_counts(settings: Broker) -> None:
    async with broker(settings) as links, gateway(settings, MemoryUserRecords()) as own:
        await linked(links)
        assert await own.connected("ada", "work") == USED
        assert await own.connected("eve", None) == {}


async def test_without_a_link_both_say_so(settings: Broker) -> None:
    with pytest.raises(Unavailable, match="no gateway is linked"):
        await Links().read("ada")
    with pytest.raises(Unavailable, match="cannot be reached now"):
        await GatewayLinks(RemoteBroker(settings), KeptRecords(MemoryUserRecords())).connected("ada", None)


async def test_a_broker_that_leaves_keeps_its_link_and_the_next_one_gets_one(
    settings: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "AGAIN_SECONDS", 0.01)
    records = MemoryUserRecords()
    old = Links()
    listener = BrokerListener(settings, Linked(Sandboxes(), old))
    await listener.open()
    async with gateway(settings, records):
        await linked(old)
        listener.stop_accepting()
        await old.leave()
        async with broker(settings) as new:
            await linked(new)
            assert await new.read("ada") == ""
            assert await old.read("ada") == "", "what the old one has counted can still be written"
            await listener.close()


async def test_a_broken_record_store_is_an_error_at_the_broker(settings: Broker) -> None:
    class Away(MemoryUserRecords):
        async def read(self, user: str) -> str:
            raise Unavailable("the API server is away.")

    async with broker(settings) as links, gateway(settings, Away()):
        await linked(links)
        with pytest.raises(Unavailable, match="the API server is away"):
            await links.read("ada")


@pytest.mark.parametrize(
    "sent",
    [
        b"no json\n",
        b"[]\n",
        b'{"id": "x"}\n',
        b"x" * (link.LONGEST_LINE + 100_000),
        json.dumps({"id": 1, "do": "read", "of": {"not": "a name"}}).encode() + b"\nno json\n",
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_cut(sent: bytes) -> None:
    async def read(of: bytes) -> str:
        return link._text(of)

    ours, theirs = socket.socketpair()
    near, far = [SocketStream(*await asyncio.open_connection(sock=one, limit=LIMIT)) for one in (ours, theirs)]
    running = asyncio.create_task(Peer(near, {"read": read}).run())
    await far.write(sent)
    async with asyncio.timeout(20):
        await running
    far.close()


async def test_a_peer_that_keeps_silent_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is off sends no end of the connection."""
    monkeypatch.setattr(link, "PING_SECONDS", 0.05)
    monkeypatch.setattr(link, "ANSWER_SECONDS", 0.1)
    ours, theirs = socket.socketpair()
    near, far = [SocketStream(*await asyncio.open_connection(sock=one, limit=LIMIT)) for one in (ours, theirs)]
    async with asyncio.timeout(20):
        await Peer(near, {}).run()
    far.close()


async def test_a_link_that_is_quiet_stays(settings: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_SECONDS", 0.02)
    async with broker(settings) as links, gateway(settings, MemoryUserRecords()):
        await linked(links)
        (peer,) = links._peers
        await asyncio.sleep(0.3)
        assert links._peers == [peer]
        assert peer._number > 3


async def test_a_gateway_that_hangs_is_not_the_only_one_that_is_asked(
    settings: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(MemoryUserRecords):
        async def read(self, user: str) -> str:
            await asyncio.sleep(60)
            return ""

    class Away(MemoryUserRecords):
        async def read(self, user: str) -> str:
            raise Unavailable("the API server is away.")

    monkeypatch.setattr(link, "NEXT_SECONDS", 0.2)
    async with broker(settings) as links, gateway(settings, MemoryUserRecords()):
        await linked(links)
        async with gateway(settings, Away()), gateway(settings, Hanging()):
            await linked(links, 3)
            assert await links.read("ada") == ""


async def test_both_ends_notice_a_machine_that_is_gone(settings: Broker) -> None:
    """The system closes such a connection; an idle one would be taken for open for hours."""
    found = []
    made = SocketStream.__init__

    def note(stream: SocketStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made(stream, reader, writer)
        one = writer.get_extra_info("socket")
        if one.family == socket.AF_INET:
            found.append(
                (
                    one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                )
            )

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SocketStream, "__init__", note)
        async with broker(settings) as links, gateway(settings, MemoryUserRecords()):
            await linked(links)
    assert found == [(1, GONE_SECONDS * 1000)] * 2


async def test_questions_that_are_not_known_are_answered() -> None:
    ours, theirs = socket.socketpair()
    near, far = [SocketStream(*await asyncio.open_connection(sock=one, limit=LIMIT)) for one in (ours, theirs)]
    here, there = Peer(near, {}), Peer(far, {})
    running = [asyncio.create_task(one.run()) for one in (here, there)]
    with pytest.raises(Unavailable, match="this is not known here"):
        await here.ask("what", None)
    near.close()
    async with asyncio.timeout(20):
        await asyncio.gather(*running)
