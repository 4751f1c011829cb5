"""A broker with what answers its egress, as in production, and connections to it as one sandbox has them.

And ``sshgate broker`` as a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from sshgate.access.ledger import MemoryUserRecords
from sshgate.broker.budget import KeptRecords
from sshgate.broker.caller import BrokerConnections, Caller, Meter, ModelRequest, Observer
from sshgate.broker.server import Broker
from sshgate.broker.sockets import LIMIT, SocketStream
from sshgate.config import model as settings
from sshgate.config.model import Config, Model, Models, Profile
from sshgate.server.brokering import Brokering
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Record
from tests.rig.messages import FakeApi
from tests.rig.waiting import until

KEY = "sk-ant-api03-canary-of-the-operator"
CALLER = Caller("dev", ("staff",), "default", "pod-1", "uid-1", None)
HI = {"model": "claude-test", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


class Unmetered:
    """The ``Meter`` that admits everything and counts nothing."""

    async def admit(self, request: ModelRequest) -> None:
        pass

    def observe(self, request: ModelRequest, status: int, headers: Mapping[str, str]) -> Observer:
        return _NoObserver()


class _NoObserver:
    def feed(self, data: bytes) -> None:
        pass

    def finish(self) -> Mapping[str, str | int | float]:
        return {}


class Sandbox:
    """A broker, and connections to it as one sandbox has them."""

    def __init__(self, broker: BrokerConnections, records: list[Record], brokering: Brokering) -> None:
        self.broker = broker
        self.drain = brokering.drain
        self.accounts = brokering.accounts
        self.records = records
        self.brought: dict[str, str] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        mine, its = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=its, limit=LIMIT)
        self.tasks.add(asyncio.create_task(self.broker.serve(SocketStream(reader, writer), CALLER, self.brought)))
        return await asyncio.open_connection(sock=mine)

    async def raw(self, request: bytes) -> bytes:
        """Send these bytes, and return all that is answered before the connection ends or is silent."""
        reader, writer = await self.connect()
        writer.write(request)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(3):
                while data := await reader.read(65536):
                    answer += data
                    if b'"error"' in answer:
                        break
        writer.close()
        return answer

    async def post(
        self, path: str, body: Any = HI, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """One request with aiohttp's client; status, body and headers of the answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()

        class Connector(aiohttp.BaseConnector):
            async def _create_connection(connector, *_: Any) -> Any:  # noqa: N805
                mine, its = socket.socketpair()
                reader, writer = await asyncio.open_connection(sock=its, limit=LIMIT)
                serving = self.broker.serve(SocketStream(reader, writer), CALLER, self.brought)
                self.tasks.add(asyncio.create_task(serving))
                loop = asyncio.get_running_loop()
                made = aiohttp.client_proto.ResponseHandler(loop=loop)
                await loop.connect_accepted_socket(lambda: made, mine)
                return made

        async with (
            aiohttp.ClientSession(connector=Connector(), auto_decompress=False) as session,
            session.post(f"http://127.0.0.1:4711{path}", data=content, headers=headers) as response,
        ):
            return response.status, await response.read(), dict(response.headers)

    def refusals(self) -> list[Record]:
        return [one for one in self.records if one.code in (Code.MODEL_REFUSED, Code.EGRESS_REFUSED)]


@contextlib.asynccontextmanager
async def sandbox(api: FakeApi, tmp_path: Path, meter: Meter | None = None, **changes: Any) -> AsyncIterator[Sandbox]:
    keys = tmp_path / "key"
    keys.write_text(KEY + "\n")
    base = {"upstream": api.url, "keys": keys}
    anthropic = Model(**{**base, "allow": ("claude-*",), **changes})
    other = Model(**base)  # type: ignore[arg-type]
    config = Config(
        models=Models(anthropic, other, other),
        profiles={"default": Profile(models=("anthropic", "openai", "gemini"))},
        broker=settings.Broker(connections_per_sandbox=5),
    )
    records: list[Record] = []
    events = Events(records.append)
    brokering = Brokering(config, events, KeptRecords(MemoryUserRecords()))
    await brokering.open()
    broker = brokering.connections
    if meter is not None:
        broker = Broker(config, events, meter)
        await broker.open()
    made = Sandbox(broker, records, brokering)
    try:
        yield made
    finally:
        await broker.close()
        await brokering.close()
        await asyncio.gather(*made.tasks)


@contextlib.contextmanager
def broker_process(place: Path, settings: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """``sshgate broker`` with these settings, once it listens."""
    file = place / "broker.yaml"
    file.write_text(yaml.safe_dump(settings))
    with (place / "broker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sshgate", "broker", "--config", str(file)], stdout=log, stderr=log, cwd=place
        )
    try:
        until(lambda: "serving" in (place / "broker.log").read_text(), 30, "the broker")
        yield process
    finally:
        process.terminate()
        assert process.wait(20) == 0
