"""A provider of models on this machine: enough of the Messages API for Claude Code, with all that it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

ANSWER = "All is well."


@dataclass(frozen=True)
class Received:
    """One request as the provider got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def content(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


HEADERS = {"Set-Cookie": "a=b", "request-id": "req_1", "anthropic-organization-id": "o", "openai-project": "p"}


@dataclass
class FakeApi:
    """What it was asked, and how it answers. Each attribute may be changed while it runs."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    pieces: int = 3
    """Text deltas of a streamed answer."""
    pause: float = 0.0
    """Seconds before each of them."""
    cut_after: int | None = None
    """Deltas after which the connection is cut."""
    redirect: str | None = None
    denied: int | None = None
    """The status of all answers, which repeat the request's headers in body and head."""
    tool: str | None = None
    """A command that the first answer to a question asks to run, by the tool Bash."""
    held: dict[str, threading.Event] = field(default_factory=dict)
    """By the word that a body has to hold: the answer goes on after two deltas once this is set."""
    gone: int = 0
    """Answers that were cut by the client."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self) -> list[Received]:
        """The requests for an answer of a model."""
        return [one for one in self.received if one.method == "POST" and "/messages" in one.target]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        headers = [(key.decode(), value.decode()) for key, value in request.raw_headers]
        self.received.append(Received(request.method, request.raw_path, headers, body))
        if self.redirect is not None:
            return web.Response(status=307, headers={"Location": self.redirect})
        if self.denied is not None:
            repeated = {f"X-Repeated-{name}": text for name, text in headers}
            return web.json_response({"error": {"message": str(headers)}}, status=self.denied, headers=repeated)
        if request.method != "POST":
            return web.json_response({"data": [{"id": "claude-test", "type": "model"}], "has_more": False})
        if request.path.endswith("count_tokens"):
            return web.json_response({"input_tokens": 7})
        asked = json.loads(body)
        if not asked.get("stream"):
            return web.json_response(whole(asked), headers=HEADERS)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Set-Cookie": "a=b"})
        await response.prepare(request)
        try:
            for number, event in enumerate(self.events(asked)):
                kind = event["type"]
                if kind == "content_block_delta":
                    await asyncio.sleep(self.pause)
                    if self.cut_after is not None and number > self.cut_after + 1:
                        assert request.transport is not None
                        request.transport.abort()
                        return response
                for word, gate in self.held.items():
                    if number > 3 and word.encode() in body:
                        await asyncio.to_thread(gate.wait, 30)
                await response.write(f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode())
        except (ConnectionError, asyncio.CancelledError):
            self.gone += 1
            raise
        return response

    def events(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer."""
        start = whole(asked) | {"content": [], "stop_reason": None}
        yield {"type": "message_start", "message": start}
        if (
            self.tool is not None
            and "Bash" in json.dumps(asked.get("tools"))
            and "tool_result" not in json.dumps(asked)
        ):
            block = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}
            text = json.dumps({"command": self.tool, "description": "what was asked"})
            yield {"type": "content_block_start", "index": 0, "content_block": block}
            yield {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": text},
            }
            yield {"type": "content_block_stop", "index": 0}
            end = {"stop_reason": "tool_use", "stop_sequence": None}
            yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 5}}
            yield {"type": "message_stop"}
            return
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        for piece in range(self.pieces):
            text = ANSWER if piece == 0 else " "
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        yield {"type": "content_block_stop", "index": 0}
        yield {
            "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        }  # fmt: skip
        yield {"type": "message_stop"}


def whole(asked: dict[str, Any]) -> dict[str, Any]:
    """An answer in one piece."""
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": asked.get("model", "?"),
        "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 5},
    }  # fmt: skip


@contextmanager
def fake_api(
    host: str = "127.0.0.1", made: FakeApi | None = None, loop: asyncio.AbstractEventLoop | None = None
) -> Iterator[FakeApi]:
    """Serve in a thread of its own while the body runs."""
    api = made if made is not None else FakeApi()
    loop = loop or asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.ServerRunner(web.Server(api.answer, access_log=None, auto_decompress=False), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, host, 0)
        await site.start()
        api.port = runner.addresses[0][1]
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield api
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
