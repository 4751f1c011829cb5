"""Who has not logged in at the browser's door: no HTTP, wrong credentials, connections that are held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from sshgate.config.model import Limits
from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import address, browser, link, section, token

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

# More in all than there are places.
EACH = 20
LOGIN = b"POST /api/login HTTP/1.1\r\nHost: x\r\nOrigin: ORIGIN\r\nContent-Type: application/json\r\n"
MALFORMED = [
    b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/x\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    b"SSH-2.0-x\r\n\r\n",
    b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    LOGIN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    LOGIN + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
]  # fmt: skip


@pytest.fixture
def gate(gateway: MakeGateway) -> Gateway:
    """One of each test's own: what is logged once a minute is logged in each."""
    return gateway("local", web=section(login_attempts=5))


async def reply(gate: Gateway, words: bytes, source: str = "127.0.0.1") -> bytes:
    """What the server answers to the words, until it closes."""
    host, port = address(gate).removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
    writer.write(words.replace(b"ORIGIN", address(gate).encode()))
    answer = b""
    try:
        async with asyncio.timeout(20):
            while more := await reader.read(1 << 16):
                answer += more
    except (ConnectionResetError, TimeoutError):
        pass
    writer.close()
    return answer


def logged(gate: Gateway, event: str) -> list[dict[str, str]]:
    """The events of this code so far."""
    lines = [json.loads(line) for line in gate.log().splitlines()]
    return [line for line in lines if line["event"] == event]


async def test_what_is_no_http_gets_a_short_answer_and_one_line_in_the_log(gate: Gateway) -> None:
    for words in MALFORMED:
        answer = await reply(gate, words)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), (words[:80], answer)
        assert json.loads(body)["error"]["code"] == "request"
        for header in (b"Server: sshgate", b"X-Frame-Options: DENY", b"Cache-Control: no-store"):
            assert header in head, (words[:80], head)
    # All of it is JSON, or `logged` fails.
    (line,) = logged(gate, "web.malformed")
    assert line["source"] == "127.0.0.1"
    assert "Traceback" not in gate.log()
    assert "aiohttp" not in gate.log()


async def test_wrong_credentials_are_logged_once_a_minute_for_each_address(gate: Gateway) -> None:
    port = address(gate).rpartition(":")[2]
    for _ in range(3):
        for header in ("Authorization: Bearer x", f"Cookie: sshgate-{port}=x"):
            request = f"GET /api/me HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n".encode()
            for source in ("127.0.0.1", "127.0.0.2"):
                assert b" 401 " in await reply(gate, request, source)
    assert b" 401 " in await reply(gate, b"GET /api/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "127.0.0.3")
    refused = logged(gate, "web.refused")
    assert [line["source"] for line in refused] == ["127.0.0.1", "127.0.0.2"]
    assert {line["reason"] for line in refused} == {"token not accepted"}


async def test_whatever_strangers_try_fills_no_log(gate: Gateway) -> None:
    await asyncio.gather(*(reply(gate, b"nonsense\r\n\r\n") for _ in range(20)))
    async with browser(address(gate)) as page:
        for _ in range(100):
            assert (await page.ask("POST", "api/login", {"user": "dev", "password": "x"}))[0] in (401, 429)
        page.origin = "http://elsewhere.example"
        for _ in range(100):
            assert (await page.ask("POST", "api/login", {"link": "x"}))[0] == 403
    assert len(logged(gate, "web.refused")) == 30
    assert len(logged(gate, "web.malformed")) == 1
    await asyncio.to_thread(gate.stop)
    assert {line["code"]: int(line["count"]) for line in logged(gate, "events.omitted")} == {
        "web.refused": 170, "web.malformed": 19,
    }  # fmt: skip


async def test_a_logout_is_logged(gate: Gateway, user_at: Callable[[Gateway], Ssh]) -> None:
    async with browser(address(gate)) as page:
        await page.login(link(user_at(gate)))
        assert (await page.ask("POST", "api/logout"))[0] == 204
    (line,) = logged(gate, "web.logout")
    assert (line["user"], line["method"], line["source"]) == ("dev", "link", "127.0.0.1")


async def test_silent_connections_keep_no_browser_out_and_ssh_is_another_count(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    defaults = {name: getattr(Limits(), name) for name in ("unauthenticated", "unauthenticated_per_source")}
    gate = gateway("local", web=section(), limits=defaults)
    user = user_at(gate)
    host, port = address(gate).removeprefix("http://").split(":")
    asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

    async def hold(source: str, words: bytes) -> None:
        while True:
            reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
            try:
                writer.write(words)
                while await reader.read(1 << 16):
                    pass
            except ConnectionResetError:
                pass
            finally:
                writer.transport.abort()

    places = [(f"127.0.0.{number}", words) for number in (1, 2, 3, 4) for words in (b"", asked)]
    tasks = [asyncio.create_task(hold(*place)) for place in places for _ in range(EACH)]
    await asyncio.sleep(0.5)
    try:
        for _ in range(3):
            found = await asyncio.to_thread(link, user)
            async with browser(address(gate)) as page:
                await page.login(found)
                assert (await page.ask("GET", "api/me"))[0] == 200
        bearer = await asyncio.to_thread(token, user)
        async with browser(address(gate)) as program:
            headers = {"Authorization": f"Bearer {bearer}"}
            for _ in range(20):
                assert (await program.ask("GET", "api/me", headers=headers))[0] == 200
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
