"""What the provider gets of a request, what the sandbox gets of an answer, and what gets nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import aiohttp
import pytest

from sshgate.broker import models
from sshgate.broker.caller import Caller, ModelRequest, Observer, Refused
from sshgate.broker.protocols import LONGEST_BODY
from sshgate.broker.server import Broker
from sshgate.broker.sockets import LIMIT, SocketStream
from sshgate.config import model as settings
from sshgate.config.model import Config
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events
from tests.rig.broker import HI, KEY, Unmetered, sandbox
from tests.rig.messages import ANSWER, FakeApi, fake_api


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


async def test_the_provider_gets_our_key_alone_and_the_same_body(api: FakeApi, tmp_path: Path) -> None:
    body = json.dumps(HI | {"unknown": [1, 2, {"a": "ü"}]}, indent=3).encode()
    headers = {
        "x-api-key": "theirs", "Authorization": "Bearer theirs", "Cookie": "a=theirs", "Proxy-Authorization": "theirs",
        "x-goog-api-key": "theirs", "api-key": "theirs", "X-Auth-Token": "theirs", "X-HTTP-Method-Override": "DELETE",
        "X-Forwarded-For": "1.2.3.4", "Accept-Encoding": "gzip, br", "anthropic-beta": "one,two",
        "anthropic-version": "2023-06-01", "x-claude-code-session-id": "s", "X-Made-Up": "kept",
        "Content-Type": "application/json",
    }  # fmt: skip
    async with sandbox(api, tmp_path) as one:
        status, answer, _ = await one.post("/anthropic/v1/messages?beta=true", body, headers)
    assert (status, json.loads(answer)["content"][0]["text"]) == (200, ANSWER)
    (received,) = api.received
    assert received.target == "/v1/messages?beta=true"
    assert hashlib.sha256(received.body).digest() == hashlib.sha256(body).digest()
    assert received.header("x-api-key") == [KEY]
    assert not any("theirs" in value for _, value in received.headers)
    assert received.header("host") == [f"127.0.0.1:{api.port}"]
    assert received.header("accept-encoding") == ["identity"]
    for name in ("anthropic-beta", "anthropic-version", "x-claude-code-session-id", "X-Made-Up"):
        assert received.header(name) == [headers[name]]
    for name in ("X-HTTP-Method-Override", "X-Forwarded-For", "Cookie", "Authorization"):
        assert received.header(name) == []
    (event,) = [record for record in one.records if record.code is Code.MODEL_REQUEST]
    assert event.fields["model"] == "claude-test"
    assert event.fields["bytes_in"] == len(body)
    assert event.fields["whole"] is True
    assert KEY not in str(one.records)


@pytest.mark.parametrize(
    ("path", "header", "value"),
    [
        ("/openai/v1/chat/completions", "authorization", f"Bearer {KEY}"),
        ("/openai/v1/responses", "authorization", f"Bearer {KEY}"),
        ("/gemini/v1beta/models/gemini-x:streamGenerateContent?alt=sse&key=theirs", "x-goog-api-key", KEY),
    ],
)
async def test_each_provider_gets_the_key_its_own_way(
    api: FakeApi, tmp_path: Path, path: str, header: str, value: str
) -> None:
    async with sandbox(api, tmp_path) as one:
        status, _, _ = await one.post(path, {"model": "m", "contents": []}, {"authorization": "Bearer theirs"})
    assert status == 200
    assert api.received[0].header(header) == [value]
    assert "theirs" not in str(api.received)


async def test_an_answer_passes_without_its_cookies(api: FakeApi, tmp_path: Path) -> None:
    async with sandbox(api, tmp_path) as one:
        _, _, headers = await one.post("/anthropic/v1/messages")
    assert headers["request-id"] == "req_1"
    assert not {"Set-Cookie", "anthropic-organization-id", "openai-project"} & set(headers)


async def test_a_head_that_never_ends_does_not_hold_its_place(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sshgate.broker.server.FIRST_SECONDS", 0.2)
    async with sandbox(api, tmp_path) as one:
        reader, writer = await one.connect()
        writer.write(b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: ")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
            await asyncio.wait(one.tasks)  # though the sandbox keeps its end open
        writer.close()
        # It is for the head alone: an answer may take longer.
        api.pieces, api.pause = 3, 0.2
        assert b"message_stop" in (await one.post("/anthropic/v1/messages", HI | {"stream": True}))[1]


async def test_a_drain_ends_with_the_answers_that_are_under_way(api: FakeApi, tmp_path: Path) -> None:
    api.pieces, api.pause = 5, 0.1
    async with sandbox(api, tmp_path) as one:
        idle, kept = await one.connect()
        kept.write(b"GET /anthropic/v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        await idle.readuntil(b"claude-test")
        busy = asyncio.create_task(one.post("/anthropic/v1/messages", HI | {"stream": True}))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(10):
            await one.drain(60)
        assert b"message_stop" in (await busy)[1]
        kept.close()


async def test_a_stream_is_not_held_up(api: FakeApi, tmp_path: Path) -> None:
    """What the provider has sent arrives while the provider waits."""
    import threading

    gate = api.held["hold me"] = threading.Event()
    body = json.dumps(HI | {"stream": True, "system": "hold me"}).encode()
    async with sandbox(api, tmp_path) as one:
        reader, writer = await one.connect()
        writer.write(
            b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        async with asyncio.timeout(10):
            await reader.readuntil(ANSWER.encode())
            gate.set()
            await reader.readuntil(b"message_stop")
        writer.close()


async def test_a_stream_that_breaks_is_not_taken_for_a_whole_one(api: FakeApi, tmp_path: Path) -> None:
    api.pieces, api.cut_after = 9, 3
    async with sandbox(api, tmp_path) as one:
        with pytest.raises(aiohttp.ClientError):
            await one.post("/anthropic/v1/messages", HI | {"stream": True})
    (event,) = [record for record in one.records if record.code is Code.MODEL_REQUEST]
    assert event.fields["whole"] is False


async def test_a_sandbox_that_leaves_ends_the_providers_work(api: FakeApi, tmp_path: Path) -> None:
    api.pieces, api.pause = 1000, 0.01
    body = json.dumps(HI | {"stream": True}).encode()
    async with sandbox(api, tmp_path) as one:
        reader, writer = await one.connect()
        writer.write(
            b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await reader.readuntil(b"content_block_delta")
        writer.close()
        async with asyncio.timeout(5):
            while not api.gone:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


LARGE = b'{"model": "claude-x", "a": "' + b"x" * (9 << 20) + b'"}'
MCP = json.dumps(HI | {"mcp_servers": [{"url": "https://evil.example"}]}).encode()
POST = b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\n"
SMALL = json.dumps(HI).encode()
SMUGGLED = {
    "both lengths": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "absolute form": b"GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
    "absolute form to a provider": POST.replace(b" /", b" http://x/") + b"Content-Length: 2\r\n\r\n{}",
    "connect": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    "9 MB": POST + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE,
    "9 MB in pieces": POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(LARGE) + LARGE + b"\r\n0\r\n\r\n",
    "a long head": POST + b"X: " + b"x" * 20000 + b"\r\n\r\n",
    "many headers": POST + b"X: x\r\n" * 500 + b"\r\n",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
    "mcp": POST + b"Content-Length: %d\r\n\r\n" % len(MCP) + MCP,
    "compressed": POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(SMALL, 1, mtime=0))
    + gzip.compress(SMALL, 1, mtime=0),
    "compressed, in a second header": POST + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"
    + b"Content-Length: %d\r\n\r\n" % len(SMALL) + SMALL,
    "a header that is not UTF-8": POST + b"X-A: \xff\r\nContent-Length: %d\r\n\r\n" % len(SMALL) + SMALL,
    "get of messages": b"GET /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\n\r\n",
    "put": b"PUT /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "models with a body": b"GET /anthropic/v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
}  # fmt: skip


@pytest.mark.parametrize("kind", SMUGGLED)
async def test_what_smuggles_reaches_nobody_and_is_one_event(api: FakeApi, tmp_path: Path, kind: str) -> None:
    async with sandbox(api, tmp_path) as one:
        answer = await one.raw(SMUGGLED[kind])
        assert answer.split()[1].startswith(b"4"), answer[:200]
        assert b"sshgate: " in answer
        await asyncio.sleep(0.05)
        assert api.received == []
        assert len(one.refusals()) == 1, one.records


PATHS = [
    "/anthropic/v1/files", "/anthropic/v1/messages/batches", "/anthropic/v1/skills", "/anthropic/v1/organizations/me",
    "/anthropic/v1/messages/../files", "/anthropic//v1/messages", "/anthropic/v1/%6dessages", "/anthropic/v1/messages/",
    "/anthropic/v1/messages%2f..%2ffiles", "/anthropic/v1/messages;x", "/openai/v1/files", "/openai/v1/assistants",
    "/openai/v1/responses/resp_1", "/gemini/v1beta/files", "/gemini/v1beta/models/x:batchGenerateContent",
    "/gemini/upload/v1beta/files", "/", "/other/v1/messages", "/anthropic/v1/messages?api_key=x",
    "/gemini/v1beta/models/x:generateContent?$fields=a", "/gemini/v1beta/models/x:generateContent?alt=proto",
    "/gemini/v1beta/models/x:generateContent?alt=media",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_other_paths_are_not_passed_on(api: FakeApi, tmp_path: Path, path: str) -> None:
    async with sandbox(api, tmp_path) as one:
        answer = await one.raw(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(SMALL)) + SMALL
        )
        assert answer.split()[1] in (b"404", b"400"), answer
        assert api.received == []
        assert len(one.refusals()) == 1


async def test_an_allowed_tool_of_the_provider_passes(api: FakeApi, tmp_path: Path) -> None:
    body = HI | {"tools": [{"type": "web_search_20250305", "name": "web_search"}, {"name": "mine", "input_schema": {}}]}
    async with sandbox(api, tmp_path, server_tools=("web_search",)) as one:
        assert (await one.post("/anthropic/v1/messages", body))[0] == 200
    async with sandbox(api, tmp_path) as one:
        status, answer, headers = await one.post("/anthropic/v1/messages", body)
    assert status == 403
    assert json.loads(answer)["error"]["type"] == "permission_error"
    assert b"web_search would run outside the sandbox" in answer
    assert headers["x-should-retry"] == "false"


async def test_only_the_models_that_are_allowed(api: FakeApi, tmp_path: Path) -> None:
    async with sandbox(api, tmp_path) as one:
        status, answer, _ = await one.post("/anthropic/v1/messages", HI | {"model": "gpt-5"})
    assert status == 403
    assert b"allowed are: claude-*" in answer
    assert api.received == []


async def test_keys_are_read_again_and_each_user_has_their_own(api: FakeApi, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    async with sandbox(api, tmp_path, keys=keys) as one:
        status, answer, _ = await one.post("/anthropic/v1/messages")
        assert (status, b"no key of anthropic for you" in answer) == (401, True)
        for key in ("first", "second"):
            (keys / "dev").write_text(key)
            await one.post("/anthropic/v1/messages")
        (keys / "dev").write_text("two lines\nof text")
        assert (await one.post("/anthropic/v1/messages"))[0] == 503
        (keys / "dev").write_text("sk-ant-oat01-of-a-subscription")
        assert (await one.post("/anthropic/v1/messages"))[0] == 503
    assert [asked.header("x-api-key") for asked in api.received] == [["first"], ["second"]]


async def test_a_key_that_its_user_has_brought_comes_first(api: FakeApi, tmp_path: Path) -> None:
    async with sandbox(api, tmp_path) as one:
        one.brought["anthropic"] = "mine"
        await one.post("/anthropic/v1/messages")
    assert api.received[0].header("x-api-key") == ["mine"]


async def test_without_a_key_the_answer_is_what_to_do(api: FakeApi, tmp_path: Path) -> None:
    async with sandbox(api, tmp_path, keys=None) as one:
        status, answer, _ = await one.post("/anthropic/v1/messages")
    assert status == 401
    assert b"SendEnv=ANTHROPIC_API_KEY" in answer


@contextlib.asynccontextmanager
async def silent(answers: bool) -> AsyncIterator[tuple[FakeApi, asyncio.Event]]:
    """A provider that takes a request and keeps silent, or hangs up. The event: it has one."""
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        while answers and await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield FakeApi(port=server.sockets[0].getsockname()[1]), asked


class Charged(Unmetered):
    """Counts the answers that are over."""

    def __init__(self) -> None:
        self.over: list[ModelRequest] = []

    def observe(self, request: ModelRequest, status: int, headers: Mapping[str, str]) -> Observer:
        over = self.over

        class Once:
            def feed(self, data: bytes) -> None:
                pass

            def finish(self) -> dict[str, str | int | float]:
                over.append(request)
                return {"usd": 0.5, "estimated": True}

        return Once()


@pytest.mark.parametrize("end", ["the sandbox leaves", "the provider hangs up", "the provider is slow"])
async def test_a_request_without_an_answer_is_paid_for(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider has read the prompt; an agent that always leaves early would work for nothing."""
    if end == "the provider is slow":
        monkeypatch.setattr(models, "TIMES", aiohttp.ClientTimeout(sock_read=0.2))
    charged = Charged()
    async with silent(end != "the provider hangs up") as (api, asked), sandbox(api, tmp_path, charged) as one:
        if end == "the sandbox leaves":
            _, writer = await one.connect()
            writer.write(POST + b"Content-Length: %d\r\n\r\n" % len(SMALL) + SMALL)
            async with asyncio.timeout(10):
                await asked.wait()
            writer.close()
            await asyncio.gather(*one.tasks)
        else:
            assert (await one.post("/anthropic/v1/messages"))[0] == (502 if "hangs" in end else 504)
        async with asyncio.timeout(10):
            while not charged.over:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    (event,) = [record for record in one.records if record.code is Code.MODEL_REQUEST]
    assert (event.fields["whole"], event.fields["usd"], event.fields["model"]) == (False, 0.5, "claude-test")
    assert len(charged.over) == 1


