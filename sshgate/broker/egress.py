"""The HTTP proxy of a sandbox: connections to the names that its profile lists, and to nothing else.

``CONNECT name:port`` and ``http://`` addresses. The name is looked up here, once, and the address that was judged is
the one that is connected to. Through CONNECT passes only TLS that asks for the very name; plain HTTP is passed on one
request at a time. Nothing is decrypted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sshgate.broker.caller import Caller
from sshgate.broker.hello import LONGEST_HELLO, UNRECOGNIZED_NAME, Hello, NotTls, SecondHello, client_hello
from sshgate.broker.outside import Lookups, Resolve, Unreachable, connect
from sshgate.broker.proxy_head import LONGEST_HEAD, BadHead, Connect, Fetch, answer, parse
from sshgate.broker.sockets import SocketStream, answer_last
from sshgate.config.host_names import HTTP, HTTPS, Rules, canonical, wish
from sshgate.config.model import Egress
from sshgate.stream.interfaces import Stream
from sshgate.stream.splice import splice
from sshgate.stream.tasks import Event, cancel, first_of

HEAD_SECONDS = 20.0
HELLO_SECONDS = 30.0
# A tunnel of which one direction has ended, and that carries nothing, is closed after up to twice this.
HALF_CLOSED_SECONDS = 300.0
# Characters of a name that nobody lists, as reported.
LONGEST_REPORT = 253
# Stands for the name in a request that cannot be understood.
NO_HOST = "(none)"

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection that a sandbox asked for, as operators and its user learn of it."""

    host: str
    """As compared (``canonical``), or as sent if it is no name."""
    port: int
    refused: str | None
    """A few words; ``None``: it was allowed."""
    bytes_up: int = 0
    bytes_down: int = 0
    ended: bool = False
    """The second report of an allowed one, with its bytes."""
    tls_name: str | None = None
    """The name that TLS asked for instead of ``host``."""


Report = Callable[[Caller, Attempt], None]
"""Learns of every attempt: once when it is refused, or when it is allowed and again at its end. Must not block."""


class _Refused(Exception):
    """``status`` and ``reason``: of the answer. ``words``: of the report. The text is a sentence for the user."""

    def __init__(self, status: int, words: str, sentence: str, reason: str = "Forbidden") -> None:
        super().__init__(sentence)
        self.status = status
        self.words = words
        self.reason = reason


class EgressProxy:
    """Serves the proxy requests of all sandboxes.

    Args:
        policy: Returns the ``egress`` of a caller's profile; ``None``: it has none, and everything is refused.
        resolve: Looks names up.
        report: Learns of every attempt.
    """

    def __init__(self, policy: Callable[[Caller], Egress | None], resolve: Resolve, report: Report) -> None:
        self._policy = policy
        self._lookups = Lookups(resolve)
        self._report = report

    async def serve(self, stream: Stream, caller: Caller) -> None:
        """Serve one connection from a sandbox, to its end. Closes the stream. Never raises for what the peer sends.

        Cancelling cuts the connection.
        """
        try:
            await self._serve(stream, caller)
        finally:
            stream.close()

    async def _serve(self, stream: Stream, caller: Caller) -> None:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head, rest = await _read_head(stream)
            asked = parse(head)
        except TimeoutError:
            return
        except BadHead as error:
            self._report(caller, Attempt(NO_HOST, 0, "no request"))
            await answer_last(stream, answer(error.status, "Bad Request", f"{error}."))
            return
        host = canonical(asked.host)
        try:
            server = await self._connect(caller, host, asked)
        except _Refused as refused:
            self._report(caller, Attempt((host or asked.host)[:LONGEST_REPORT], asked.port, refused.words))
            await answer_last(stream, answer(refused.status, refused.reason, str(refused)))
            return
        except Unreachable as error:
            # The network's fault: the name is on the list, and the connection counts as allowed.
            self._report(caller, Attempt(str(host), asked.port, None))
            await answer_last(stream, answer(502, "Bad Gateway", f"{error}."))
            return
        name = str(host)
        try:
            await self._carry(stream, server, caller, name, asked, rest)
        finally:
            server.close()

    async def _connect(self, caller: Caller, host: str | None, asked: Connect | Fetch) -> SocketStream:
        """Judge a request and connect. Raises ``_Refused`` and ``Unreachable``."""
        egress = self._policy(caller)
        if host is None:
            raise _Refused(
                403, "no name", f"{asked.host[:LONGEST_REPORT]!r} is no name: addresses are not connected to."
            )
        if isinstance(asked, Fetch) and asked.port != HTTP:
            where = host if asked.port == HTTPS else f"{host}:{asked.port}"
            raise _Refused(403, "no TLS", f"at port {asked.port} only TLS is allowed: use https://{where}/.")
        line = f'profiles.{caller.profile}.egress.allow: ["{wish(host, asked.port)}"]'
        # Programs such as pip show the first line of the answer and nothing else.
        brief = f'sshgate: not in egress.allow: "{wish(host, asked.port)}"'
        if egress is None or not Rules.of(egress.allow).allow(host, asked.port):
            raise _Refused(
                403,
                "not listed",
                f"{host} at port {asked.port} is not on the list of this sandbox. Ask your operator for {line}.",
                brief,
            )
        if isinstance(asked, Connect) and asked.port == HTTP:
            raise _Refused(403, "no TLS", f"a tunnel has to be TLS: ask for http://{host}/ without CONNECT.")
        try:
            return await connect(host, asked.port, caller.user, self._lookups, egress.private)
        except Unreachable as error:
            if error.refused:
                raise _Refused(403, "private address", f"{error}; see egress.private.") from None
            raise

    async def _carry(
        self, stream: Stream, server: SocketStream, caller: Caller, name: str, asked: Connect | Fetch, rest: bytes
    ) -> None:
        allowed = False

        def judged(refused: str | None, tls_name: str | None = None) -> None:
            nonlocal allowed
            allowed |= refused is None
            self._report(caller, Attempt(name, asked.port, refused, tls_name=tls_name))

        if isinstance(asked, Fetch):
            judged(None)
            up, down = await _fetch(stream, server, asked, rest)
        else:
            await stream.write(_ESTABLISHED)
            up, down = await splice(_Checked(stream, rest, name, judged), server, half_closed=HALF_CLOSED_SECONDS)
        if allowed:
            self._report(caller, Attempt(name, asked.port, None, up, down, ended=True))


