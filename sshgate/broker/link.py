"""What gateways and a broker in another process ask each other: records of spending, and counts of connections.

The broker may not write to the cluster, so it asks any gateway that is linked to it; gateways ask it what it has
counted for their users. A link is one more connection from the gateway (``remote``), with the caller ``GATEWAY``. Both
sides send lines of JSON: a question has ``id``, ``do`` and ``of``; an answer has the ``id``, and ``answer`` or
``error``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from sshgate.broker.budget import SpendingRecords
from sshgate.broker.caller import NO_KEYS, BrokerConnections, Caller
from sshgate.broker.egress_counts import Destination
from sshgate.broker.sockets import LIMIT, SocketStream
from sshgate.broker.usage import Charge
from sshgate.config.model import Config
from sshgate.errors import GateError, Unavailable
from sshgate.stream.interfaces import PromptStream, Stream
from sshgate.stream.tasks import TaskSet, cancel, first_of

GATEWAY = Caller("", (), "", "", "", None)
"""Stands for a gateway itself. No user has an empty name."""

# Bytes of one line: a record has 48 KiB at most, and the counts of one user's sandboxes some hundred.
LONGEST_LINE = 4 << 20
# Questions of the other side that are worked on at a time; more are read later.
AT_ONCE = 64
ANSWER_SECONDS = 8.0
# Seconds for a gateway's answer if there is another one to ask.
NEXT_SECONDS = 2.5
# Seconds between two questions whether the other side is still there.
PING_SECONDS = 10.0
AGAIN_SECONDS = 1.0

Connected = Callable[[str, str | None], Awaitable[Mapping[str, Sequence[Destination]]]]

Handlers = Mapping[str, Callable[[Any], Awaitable[Any]]]
"""What the other side may ask, by name. Each gets the question's ``of``, and returns what JSON can hold."""


class _Line(msgspec.Struct, omit_defaults=True):
    id: int
    do: str = ""
    of: msgspec.Raw = msgspec.Raw(b"null")
    answer: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


_encode = msgspec.json.Encoder().encode
_line = msgspec.json.Decoder(_Line).decode
_charges = msgspec.json.Decoder(tuple[str, str, int, list[Charge], float]).decode
_text = msgspec.json.Decoder(str).decode
_name = msgspec.json.Decoder(tuple[str, str | None]).decode
_destinations = msgspec.json.Decoder(dict[str, list[Destination]]).decode


class _Silent(Unavailable):
    """There was no answer, not even an error."""


class Peer:
    """One side of a link. ``run`` it until the other side has gone, or has not answered a ping."""

    def __init__(self, stream: Stream, handlers: Handlers) -> None:
        self._stream = stream
        self._handlers = handlers
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._places = asyncio.Semaphore(AT_ONCE)
        self._sending = asyncio.Lock()
        self._tasks = TaskSet()

    def __repr__(self) -> str:
        return f"<Peer {len(self._asked)} asked, {len(self._tasks)} answering>"

    async def run(self) -> None:
        """Answer the other side until it has closed, or breaks the protocol. Closes the stream. Never raises."""
        rest = bytearray()
        self._tasks.start(self._watch())
        try:
            while (data := await self._stream.read()) is not None:
                rest += data
                *lines, tail = rest.split(b"\n") if b"\n" in data else (rest,)
                rest = bytearray(tail)
                if len(rest) > LONGEST_LINE:
                    return
                for line in lines:
                    await self._take(bytes(line))
        except msgspec.MsgspecError:
            return
        finally:
            self._stream.close()
            for waiting in self._asked.values():
                waiting.cancel()
            await self._tasks.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            try:
                await self.ask("ping", None)
            except _Silent:
                self._stream.close()
                return
            except Unavailable:
                pass  # an error is an answer: it is there

    async def ask(self, do: str, of: Any, seconds: float | None = None) -> bytes:
        """Ask the other side. Returns the answer, as JSON. ``seconds``: at most; ``None``: ``ANSWER_SECONDS``.

        Raises:
            Unavailable: it has gone, does not answer, or answers with an error.
        """
        self._number += 1
        number = self._number
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        try:
            async with asyncio.timeout(ANSWER_SECONDS if seconds is None else seconds):
                await self._send(_Line(number, do, msgspec.Raw(_encode(of))))
                await asyncio.wait({waiting})
        except TimeoutError:
            raise _Silent("the other process does not answer.") from None
        finally:
            del self._asked[number]
        if waiting.cancelled():
            raise Unavailable("the other process has gone.")
        return waiting.result()

    async def _take(self, data: bytes) -> None:
        line = _line(data)
        if line.do == "ping":
            await self._send(_Line(line.id))
        elif line.do:
            await self._places.acquire()
            self._tasks.start(self._handle(line))
        elif (waiting := self._asked.get(line.id)) is not None and not waiting.done():
            if line.error:
                waiting.set_exception(Unavailable(line.error))
            else:
                waiting.set_result(bytes(line.answer))

    async def _handle(self, line: _Line) -> None:
        try:
            handler = self._handlers.get(line.do)
            if handler is None:
                await self._send(_Line(line.id, error="this is not known here."))
                return
            answer = await handler(bytes(line.of))
            await self._send(_Line(line.id, answer=msgspec.Raw(_encode(answer))))
        except (GateError, msgspec.MsgspecError) as error:
            await self._send(_Line(line.id, error=str(error) or "it cannot be done."))
        finally:
            self._places.release()

    async def _send(self, line: _Line) -> None:
        async with self._sending:
            await self._stream.write(_encode(line) + b"\n")


