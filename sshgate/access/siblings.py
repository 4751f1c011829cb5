"""Messages between the workers of one gateway (``serve --workers``): what all must know, questions, and connections.

Each worker has an inbox, one end of a pair of Unix sockets. All workers can write to the other end; the parent holds
both for as long as it lives. Messages keep their boundaries, and those of one sender their order. Nothing waits for a
worker that is slow: what it must know is kept here by key, the last value only, until it can take it.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import hashlib
import itertools
import mmap
import os
import secrets
import socket
import struct
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

import msgspec
import structlog

from sshgate.stream.tasks import TaskSet

# The parent's number as a sender, and the boxes' places: workers are 0, 1, ...
PARENT = -1
# Bytes of one message: more than a socket's buffer takes. The largest are 180 KB, by ``broker.egress_counts``.
LARGEST = 256 * 1024
# Values in one message, and messages read in one turn of the event loop.
BATCH = 300
MESSAGES = 64
# Reports of one topic for one worker that are kept while it does not read. Beyond it the oldest are dropped.
REPORTS = 1000
RETRY_SECONDS = 0.02
ANSWER_SECONDS = 2.0
BEAT_SECONDS = 1.0
# Passwords that are checked at a time, over all workers: each takes 64 MiB of memory for some tens of milliseconds.
PASSWORDS_AT_A_TIME = 2
# The largest report of a worker's metrics: some thousand series.
PAGE_BYTES = 1 << 20

log = structlog.get_logger("sshgate.workers")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_TAKES = "takes connections"
_HEAD = struct.Struct("<II")


class SharedPage:
    """Memory that a worker leaves to the others and to its successor: one text, replaced as a whole.

    Made by the parent before it forks. A reader never gets half of a text.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PAGE_BYTES)

    def write(self, text: bytes) -> None:
        """Replace the text. One that is too long is dropped, and an empty one kept instead."""
        text = text if len(text) <= PAGE_BYTES - _HEAD.size else b""
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        self._memory[: _HEAD.size] = _HEAD.pack(len(text), zlib.crc32(text))

    def read(self) -> bytes | None:
        """Return the text; ``None`` while it is being written, or if its writer died over it."""
        length, checksum = _HEAD.unpack(self._memory[: _HEAD.size])
        text = self._memory[_HEAD.size : _HEAD.size + length]
        return text if zlib.crc32(text) == checksum else None


class SharedPlaces:
    """Few places for all workers together: ``async with`` waits for one. Those of a dead worker are free.

    Waiting costs a look every ``RETRY_SECONDS``, so let only few wait at each worker. ``files``: one for each place.
    """

    def __init__(self, files: Sequence[int]) -> None:
        # A lock belongs to an open file, and the parent's are open in all workers: so each opens them anew.
        self._free = [os.open(f"/proc/self/fd/{one}", os.O_RDWR) for one in files]
        self._taken: list[int] = []
        self._again = 0.0

    def __repr__(self) -> str:
        return f"<SharedPlaces, {len(self._taken)} taken here>"

    async def __aenter__(self) -> None:
        # A worker that has just given one back lets the others look first, or its queue would keep them out.
        if (left := self._again - time.monotonic()) > 0:
            await asyncio.sleep(left)
        while (place := next(filter(_locked, self._free), None)) is None:  # noqa: ASYNC110
            await asyncio.sleep(RETRY_SECONDS)
        self._free.remove(place)
        self._taken.append(place)

    async def __aexit__(self, *_: object) -> None:
        place = self._taken.pop()
        fcntl.flock(place, fcntl.LOCK_UN)
        self._free.append(place)
        self._again = time.monotonic() + 1.5 * RETRY_SECONDS


class Inboxes:
    """The sockets and pages of all workers, and the parent's inbox. Made by the parent before it forks."""

    def __init__(self, workers: int) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers + 1)]
        for one in itertools.chain.from_iterable(pairs):
            one.setblocking(False)
        self.parent, self.to_parent = pairs.pop()
        self.inboxes = [inbox for inbox, _ in pairs]
        self.to_workers = [outbox for _, outbox in pairs]
        self.pages = [SharedPage() for _ in range(workers)]
        self.passwords = [os.memfd_create("sshgate passwords") for _ in range(PASSWORDS_AT_A_TIME)]

    def close(self) -> None:
        """Close all ends. What was sent and not read is lost."""
        for one in (self.parent, self.to_parent, *self.inboxes, *self.to_workers):
            one.close()
        for file in self.passwords:
            os.close(file)

    def clear(self, worker: int) -> None:
        """Drop what a worker that has died has not read, and close the connections in it."""
        while (found := receive(self.inboxes[worker])) is not None:
            if found[2] is not None:
                found[2].close()

    def worker_gone(self, gone: int) -> None:
        """Report to all others that a worker has died. For the parent."""
        for worker, outbox in enumerate(self.to_workers):
            if worker != gone:
                send(outbox, PARENT, "gone", gone)


