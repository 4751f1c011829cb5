"""The gateway's half of a relay: many streams over one process in a sandbox. ``inside`` is the other half."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import structlog

from sshgate.errors import GateError, StartFailed
from sshgate.forwarding import inside
from sshgate.forwarding.destinations import Agent, Destination, Listening, Tcp
from sshgate.forwarding.inside import CHUNK, HEAD, WINDOW
from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.framing import FrameReader, ProtocolError
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import RESIDENT_MARK, Program, quote
from sshgate.stream import turns
from sshgate.stream.flow import Flow
from sshgate.stream.interfaces import STDOUT, Exec, Process, Request
from sshgate.stream.tasks import Event, TaskSet

# Bytes of frames that wait for the pipe to the relay: writers pause above the first, and resume below the second.
OUTBOX_HIGH = 256 * 1024
OUTBOX_LOW = 64 * 1024
# A write of fewer bytes is small: what several streams have soon after it is gathered into one.
SMALL = 4096
# python3 starts in some 20 ms, on a very busy node in seconds.
HELLO_SECONDS = 20.0
# For a destination that drops packets; Linux itself would try for two minutes.
CONNECT_SECONDS = 20.0
# Charged to the budget for an accepted connection and for an answer, because each wakes tasks.
TASK_SECONDS = 0.0005
# Bytes of a broken relay's stderr that are logged.
LONGEST_COMPLAINT = 200

# Bytes of a frame's payload at most. The relay never sends more; a longer one comes from something else.
LONGEST = CHUNK + 1024

log = structlog.get_logger("sshgate.forwarding")

_SOURCE = Path(inside.__file__).read_bytes()
# -I and -S: faster, and files in the sandbox cannot change what is imported.
_CODE = f"exec(open(0,'rb',closefd=False).read({len(_SOURCE)}))"

Accepted = Callable[["RelayStream", str, int], None]
"""Called with a connection to a listener and its originator's address and port. Must not block."""


class ConnectFailed(GateError):
    """The destination cannot be reached from the sandbox; the text gives the reason."""

    code = "forward"
    level = logging.INFO


class NoRelay(GateError):
    """The sandbox has no python3 that can run the relay."""

    code = "missing"