class Links:
    """The broker's side: all linked gateways. ``SpendingRecords`` by any of them."""

    def __init__(self) -> None:
        self.connected: Connected | None = None
        """Returns what a user's sandboxes, or the one of a name, connected to by name."""
        self._peers: list[Peer] = []

    async def serve(self, stream: Stream) -> None:
        """Keep the link to one gateway until it has gone. Never raises."""
        peer = Peer(stream, {"connected": self._answer})
        self._peers.append(peer)
        try:
            await peer.run()
        finally:
            self._peers.remove(peer)

    async def _answer(self, of: bytes) -> Mapping[str, Sequence[Destination]]:
        user, name = _name(of)
        return await self.connected(user, name) if self.connected is not None else {}

    async def leave(self) -> None:
        """Ask all gateways to link to the next broker too. Never raises."""
        await asyncio.gather(*(peer.ask("leaving", None) for peer in self._peers), return_exceptions=True)

    async def read(self, user: str) -> str:
        return _text(await self._ask("read", user))

    async def add(self, user: str, writer: str, number: int, charges: Sequence[Charge], now: float) -> str:
        return _text(await self._ask("add", (user, writer, number, charges, now)))

    async def _ask(self, do: str, of: Any) -> bytes:
        """Ask the newest gateway, and the one before it if that fails. An addition made twice counts once."""
        failed = Unavailable("no gateway is linked to the broker.")
        peers = self._peers[::-1]
        for peer in peers:
            try:
                return await peer.ask(do, of, NEXT_SECONDS if peer is not peers[-1] else None)
            except Unavailable as error:
                failed = error
        raise failed


class Linked:
    """A broker's ``BrokerConnections`` that takes the links of gateways apart from sandboxes' connections."""

    def __init__(self, broker: BrokerConnections, links: Links) -> None:
        self._broker = broker
        self._links = links

    async def open(self) -> None:
        await self._broker.open()

    async def serve(self, stream: PromptStream, caller: Caller, brought: Mapping[str, str] = NO_KEYS) -> None:
        if caller == GATEWAY:
            await self._links.serve(stream)
        else:
            await self._broker.serve(stream, caller, brought)

    def reconfigure(self, config: Config) -> None:
        self._broker.reconfigure(config)

    async def close(self) -> None:
        await self._broker.close()


class GatewayLinks:
    """A gateway's side: keeps a link to the broker, and one to the broker before it while that one drains."""

    def __init__(self, broker: BrokerConnections, records: SpendingRecords) -> None:
        self._broker = broker
        self._records = records
        self._peer: Peer | None = None
        self._tasks = TaskSet()

    def open(self) -> None:
        """Begin to keep the link."""
        self._tasks.start(self._keep())

    async def close(self) -> None:
        """End the link."""
        await self._tasks.cancel()

    async def connected(self, user: str, name: str | None) -> Mapping[str, Sequence[Destination]]:
        """Return what the broker has counted. Raises ``Unavailable``."""
        if self._peer is None:
            raise Unavailable("the broker cannot be reached now; try again in a moment.")
        return _destinations(await self._peer.ask("connected", (user, name)))

    async def _keep(self) -> None:
        while True:
            left = asyncio.Event()
            await first_of(asyncio.wait({self._tasks.start(self._link(left))}), left.wait())
            await asyncio.sleep(AGAIN_SECONDS)

    async def _link(self, left: asyncio.Event) -> None:
        """One link, until it ends. ``left`` is set when the broker is leaving."""

        async def read(of: bytes) -> str:
            return await self._records.read(_text(of))

        async def add(of: bytes) -> str:
            return await self._records.add(*_charges(of))

        async def leaving(of: bytes) -> None:
            left.set()

        ours, theirs = socket.socketpair()
        near, far = [SocketStream(*await asyncio.open_connection(sock=one, limit=LIMIT)) for one in (ours, theirs)]
        peer = self._peer = Peer(near, {"read": read, "add": add, "leaving": leaving})
        carrying = asyncio.create_task(self._broker.serve(far, GATEWAY))
        try:
            await peer.run()
        finally:
            if self._peer is peer:
                self._peer = None
            await cancel(carrying)