class Siblings:
    """The other workers, as one of them sees them. ``index`` is its own number, ``count`` that of all.

    ``open`` and ``close`` it on the event loop. Handlers are called on the loop and must not block.
    """

    def __init__(self, boxes: Inboxes, index: int) -> None:
        self.index = index
        self.count = len(boxes.inboxes)
        self.alive: set[int] = set()
        """The others that run, as far as this worker knows."""
        self.pages = boxes.pages
        """The workers' pages. Only its own worker writes to one."""
        self._boxes = boxes
        self._inbox = boxes.inboxes[index]
        self._published: dict[tuple[str, Hashable], Any] = {}
        self._pending: dict[int, dict[tuple[str, Hashable], Any]] = {}
        self._reports: dict[int, dict[str, deque[Any]]] = {}
        self._handlers: dict[str, Callable[[int, Any], object]] = {}
        self._answers: dict[str, Callable[[Any], Awaitable[Any]]] = {}
        self._takers: set[int] = set()
        self.handle(_TAKES, self._observe_taker)
        self._gone: list[Callable[[int], None]] = []
        self._take: Callable[[Any, socket.socket], None] | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        # At random, so that an answer to this worker's predecessor is not taken for one to this.
        self._numbers = itertools.count(secrets.randbits(48))
        self._tasks = TaskSet()
        self._flushing: asyncio.Handle | None = None
        self._beating: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Siblings of worker {self.index + 1}: {len(self.alive)} of {self.count - 1} run>"

    def open(self) -> None:
        """Start to read, and ask the others for what they have published."""
        asyncio.get_running_loop().add_reader(self._inbox.fileno(), self._readable)
        self._beat()

    def close(self) -> None:
        """Stop reading. What is sent later is dropped."""
        asyncio.get_running_loop().remove_reader(self._inbox.fileno())
        for handle in (self._beating, self._flushing):
            if handle is not None:
                handle.cancel()

    def serving(self) -> None:
        """Report to the parent that this worker accepts logins."""
        send(self._boxes.to_parent, self.index, "serving", None)

    def owner(self, key: str) -> int:
        """Return the worker that keeps what belongs to ``key``, the same for all workers, whether or not it runs."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count

    # --- what all must know ---

    def handle(self, topic: str, handler: Callable[[int, Any], object]) -> None:
        """Call ``handler(sender, value)`` for what others publish or report under ``topic``."""
        self._handlers[topic] = handler

    def when_gone(self, handler: Callable[[int], None]) -> None:
        """Call ``handler(worker)`` when another worker has died or began anew: what it had published is void."""
        self._gone.append(handler)

    def publish(self, topic: str, key: Hashable, value: Any) -> None:
        """Let all others know the value of a key, also those that start later. They get ``[key, value]``.

        A value that is false is forgotten here once it was sent.
        """
        if value:
            self._published[topic, key] = value
        else:
            self._published.pop((topic, key), None)
        for worker in self.alive:
            self._pending.setdefault(worker, {})[topic, key] = value
        self._schedule()

    def report(self, topic: str, value: Any) -> None:
        """Let those that run now know of something that has happened. Each gets it once, or not at all."""
        for worker in self.alive:
            self._reports.setdefault(worker, {}).setdefault(topic, deque(maxlen=REPORTS)).append(value)
        self._schedule()

    # --- questions ---

    def answers(self, topic: str, handler: Callable[[Any], Awaitable[Any]]) -> None:
        """Answer the others' questions under ``topic`` by what ``handler(value)`` returns."""
        self._answers[topic] = handler

    async def ask(
        self, topic: str, value: Any = None, seconds: float = ANSWER_SECONDS, only: int | None = None
    ) -> dict[int, Any]:
        """Ask all others that run, or one of them; return the answers that came within ``seconds``, by worker."""
        asked: dict[int, asyncio.Future[Any]] = {}
        if self._flushing is not None:
            await asyncio.sleep(0)  # reports and values of before go ahead of the question
        for worker in sorted(self.alive if only is None else self.alive & {only}):
            number = next(self._numbers)
            if send(self._boxes.to_workers[worker], self.index, "ask", [number, topic, value]):
                asked[worker] = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            if asked:
                await asyncio.wait(asked.values(), timeout=seconds)
            return {worker: answer.result() for worker, answer in asked.items() if answer.done()}
        finally:
            for number in [number for number, answer in self._asked.items() if answer in asked.values()]:
                del self._asked[number]

    async def _answer(self, sender: int, number: int, topic: str, value: Any) -> None:
        handler = self._answers.get(topic)
        answer = await handler(value) if handler is not None else None
        send(self._boxes.to_workers[sender], self.index, "answer", [number, answer])

    # --- connections ---

    def take_connections(self, take: Callable[[Any, socket.socket], None] | None) -> None:
        """Call ``take(value, socket)`` for connections that others hand over; ``None``: they are not to."""
        self._take = take
        self.publish(_TAKES, "", take is not None)

    def hand_over(self, worker: int, value: Any, connection: int) -> bool:
        """Give another worker a duplicate of the descriptor of an open connection.

        Returns:
            False if that worker does not take connections, or not now. Nothing was given then.
        """
        return worker in self._takers and send(
            self._boxes.to_workers[worker], self.index, "connection", value, connection
        )

    def _observe_taker(self, worker: int, value: Any) -> None:
        (self._takers.add if value[1] else self._takers.discard)(worker)

    def password_places(self) -> SharedPlaces:
        """Return the places of all workers for checks of passwords."""
        return SharedPlaces(self._boxes.passwords)

    # --- internals ---

    def _beat(self) -> None:
        """Show the parent that the event loop turns, and greet those that have not answered yet."""
        send(self._boxes.to_parent, self.index, "beat", None)
        for worker in range(self.count):
            if worker != self.index and worker not in self.alive:
                send(self._boxes.to_workers[worker], self.index, "hello", None)
        self._beating = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _readable(self) -> None:
        for _ in range(MESSAGES):
            found = receive(self._inbox)
            if found is None:
                return
            sender, kind, (value, connection) = found[0], found[1], (found[3], found[2])
            try:
                self._received(sender, kind, value, connection)
            except Exception:
                log.exception("message.broken", kind=kind)
                if connection is not None:
                    connection.close()

    def _received(self, sender: int, kind: str, value: Any, connection: socket.socket | None) -> None:
        match kind:
            case "hello" | "here":
                self._forget(sender)
                self.alive.add(sender)
                self._pending[sender] = dict(self._published)
                if kind == "hello":
                    send(self._boxes.to_workers[sender], self.index, "here", None)
                self._schedule()
            case "gone":
                self._forget(value)
            case "batch":
                for topic, one in value:
                    if (handler := self._handlers.get(topic)) is not None:
                        handler(sender, one)
            case "ask":
                self._tasks.start(self._answer(sender, *value))
            case "answer":
                if (asked := self._asked.get(value[0])) is not None and not asked.done():
                    asked.set_result(value[1])
            case "connection":
                if connection is not None and self._take is not None:
                    self._take(value, connection)
                elif connection is not None:
                    connection.close()

    def _forget(self, worker: int) -> None:
        self.alive.discard(worker)
        self._takers.discard(worker)
        self._pending.pop(worker, None)
        self._reports.pop(worker, None)
        for handler in self._gone:
            handler(worker)

    def _schedule(self) -> None:
        if self._flushing is None and self.alive:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send what is pending, as much as each worker takes now; the rest a moment later."""
        self._flushing = None
        rest = False
        for worker in self.alive:
            pending, topics = self._pending.get(worker, {}), self._reports.get(worker, {})
            while pending or topics:
                keys = list(itertools.islice(pending, BATCH))
                topic, reports = next(iter(topics.items()), ("", deque()))
                events = [(topic, value) for value in itertools.islice(reports, BATCH)]
                batch = [*((of, (key, pending[of, key])) for of, key in keys), *events]
                if not send(self._boxes.to_workers[worker], self.index, "batch", batch):
                    rest = True
                    break
                for one in keys:
                    del pending[one]
                for _ in events:
                    reports.popleft()
                if not reports:
                    topics.pop(topic, None)
        if rest:
            self._flushing = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._flush)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def send(outbox: socket.socket, sender: int, kind: str, value: Any, connection: int | None = None) -> bool:
    """Send one message, with a descriptor if there is one. Returns false if it cannot be sent now. Never blocks."""
    rights = [] if connection is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection]))]
    try:
        outbox.sendmsg([_encode((sender, kind, value))], rights)
    except OSError:
        return False
    return True


def receive(inbox: socket.socket) -> tuple[int, str, socket.socket | None, Any] | None:
    """Return the next message as (sender, kind, connection, value); ``None`` if there is none now."""
    while True:
        try:
            content, rights, _, _ = inbox.recvmsg(
                LARGEST, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return None
        if not content:
            return None
        numbers = array.array("i")
        for level, kind, data in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
        connection = socket.socket(fileno=numbers[0]) if numbers else None
        try:
            sender, name, value = _decode(content)
        except (ValueError, TypeError) as error:  # one that is longer than LARGEST has no end
            log.error("message.unreadable", error=str(error))
            if connection is not None:
                connection.close()
            continue
        return sender, name, connection, value