class Relay:
    """Opens streams and listeners inside one sandbox, all over one process. The caller of ``start`` closes it.

    When the process ends, or sends what no relay sends, every stream ends and every request fails.
    """

    def __init__(self, process: Process, stream_ended: Callable[[], None]) -> None:
        self._process = process
        self._stream_ended = stream_ended
        self._reader = FrameReader(HEAD, LONGEST)
        self._budget = turns.budget()
        self._room = Event()
        self._room.set()
        self._outbox = Flow(OUTBOX_HIGH, OUTBOX_LOW, self._room.clear, self._room.set)
        self._numbers = count(1)
        self._streams: dict[int, RelayStream] = {}
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._listeners: dict[int, Accepted] = {}
        self._ended = Event()
        self._tasks = TaskSet()

    def __repr__(self) -> str:
        state = " closed" if self._ended.is_set() else ""
        return f"<Relay {len(self._streams)} streams, {len(self._listeners)} listeners, {self._outbox!r}{state}>"

    @classmethod
    async def start(
        cls, sandbox: Sandbox, stream_ended: Callable[[], None] = lambda: None, resident: bytes | None = None
    ) -> Relay:
        """Start a relay and wait for its first answer. Cancelling ends it.

        Args:
            stream_ended: called when a stream or listener has ended.
            resident: it belongs to the sandbox, which it does not keep; this shell command runs before it.

        Raises:
            NoRelay: the sandbox has no python3 that can run it.
            StartFailed: it does not answer; otherwise as ``Sandbox.start``.
        """
        process = await park(sandbox, None)
        try:
            await launch(process, Program(Request(Exec(_start(resident))), shell="/bin/sh"))
            await process.write(_SOURCE)
            async with asyncio.timeout(HELLO_SECONDS):
                rest = await _hello(process)
        except TimeoutError as error:
            await process.close()
            raise StartFailed("the relay in the sandbox did not answer within 20 s; try again.") from error
        except BaseException:
            await process.close()
            raise
        relay = cls(process, stream_ended)
        relay._tasks.start(relay._read(rest))
        relay._tasks.start(relay._write())
        return relay

    @property
    def alive(self) -> bool:
        """Whether the relay runs, so that streams can be opened."""
        return not self._ended.is_set()

    @property
    def streams(self) -> int:
        """The number of open streams, including those that are being opened."""
        return len(self._streams)

    @property
    def listeners(self) -> int:
        """The number of listeners that are open or being opened."""
        return len(self._listeners)

    async def connect(self, destination: Destination, own: tuple[str, ...] = ()) -> RelayStream:
        """Connect from inside the sandbox. Cancelling closes the stream.

        ``own``: the sandbox's own addresses, tried in turn instead of ``destination.host``. Raises ``ConnectFailed``,
        also after ``CONNECT_SECONDS``.
        """
        number = next(self._numbers)
        stream = self._streams[number] = RelayStream(self, number)
        try:
            await self._ask(number, frame(inside.OPEN, number, opening(destination, own)))
        except BaseException:
            stream.close()
            raise
        return stream

    async def listen(self, where: Listening, accepted: Accepted) -> tuple[int, bytes]:
        """Listen inside the sandbox. Returns the listener's number, and its port (two bytes, big-endian) or path.

        ``accepted`` is called for each connection. Raises ``ConnectFailed`` where the address cannot be used.
        Cancelling removes the listener.
        """
        number = next(self._numbers)
        self._listeners[number] = accepted
        try:
            return number, await self._ask(number, frame(inside.LISTEN, number, listening(where)))
        except BaseException:
            self.unlisten(number)
            raise

    def unlisten(self, number: int) -> None:
        """Remove a listener. Its connections stay open. Idempotent."""
        if self._listeners.pop(number, None) is not None:
            self.send(frame(inside.CLOSE, number))
            self._stream_ended()

    async def wait_ended(self) -> None:
        """Return when the relay has ended."""
        await self._ended.wait()

    async def close(self) -> None:
        """End the relay with all its streams. Idempotent; never raises."""
        self._lose()
        await self._tasks.cancel()
        await self._process.close()

    async def _ask(self, number: int, frame: bytes) -> bytes:
        answer: asyncio.Future[bytes]
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            if self._ended.is_set():
                raise ConnectFailed("the sandbox has ended")
            self.send(frame)
            async with asyncio.timeout(CONNECT_SECONDS):
                return await answer
        except TimeoutError as error:
            raise ConnectFailed(f"no answer within {CONNECT_SECONDS:g} s") from error
        finally:
            del self._answers[number]

    # --- for its streams ---

    def send(self, data: bytes) -> None:
        """Queue a frame without waiting for room; discard it once the relay has ended."""
        if not self._ended.is_set():
            self._outbox.put(data)

    @property
    def has_room(self) -> bool:
        """Whether there is room for more frames."""
        return self._room.is_set()

    async def room(self) -> None:
        """Wait until there is room for more frames."""
        await self._room.wait()

    def forget(self, number: int) -> None:
        """Drop a stream that the relay or the gateway has closed."""
        self._streams.pop(number, None)
        self._stream_ended()

    # --- its two tasks ---

    async def _write(self) -> None:
        while (chunk := await self._outbox.get()) is not None:
            await self._process.write(chunk[1])
            # One stream alone waits for its answers more than for its turn.
            if len(chunk[1]) < SMALL and len(self._streams) > 1:
                await asyncio.sleep(self._budget.gather())

    async def _read(self, rest: bytes) -> None:
        complaint = b""
        try:
            await self._budget.run(self._take(rest))
            while (chunk := await self._process.read()) is not None:
                if chunk[0] == STDOUT:
                    await self._budget.run(self._take(chunk[1]))
                    # Our answers to these frames are queued: a relay that does not read them is not read from either.
                    await self.room()
                else:
                    complaint = (complaint + chunk[1])[-LONGEST_COMPLAINT:]
        except ProtocolError as error:
            # A program in the sandbox has tampered with the relay: ignore everything that follows.
            complaint = str(error).encode()
        finally:
            self._lose()
        if complaint:
            log.warning("relay.broken", output=_printable(complaint))
        # Here, as its owner may have another one by now; what broke the rules still runs.
        await self._process.close()

    def _lose(self) -> None:
        self._ended.set()
        self._outbox.discard()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectFailed("the sandbox has ended"))
        for stream in list(self._streams.values()):
            stream.lost()
        self._streams.clear()
        self._listeners.clear()

    def _take(self, data: bytes) -> Iterator[None]:
        for one in self._reader.feed(data):
            self._frame(*one)
            yield

    def _frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind == inside.ACCEPTED:
            self._accept(number, payload)
        elif kind in (inside.OPENED, inside.LISTENING, inside.FAILED):
            answer = self._answers.get(number)
            if answer is not None and not answer.done():
                self._budget.charge(TASK_SECONDS)
                if kind == inside.FAILED:
                    answer.set_exception(ConnectFailed(_printable(payload) or "connection failed"))
                else:
                    answer.set_result(payload)
        elif (stream := self._streams.get(number)) is not None:
            stream.received(kind, payload)

    def _accept(self, listener: int, payload: bytes) -> None:
        if len(payload) < 6:
            raise ProtocolError("a connection without a number")
        number, port = struct.unpack_from(">IH", payload)
        accepted = self._listeners.get(listener)
        if number < inside.ACCEPTED_FROM or number in self._streams:
            raise ProtocolError("a number that is not the relay's to give")
        self._budget.charge(TASK_SECONDS)
        stream = self._streams[number] = RelayStream(self, number)
        if accepted is None:
            stream.close()
        else:
            accepted(stream, _printable(payload[6:]), port)


