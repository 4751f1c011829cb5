"""Requests to models: what comes from a sandbox is looked at, loses its credentials and goes on with the key added.

Body and unknown headers pass as they are, and so does the answer, each piece as it comes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from sshgate.broker import protocols
from sshgate.broker.caller import Caller, Meter, ModelRequest, Refused
from sshgate.broker.protocols import LONGEST_BODY, LONGEST_MODEL, PROTOCOLS, Asked, Protocol
from sshgate.broker.sockets import UNSENT, Proxy, carry, error_of, expect_body
from sshgate.config.model import Config, Model
from sshgate.config.values import matches
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EventContext, Events, Stranger, Value
from sshgate.telemetry.timings import since

# Seconds for a sandbox to send a request's body.
BODY_SECONDS = 60.0
# Bytes of bodies that are held at a time, of one sandbox and of all.
BODIES_OF_ONE = 64 << 20
BODIES = 256 << 20
# Larger bodies are parsed in one of few threads. The largest of these takes 10 ms, whatever is in it.
PARSED_AT_ONCE = 64 * 1024
PARSERS = 2
# Seconds. Providers send pings in a stream; an answer in one piece may take ten minutes.
TIMES = aiohttp.ClientTimeout(total=3600, sock_connect=20, sock_read=660)
# Refusals of one sandbox that are reported within a minute: an agent may repeat them endlessly.
REFUSALS_A_MINUTE = 60
# The same for lists of models and counts of tokens.
FREE_A_MINUTE = 60
# Bytes of a provider's answer that wait for a sandbox that does not read.
ANSWER_BUFFER = 32 * 1024

_NOT_RETURNED = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "anthropic-organization-id", "openai-organization", "openai-project",  # of the key's owner
        "set-cookie", "set-cookie2", "alt-svc", "strict-transport-security", "www-authenticate", "proxy-authenticate",
    }
)  # fmt: skip
_OF_BODY = frozenset({"content-length", "content-encoding"})
_VALUE = re.compile(r"[\w.,:@%+~-]*\Z", re.ASCII)
# aiohttp would add these to a request without them.
_UNASKED = ("Content-Type", "User-Agent", "Accept")


Held = Counter[tuple[str, ...]]
"""The bytes of bodies that are held: of a user and a sandbox, of a user, and (the empty tuple) of all."""


class Body:
    """The body of one request. Its bytes count among those that are held until ``release``."""

    def __init__(self, held: Held, caller: Caller) -> None:
        self.data = b""
        self._held = held
        self._key = caller.user, f"{caller.sandbox} {caller.uid}"
        self._size = 0

    def grow(self, size: int) -> None:
        """Count more bytes. Raises ``Refused`` where they are too many."""
        self._count(size)
        if self._size > LONGEST_BODY:
            raise _too_large()
        # One user may have many sandboxes: together they hold as much as they leave to others at most.
        if self._held[self._key] > BODIES_OF_ONE or self._held[()] + self._held[self._key[:1]] > BODIES:
            raise Refused("too many large requests at a time; try again in a moment.", 529)

    def release(self) -> None:
        """Drop the bytes. Idempotent."""
        self.data = b""
        self._count(-self._size)

    def _count(self, size: int) -> None:
        self._size += size
        for key in (self._key, self._key[:1], ()):
            self._held[key] += size
            if not self._held[key]:
                del self._held[key]


@dataclass(frozen=True, slots=True)
class Source:
    """Whose connection it is, and the keys that the user has brought for this sandbox."""

    caller: Caller
    brought: Mapping[str, str]


class ModelProxy(Proxy):
    """Answers the requests to models of all sandboxes."""

    def __init__(self, config: Config, events: Events, meter: Meter) -> None:
        super().__init__(
            config, events, 30, timeout=TIMES, read_bufsize=ANSWER_BUFFER, skip_auto_headers=_UNASKED
        )  # fmt: skip
        self._meter = meter
        self._held: Held = Counter()
        # Not those of the loop: names are looked up in these.
        self._parsers = ThreadPoolExecutor(PARSERS, "body")

    def __repr__(self) -> str:
        return f"<ModelProxy {self._held[()]} bytes of bodies>"

    async def close(self) -> None:
        self._parsers.shutdown(wait=False, cancel_futures=True)
        await super().close()

    def refused(self, source: Source, reason: str, status: int, provider: str = "", path: str = "") -> None:
        """Report a request that was answered here."""
        self._context(source.caller).emit(
            Code.MODEL_REFUSED, provider=provider or None, path=path[:LONGEST_MODEL] or None, status=status,
            reason=reason, stranger=Stranger(f"{source.caller.sandbox} {source.caller.uid}", REFUSALS_A_MINUTE),
        )  # fmt: skip

    async def answer(self, request: web.BaseRequest, source: Source) -> web.StreamResponse:
        """Answer one request. Cancelling it ends the provider's answer as well."""
        raw = request.raw_path
        _, _, rest = raw.partition("/")
        name, _, tail = rest.partition("?")[0].partition("/")
        protocol = PROTOCOLS.get(name) if raw.startswith("/") else None
        try:
            return await self._answer(request, source, protocol, f"/{tail}")
        except Refused as error:
            self.refused(source, error.sentence, error.status, name if protocol else "", raw.partition("?")[0])
            return refusal(protocol, error)

    async def _answer(
        self, request: web.BaseRequest, source: Source, protocol: Protocol | None, path: str
    ) -> web.StreamResponse:
        if protocol is None:
            raise Refused("nothing is offered under this path; see the variable ANTHROPIC_BASE_URL and its like.", 404)
        model = self._model(protocol, source.caller)
        if request.method == "HEAD" and path == "/":
            return web.Response()  # Claude Code's question whether anybody is there
        query = _query(request.raw_path.partition("?")[2])
        if request.method in ("GET", "HEAD") and protocol.gets.fullmatch(path):
            if request.can_read_body:
                raise Refused("a request for a list of models has no body; nothing was sent.", 400)
            nothing = Body(self._held, source.caller)
            asked = Asked("", False, frozenset())
            return await self._forward(request, source, protocol, model, path, query, asked, nothing)
        if request.method != "POST" or not protocol.posts.fullmatch(path):
            raise Refused(f"{request.method} {path[:80]} is not passed on; only requests to models are.", 404)
        if any(text.lower() != "identity" for text in request.headers.getall("Content-Encoding", [])):
            raise Refused("a compressed body cannot be looked at; send it as it is.", 415)
        body = Body(self._held, source.caller)
        try:
            await self._read(request, body)
            if len(body.data) > PARSED_AT_ONCE:
                loop = asyncio.get_running_loop()
                asked = await loop.run_in_executor(self._parsers, protocols.asked, protocol, path, body.data)
            else:
                asked = protocols.asked(protocol, path, body.data)
            self._check(protocol, model, asked)
            return await self._forward(request, source, protocol, model, path, query, asked, body)
        finally:
            body.release()

    def _model(self, protocol: Protocol, caller: Caller) -> Model:
        profile = self._config.profiles.get(caller.profile)
        model: Model | None = getattr(self._config.models, protocol.name)
        if profile is None or model is None or protocol.name not in profile.models:
            raise Refused(
                f"the profile {caller.profile!r} has no {protocol.name}; ask your operator to list it in its models."
            )
        return model

    def _check(self, protocol: Protocol, model: Model, asked: Asked) -> None:
        if not matches(asked.model, model.allow):
            raise Refused(f"the model {asked.model!r} is not allowed here; allowed are: {', '.join(model.allow)}.")
        if forbidden := sorted(asked.tools - set(model.server_tools)):
            raise Refused(
                f"{', '.join(forbidden)[:LONGEST_MODEL]} would run outside the sandbox, at the provider, or cost "
                f"extra, and is not allowed here (models.{protocol.name}.server_tools)."
            )

    async def _read(self, request: web.BaseRequest, body: Body) -> None:
        """Read the body of a request into ``body``. Raises ``Refused`` where it is too large or too slow."""
        if (request.content_length or 0) > LONGEST_BODY:
            raise _too_large()
        await expect_body(request)
        pieces = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while piece := await request.content.readany():
                    body.grow(len(piece))
                    pieces.append(piece)
        except TimeoutError:
            raise Refused(f"the request did not arrive within {BODY_SECONDS:g} s.", 408) from None
        body.data = b"".join(pieces)

    async def _forward(
        self,
        request: web.BaseRequest,
        source: Source,
        protocol: Protocol,
        model: Model,
        path: str,
        query: str,
        asked: Asked,
        body: Body,
    ) -> web.StreamResponse:
        caller = source.caller
        key = self._keys.of(protocol.name, model, caller.user, source.brought)
        wanted = ModelRequest(caller, protocol.name, path, asked.model, asked.stream, len(body.data))
        if asked.model:
            await self._meter.admit(wanted)
        headers = CIMultiDict(protocols.passed(request.headers, model.upstream is not None))
        try:
            "".join(headers.values()).encode()  # aiohttp would leave out what is not
        except UnicodeError:
            raise Refused("a header of the request is not UTF-8; nothing was sent.", 400) from None
        headers[protocol.key_header] = protocol.key_prefix + key
        headers["Accept-Encoding"] = "identity"  # a meter has to read it
        url = URL(f"{(model.upstream or protocol.upstream).rstrip('/')}{path}{query}", encoded=True)
        events = self._context(caller).with_fields(
            provider=protocol.name, model=asked.model or None, bytes_in=wanted.size
        )
        assert self._session is not None
        began = time.monotonic()
        try:
            response = await self._session.request(
                request.method, url, headers=headers, data=body.data or None, allow_redirects=False
            )
        except BaseException as error:
            if not isinstance(error, UNSENT):
                # The prompt may have been read, and is billed then: the end of an answer that has not begun.
                self._report(events, wanted, began, status=0, bytes_out=0, whole=False,
                             **self._meter.observe(wanted, 200, {}).finish())  # fmt: skip
            if isinstance(error, TimeoutError):
                raise Refused(
                    f"{protocol.name} did not answer in time; try again.", 504, {"x-should-retry": "true"}
                ) from None
            if isinstance(error, aiohttp.ClientError | OSError | ValueError):
                # The text of these errors may hold the address, with the query.
                raise Refused(
                    f"{protocol.name} cannot be reached; try again.", 502, {"x-should-retry": "true"}
                ) from None
            raise
        try:
            if 300 <= response.status < 400:
                raise Refused(f"{protocol.name} answered with a redirect, which is not followed.", 502)
            if response.status in (401, 403):
                # Its own words may hold the key, or say whose it is.
                whose = "that you brought" if protocol.name in source.brought else "of your operator; ask them"
                raise Refused(f"{protocol.name} does not accept the key {whose} ({response.status}).", response.status)
            body.release()  # it has been sent
            return await self._carry(request, response, wanted, events, began, key)
        finally:
            response.close()

    async def _carry(
        self,
        request: web.BaseRequest,
        response: aiohttp.ClientResponse,
        wanted: ModelRequest,
        events: EventContext,
        began: float,
        key: str,
    ) -> web.StreamResponse:
        """Pass the provider's answer on, each piece as it comes; an error whole, without the key."""
        headers = CIMultiDict(
            (name, text)
            for name, text in response.headers.items()
            if name.lower() not in _NOT_RETURNED and key not in text
        )
        reason = response.reason if key not in (response.reason or "") else None
        if response.status >= 400:
            failed, whole = b"", False
            try:
                failed, whole = await error_of(response, (key,))
            finally:
                self._report(events, wanted, began, status=response.status, bytes_out=len(failed), whole=whole)
            kept = CIMultiDict((name, text) for name, text in headers.items() if name.lower() not in _OF_BODY)
            error = web.Response(status=response.status, reason=reason, headers=kept, body=failed)
            if self.closing:
                error.force_close()
            return error
        answer = web.StreamResponse(status=response.status, reason=reason, headers=headers)
        if self.closing:
            answer.force_close()
        observer = self._meter.observe(wanted, response.status, response.headers)
        carried, whole = 0, False

        def feed(piece: bytes) -> None:
            nonlocal carried
            carried += len(piece)
            observer.feed(piece)

        try:
            whole = await carry(request, response, answer, feed)
        finally:
            self._report(
                events, wanted, began, status=response.status, bytes_out=carried, whole=whole, **observer.finish()
            )
        return answer

    def _report(self, events: EventContext, wanted: ModelRequest, began: float, **fields: Value) -> None:
        caller = wanted.caller
        # What is paid for has an end. What is free an agent may repeat endlessly.
        free = None if wanted.paid else Stranger(f"{caller.sandbox} {caller.uid}", FREE_A_MINUTE)
        events.with_fields(**fields).emit(Code.MODEL_REQUEST, seconds=since(began), stranger=free)


def refusal(protocol: Protocol | None, error: Refused) -> web.Response:
    """The answer to a request that is not passed on, in the form of the provider's own errors."""
    headers = {"x-should-retry": "false"} | error.headers
    body: Any = protocols.failure(protocol, error.status, error.sentence)
    response = web.json_response(body, status=error.status, headers=headers)
    response.force_close()  # its body may not have been read
    return response


def _query(text: str) -> str:
    """Return what of a query goes on, with its question mark; the key of Gemini's clients is dropped."""
    kept = []
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        if name == protocols.QUERY_KEY:
            continue
        # A third form of Gemini's answers is binary, and no meter reads it.
        if name not in protocols.QUERY or not _VALUE.match(value) or (name == "alt" and value not in ("sse", "json")):
            raise Refused("this query is not passed on.", 400)
        kept.append(part)
    return f"?{'&'.join(kept)}" if kept else ""


def _too_large() -> Refused:
    return Refused(f"the request has more than {LONGEST_BODY >> 20} MiB; nothing was sent.", 413)