class _Checked:
    """A client whose first bytes are looked at before any of them go on; a ``Stream``.

    Args:
        first: What was already read.
        name: The name that TLS has to ask for.
        judged: Called with a few words if it is refused, and the name that was asked for instead. Called again where it
            asks for another name later.
    """

    def __init__(
        self, stream: Stream, first: bytes, name: str, judged: Callable[[str | None, str | None], None]
    ) -> None:
        self._stream = stream
        self._first = first
        self._name = name
        self._judged = judged
        self._second: SecondHello | None = None
        self._cut = Event()

    async def read(self) -> bytes | None:
        while not self._cut.is_set():
            try:
                passed, hello = await self._next()
            except NotTls:
                await self._refuse("no TLS")
                break
            if hello is not None and (refused := self._verdict(hello)) is not None:
                await self._refuse(refused, hello.server)
                break
            if hello is not None and passed is not None and self._second is None:
                self._judged(None, None)
                self._second = SecondHello(hello.early)
                # What came behind it is looked at as what comes later.
                passed, self._first = passed[: hello.size], passed[hello.size :]
            if passed is None or passed:
                return passed
        return None

    async def _next(self) -> tuple[bytes | None, Hello | None]:
        """Return the next bytes that may pass if the name in the hello is the right one. Raises ``NotTls``."""
        if self._second is None:
            return await self._look()
        data = self._first or await self._stream.read()
        self._first = b""
        return (data, None) if data is None or self._second.over else self._second.feed(data)

    async def _refuse(self, words: str, tls_name: str | None = None) -> None:
        self._judged(words, tls_name)
        if words != "no TLS":
            await self._stream.write(UNRECOGNIZED_NAME)
        self._cut.set()

    async def _look(self) -> tuple[bytes | None, Hello | None]:
        """Read until there is a whole ClientHello. Returns all bytes, and it."""
        data, self._first = self._first, b""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                while (hello := client_hello(data)) is None:
                    more = await self._stream.read() if len(data) <= 2 * LONGEST_HELLO else None
                    if more is None and not data:
                        # A client that leaves before it has sent anything has done nothing wrong.
                        self._judged(None, None)
                        return None, None
                    if more is None:
                        raise NotTls("an end within the ClientHello")
                    data += more
        except TimeoutError:
            raise NotTls("no ClientHello in time") from None
        return data, hello

    def _verdict(self, hello: Hello) -> str | None:
        if hello.server is None:
            return "no TLS name"
        return None if canonical(hello.server) == self._name else "other TLS name"

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def write_eof(self) -> None:
        await self._stream.write_eof()

    async def wait_closed(self) -> None:
        await first_of(self._stream.wait_closed(), self._cut.wait())

    def close(self) -> None:
        self._stream.close()


async def _read_head(stream: Stream) -> tuple[bytes, bytes]:
    """Read a request's head; returns it and what came after it. Raises ``BadHead``."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > LONGEST_HEAD:
            raise BadHead(431, "the head of the request is too long")
        more = await stream.read()
        if more is None:
            raise BadHead(400, "the request ends too early")
        data += more
    if end > LONGEST_HEAD:
        raise BadHead(431, "the head of the request is too long")
    return data[: end + 4], data[end + 4 :]


async def _fetch(stream: Stream, server: SocketStream, asked: Fetch, rest: bytes) -> tuple[int, int]:
    """Send one request with its body, and copy the response until the server ends it or the client leaves."""
    counted = Counter[str]()

    async def send() -> None:
        await server.write(asked.head)
        left, data = asked.body, rest
        while left:
            chunk = data[:left]
            await server.write(chunk)
            left -= len(chunk)
            counted["up"] += len(chunk)
            # What comes after the body never reaches the server. Its end is not passed on: servers take a half-closed
            # connection for a client that has gone.
            if left:
                more = await stream.read()
                if more is None:
                    return
                data = more

    async def receive() -> None:
        while (data := await server.read()) is not None:
            counted["down"] += len(data)
            await stream.write(data)
        await stream.write_eof()

    sending, receiving = asyncio.create_task(send()), asyncio.create_task(receive())
    gone = asyncio.create_task(stream.wait_closed())
    try:
        await asyncio.wait({receiving, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(sending, receiving, gone)
    return counted["up"], counted["down"]