class RelayStream:
    """One connection through a relay; a ``stream.interfaces.PromptStream``."""

    def __init__(self, relay: Relay, number: int) -> None:
        self._relay = relay
        self._number = number
        # The window bounds it, so it is never paused.
        self._input = Flow(WINDOW, WINDOW)
        self._credit = WINDOW
        self._more = Event()
        self._taken = 0
        self._gone = Event()
        self._eof_sent = False

    def __repr__(self) -> str:
        return f"<RelayStream {self._number} {self._input!r}{' gone' * self._gone.is_set()}>"

    async def read(self) -> bytes | None:
        chunk = await self._input.get()
        if chunk is None:
            return None
        self._taken += len(chunk[1])
        if self._taken >= WINDOW // 4 and not self._gone.is_set():
            self._relay.send(frame(inside.CREDIT, self._number, self._taken.to_bytes(4, "big")))
            self._taken = 0
        return chunk[1]

    async def write(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._gone.is_set():
            if not self._credit:
                self._more.clear()
                await self._more.wait()
                continue
            size = min(CHUNK, self._credit, len(data) - at)
            self._credit -= size
            self._relay.send(frame(inside.DATA, self._number, data[at : at + size]))
            at += size
            await self._relay.room()

    def write_now(self, data: bytes) -> bool:
        if self._gone.is_set():
            return True
        if len(data) > min(CHUNK, self._credit) or not self._relay.has_room:
            return False
        self._credit -= len(data)
        self._relay.send(frame(inside.DATA, self._number, data))
        return True

    async def write_eof(self) -> None:
        if not self._eof_sent and not self._gone.is_set():
            self._eof_sent = True
            self._relay.send(frame(inside.EOF, self._number))

    async def wait_closed(self) -> None:
        await self._gone.wait()

    def close(self) -> None:
        if not self._gone.is_set():
            self._relay.send(frame(inside.CLOSE, self._number))
            self._relay.forget(self._number)
            self.lost()
        self._input.discard()

    def lost(self) -> None:
        """The connection has ended. What has arrived can still be read."""
        self._gone.set()
        self._more.set()
        self._input.put_eof()

    def received(self, kind: int, payload: bytes) -> None:
        """Take a frame for this stream. Raises ``ProtocolError`` for data beyond the window."""
        if kind == inside.DATA:
            if self._input.size + self._taken + len(payload) > WINDOW + CHUNK:
                raise ProtocolError("more than the window")
            self._input.put(payload)
        elif kind == inside.EOF:
            self._input.put_eof()
        elif kind == inside.CREDIT:
            self._credit = min(self._credit + int.from_bytes(payload[:4], "big"), WINDOW)
            self._more.set()
        elif kind == inside.CLOSE:
            self._relay.forget(self._number)
            self.lost()


# --- frames ---


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    """Encode one frame."""
    return HEAD.pack(kind, number, len(payload)) + payload


def opening(destination: Destination, own: tuple[str, ...] = ()) -> bytes:
    """The payload of OPEN.

    ``own`` holds the numeric addresses to use where the destination is the sandbox itself: no name is looked up then.
    """
    if isinstance(destination, Tcp):
        hosts = own or (destination.host,)
        return b"t" + destination.port.to_bytes(2, "big") + "\n".join(hosts).encode()
    return b"u" + destination.path.encode("utf-8", "surrogateescape")


def listening(where: Listening) -> bytes:
    """The payload of LISTEN. A TCP listener is always on loopback, as with OpenSSH's ``GatewayPorts no``."""
    if isinstance(where, Tcp):
        return b"t" + where.port.to_bytes(2, "big")
    return b"a" if isinstance(where, Agent) else b"u" + where.path.encode("utf-8", "surrogateescape")


def _start(resident: bytes | None) -> bytes:
    """The command that starts a relay."""
    code = f"{RESIDENT_MARK}\n{_CODE}" if resident is not None else _CODE
    return (
        (resident or b"")
        + b"command -v python3 >/dev/null 2>&1&&exec python3 -IS -c "
        + quote(code.encode())
        + b";echo none"
    )


async def _hello(process: Process) -> bytes:
    """Wait for the relay's first line. Returns the output after it. Raises ``NoRelay`` if it never comes."""
    seen = b""
    length = 0
    while (chunk := await process.read()) is not None and length <= CHUNK:
        length += len(chunk[1])
        if chunk[0] == STDOUT:
            seen = seen[-len(inside.HELLO) :] + chunk[1]
            if inside.HELLO in seen:
                return seen.partition(inside.HELLO)[2]
    raise NoRelay("the sandbox has no python3 that could run the relay; install python3 in its image.")


def _printable(text: bytes) -> str:
    return "".join(one for one in text[:200].decode("utf-8", "replace") if one.isprintable())