async def test_a_request_that_was_never_sent_is_free(tmp_path: Path) -> None:
    charged = Charged()
    async with sandbox(FakeApi(port=1), tmp_path, charged) as one:
        await one.post("/anthropic/v1/messages")
    assert charged.over == []
    assert [record.code for record in one.records] == [Code.MODEL_REFUSED]


async def test_free_requests_do_not_fill_the_audit(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "FREE_A_MINUTE", 2)
    async with sandbox(api, tmp_path) as one:
        for _ in range(4):
            await one.post("/anthropic/v1/messages/count_tokens")
        for _ in range(4):
            await one.post("/anthropic/v1/messages")
    paths = [record for record in one.records if record.code is Code.MODEL_REQUEST]
    assert len(paths) == 2 + 4


async def test_connections_of_a_sandbox_are_bounded(api: FakeApi, tmp_path: Path) -> None:
    async with sandbox(api, tmp_path) as one:
        held = [await one.connect() for _ in range(5)]
        await asyncio.sleep(0.05)
        assert b"too many connections" in await one.raw(b"GET /anthropic/v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        assert b"claude-test" in await one.raw(
            b"GET /anthropic/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )


async def test_one_users_sandboxes_leave_room_for_others() -> None:
    broker = Broker(Config(broker=settings.Broker(connections=16, connections_per_sandbox=3)), Events(), Unmetered())
    await broker.open()
    serving: list[asyncio.Task[None]] = []
    held: list[asyncio.StreamWriter] = []

    async def connect(user: str, number: int) -> asyncio.StreamReader:
        mine, its = socket.socketpair()
        caller = Caller(user, (), "default", f"pod-{number}", f"uid-{number}", None)
        stream = SocketStream(*await asyncio.open_connection(sock=its, limit=LIMIT))
        serving.append(asyncio.create_task(broker.serve(stream, caller)))
        reader, writer = await asyncio.open_connection(sock=mine)
        held.append(writer)
        return reader

    readers = [await connect("eve", number) for number in range(12)]
    async with asyncio.timeout(10):
        assert b"your sandboxes together have too many" in await readers[-1].read()
    other = await connect("ada", 100)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await other.read()
    for writer in held:
        writer.close()
    await asyncio.gather(*serving)
    await broker.close()


async def test_bodies_of_one_users_sandboxes_leave_room_for_others(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 100 << 10
    monkeypatch.setattr(models, "BODIES", 4 * size)
    async with sandbox(api, tmp_path) as one:

        async def begin(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            mine, its = socket.socketpair()
            caller = Caller("eve", (), "default", f"pod-{number}", f"uid-{number}", None)
            stream = SocketStream(*await asyncio.open_connection(sock=its, limit=LIMIT))
            one.tasks.add(asyncio.create_task(one.broker.serve(stream, caller)))
            reader, writer = await asyncio.open_connection(sock=mine)
            head = b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % (size + 1) + bytes(size))  # and never the last byte
            await asyncio.sleep(0.1)
            return reader, writer

        eves = [await begin(number) for number in range(4)]
        assert (await one.post("/anthropic/v1/messages"))[0] == 200
        async with asyncio.timeout(5):
            assert b"too many large requests" in await eves[-1][0].read()
        for _, writer in eves:
            writer.close()


class Unsummed(Counter[tuple[str, ...]]):
    """Counts of which only single ones may be looked at."""

    def _all(self) -> NoReturn:
        raise AssertionError("all were looked at")

    items = values = total = _all


def test_a_body_that_grows_looks_at_no_other_one() -> None:
    """Each piece would take longer with every request that is held."""
    held = Unsummed()
    callers = [Caller("eve", (), "default", f"pod-{number}", f"uid-{number}", None) for number in range(4)]
    bodies = [models.Body(held, callers[number % 4]) for number in range(models.BODIES // LONGEST_BODY // 2 + 1)]
    for body in bodies[:-1]:
        body.grow(LONGEST_BODY)
    with pytest.raises(Refused, match="too many large requests"):
        bodies[-1].grow(1)
    for body in bodies:
        body.release()
        body.release()
    assert not held


async def test_claude_codes_first_question_is_answered_here(api: FakeApi, tmp_path: Path) -> None:
    async with sandbox(api, tmp_path) as one:
        answer = await one.raw(b"HEAD /anthropic HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert api.received == []
    assert one.records == []
