"""The broker: one connection from a sandbox after the other, each to what answers it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sshgate.broker.caller import NO_KEYS, Caller, EgressHandler, Meter, Refused
from sshgate.broker.git import PREFIX, GitProxy
from sshgate.broker.models import ModelProxy, Source, refusal
from sshgate.broker.protocols import bare
from sshgate.broker.sockets import answer_last, begin
from sshgate.broker.transport import StreamTransport
from sshgate.config.model import Config
from sshgate.sandbox.shares import Shares
from sshgate.stream.interfaces import PromptStream
from sshgate.stream.tasks import TaskSet, cancel, within
from sshgate.telemetry.events import Events

# Seconds for the first bytes of a connection, and between two requests on one.
FIRST_SECONDS = 60.0
KEEPALIVE_SECONDS = 300.0
# Seconds for which the rest of a refused request's body is read and dropped, so that the answer arrives.
LINGER_SECONDS = 5.0
# Bytes of a request's head: its first line, one header, and the number of headers.
LONGEST_LINE = 4096
LONGEST_HEADER = 8190
MOST_HEADERS = 100
# The shortest beginning by which the two kinds of connections are recognized: a method and a blank.
_EGRESS = re.compile(rb"CONNECT |[A-Z]{1,10} +[a-zA-Z][a-zA-Z0-9+.-]*:")
_SHORTEST = 16

log = structlog.get_logger("sshgate.broker")
_NO_LOG: Any = None  # aiohttp's own type does not allow it


class Broker:
    """Answers connections in this process; ``BrokerConnections``.

    Args:
        meter: counts what requests to models cost.
        egress: answers CONNECT and requests for whole URLs; ``None``: they are refused.
    """

    def __init__(self, config: Config, events: Events, meter: Meter, egress: EgressHandler | None = None) -> None:
        self._models = ModelProxy(config, events, meter)
        self._git = GitProxy(config, events)
        self._egress = egress
        self._places = Shares(config.broker.connections, config.broker.connections_per_sandbox)
        # One user may have many sandboxes: these together leave room for those of others.
        self._users = Shares(config.broker.connections, max(1, config.broker.connections // 2))
        self._server: web.Server | None = None
        self._tasks = TaskSet()

    async def open(self) -> None:
        await self._models.open()
        await self._git.open()
        # A request whose sandbox has gone is not paid for any longer.
        self._server = web.Server(self._answer, handler_cancellation=True)

    def reconfigure(self, config: Config) -> None:
        self._models.reconfigure(config)
        self._git.reconfigure(config)

    async def drain(self, seconds: float) -> None:
        """Close each connection once it has its answer, and wait until none is open, ``seconds`` at most."""
        self._models.closing = self._git.closing = True
        if self._server is not None:
            self._server.pre_shutdown()  # agents keep theirs for minutes
        await within(seconds, self._tasks.join())

    async def close(self) -> None:
        await self._tasks.cancel()
        if self._server is not None:
            await self._server.shutdown(0)
        await self._models.close()
        await self._git.close()

    async def serve(self, stream: PromptStream, caller: Caller, brought: Mapping[str, str] = NO_KEYS) -> None:
        task = self._tasks.start(self._serve(stream, Source(caller, brought)))
        try:
            await asyncio.wait({task})
        finally:
            await cancel(task)

    async def _serve(self, stream: PromptStream, source: Source) -> None:
        place = f"{source.caller.sandbox} {source.caller.uid}"
        try:
            whose = self._take(place, source.caller.user)
            if whose is not None:
                error = Refused(f"{whose} too many connections open; close some.", 529)
                self._models.refused(source, error.sentence, error.status)
                await answer_last(stream, bare(None, error))
                return
            try:
                async with asyncio.timeout(FIRST_SECONDS):
                    first, begun = await begin(stream, _SHORTEST)
                outside, empty = self._egress is not None and _EGRESS.match(first) is not None, not first
                del first  # the beginning of a prompt, which is not kept while the answer comes
                if outside and self._egress is not None:
                    await self._egress(begun, source.caller)
                elif not empty:
                    await self._http(begun, source)
            finally:
                self._places.release(place)
                self._users.release(source.caller.user)
        except TimeoutError:
            pass
        finally:
            stream.close()

    def _take(self, place: str, user: str) -> str | None:
        """Take a place for a connection; else return who has too many."""
        if not self._places.take(place):
            return "this sandbox has"
        if not self._users.take(user):
            self._places.release(place)
            return "your sandboxes together have"
        return None

    async def _http(self, stream: PromptStream, source: Source) -> None:
        assert self._server is not None
        await StreamTransport(stream, _Connection(self._server, self._models, source)).run()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(_Connection, request.protocol)
        connection.began()
        if request.raw_path.startswith(PREFIX):
            return await self._git.answer(request, connection.source.caller)
        return await self._models.answer(request, connection.source)


class _Connection(web.RequestHandler):
    """aiohttp's protocol object of one connection, which knows whose it is."""

    def __init__(self, server: web.Server, models: ModelProxy, source: Source) -> None:
        super().__init__(
            server, loop=asyncio.get_running_loop(), keepalive_timeout=KEEPALIVE_SECONDS, tcp_keepalive=False,
            access_log=_NO_LOG, max_line_size=LONGEST_LINE, max_field_size=LONGEST_HEADER, max_headers=MOST_HEADERS,
            lingering_time=LINGER_SECONDS, auto_decompress=False,
        )  # fmt: skip
        self.source = source
        self._models = models
        self._first: asyncio.TimerHandle | None = None
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # aiohttp has a limit between two requests, and none for the head of the first.
        self._first = asyncio.get_running_loop().call_later(FIRST_SECONDS, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._has_begun()
        super().connection_lost(exc)

    def began(self) -> None:
        """The head of a request has come."""
        self._has_begun()
        self._answering = True

    async def finish_response(self, *args: Any, **kw: Any) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(*args, **kw)
        self._answering = False
        return finished

    def close(self) -> None:
        """End after the answer that is under way; at once if there is none."""
        super().close()
        if not self._answering:
            self.force_close()  # aiohttp would only stop to read

    def _has_begun(self) -> None:
        if self._first is not None:
            self._first.cancel()
            self._first = None

    def log_exception(self, *args: Any, **kw: Any) -> None:
        # A malformed request is the sandbox's fault: aiohttp would log a traceback with its bytes for each.
        if not isinstance(kw.get("exc_info"), (HttpProcessingError, web.RequestPayloadError, ConnectionError)):
            log.error("broker.broken", exc_info=kw.get("exc_info"))

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        self.log_exception(exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        ours = isinstance(exc, (HttpProcessingError, web.RequestPayloadError))
        error = (
            Refused("this request cannot be understood; nothing was sent.", 400)
            if ours
            else Refused("an error inside the broker; try again.", 500)
        )
        self._models.refused(self.source, error.sentence, error.status)
        return refusal(None, error)
