"""A page at a real gateway, without a browser: cookies, requests, and a socket that keeps the protocol's rules."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh

LIMIT = 30.0
ACK = 128 * 1024


def section(**more: Any) -> dict[str, Any]:
    """A ``web`` section for a gateway under test."""
    return {"listen": f"127.0.0.1:{free_port()}", **more}


def address(gateway: Gateway) -> str:
    """Where a gateway's page is, without a trailing slash."""
    return f"http://{gateway.settings['web']['listen']}"


def link(user: Ssh) -> str:
    """What `ssh -s USER@HOST web` prints."""
    ended = user.run("web", options=("-s",))
    found = re.fullmatch(r"(https?://\S+#login=\S+)\n", ended.out.decode())
    assert found, ended.both
    return found[1]


def token(user: Ssh) -> str:
    """What `ssh -s USER@HOST token` prints first."""
    ended = user.run("token", options=("-s",))
    assert ended.status == 0, ended.both
    return ended.out.decode().splitlines()[0]


async def eventually(holds: Callable[[], Awaitable[bool]], limit: float = LIMIT) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + limit
    while not await holds():
        assert time.monotonic() < deadline, f"it is still not so after {limit:g} s"
        await asyncio.sleep(0.05)


@dataclass
class Browser:
    """One browser: its cookies and the origin of its page."""

    http: aiohttp.ClientSession
    url: str
    origin: str
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and JSON of an answer (``None``: no content)."""
        headers = {"Origin": self.origin, **self.headers, **options.pop("headers", {})}
        if method == "POST" and body is None:
            body = {}
        kind = {"json": body} if isinstance(body, (dict, list)) else {"data": body}
        async with self.http.request(method, f"{self.url}/{path}", headers=headers, **kind, **options) as answer:
            content = await answer.read()
            return answer.status, json.loads(content) if content else None

    async def login(self, found: str) -> Any:
        """Follow a link."""
        status, who = await self.ask("POST", "api/login", {"link": found.partition("#login=")[2]})
        assert status == 200, who
        return who

    async def new(self, **wanted: Any) -> Any:
        """A new session, as the answer says it."""
        status, session = await self.ask("POST", "api/sessions", {"cols": 80, "rows": 24, **wanted})
        assert status == 201, session
        return session

    async def ticket(self, session: str) -> str:
        """A ticket for a socket."""
        status, answer = await self.ask("POST", f"api/sessions/{session}/ticket")
        assert status == 201, answer
        found: str = answer["ticket"]
        return found

    async def socket(self, path: str = "/terminal", **headers: str) -> aiohttp.ClientWebSocketResponse:
        """An upgraded socket that has sent nothing yet."""
        return await self.http.ws_connect(
            self.url.replace("http", "ws", 1) + path,
            protocols=("sshgate.v1",),
            headers={"Origin": self.origin, **self.headers, **headers},
            max_msg_size=0,
        )


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[Browser]:
    """A fresh one, with no cookie."""
    # Addresses count as hosts here: cookies of 127.0.0.1 are wanted.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        yield Browser(http, url, "/".join(url.split("/")[:3]))


@dataclass
class Tab:
    """One tab: what its terminal holds, by the protocol's offsets, over all its sockets."""

    browser: Browser
    session: str
    tab: str = field(default_factory=lambda: secrets.token_hex(8))
    offset: int | None = None
    text: bytearray = field(default_factory=bytearray)
    hello: dict[str, Any] = field(default_factory=dict)
    snapshot: dict[str, Any] | None = None
    frames: list[dict[str, Any]] = field(default_factory=list)
    socket: aiohttp.ClientWebSocketResponse | None = None
    code: int | None = None
    acking: bool = True
    acked: int = 0
    received: int = 0
    _reader: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self, ticket: str | None = None, cols: int = 80, rows: int = 24, take_over: bool = False) -> None:
        """Attach; returns after ``hello`` or when the socket was closed instead."""
        ticket = ticket or await self.browser.ticket(self.session)
        self.socket = await self.browser.socket()
        self.hello, self.snapshot, self.code = {}, None, None
        await self.send("attach", session=self.session, ticket=ticket, tab=self.tab, cols=cols, rows=rows,
                        take_over=take_over, **{"from": self.offset})  # fmt: skip
        self._reader = asyncio.create_task(self._read(self.socket))
        await self.until(lambda: self._greeted() or self.code is not None, "hello")

    async def watch(self, secret: str) -> None:
        """Watch by a link, without a login; returns after ``hello`` or when the socket was closed instead."""
        self.socket = await self.browser.socket("/watch/socket")
        self.hello, self.snapshot, self.code = {}, None, None
        await self.send("watch", share=secret)
        self._reader = asyncio.create_task(self._read(self.socket))
        await self.until(lambda: self._greeted() or self.code is not None, "hello")

    def _greeted(self) -> bool:
        return self.snapshot is not None or self.hello.get("start") == "resume"

    async def send(self, kind: str, **fields: Any) -> None:
        """A control frame."""
        assert self.socket is not None
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def type(self, data: bytes) -> None:
        """Input."""
        assert self.socket is not None
        await self.socket.send_bytes(data)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                await self._output(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                self._control(json.loads(message.data))
            self._news.set()
        self.code = socket.close_code
        self._news.set()

    async def _output(self, data: bytes) -> None:
        assert self.offset is not None, "bytes before hello"
        self.text += data
        self.received += len(data)
        self.offset += len(data)
        if self.acking and self.offset - self.acked >= ACK:
            self.acked = self.offset
            # What had come before the network was lost (`lose`) is still read; the end of the socket follows.
            with suppress(aiohttp.ClientConnectionResetError):
                await self.send("ack", offset=self.offset)

    def _control(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "hello":
            self.hello = frame
            if frame["start"] == "resume":
                assert frame["offset"] == self.offset
            self.offset = self.acked = frame["offset"]
        elif frame["type"] == "snapshot":
            self.snapshot = frame
            self.text = bytearray()
        self.frames.append(frame)

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """The control frames of this kind so far."""
        return [frame for frame in self.frames if frame["type"] == kind]

    async def until(self, holds: Any, what: str, limit: float = LIMIT) -> None:
        """Wait for something that the socket brings."""
        try:
            async with asyncio.timeout(limit):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"no {what} within {limit:g} s: {self.text[-300:]!r} {str(self.frames[-3:])[:2000]}"
            ) from None

    async def see(self, text: bytes, limit: float = LIMIT) -> None:
        """Wait for text on the terminal."""
        looked = 0

        def there() -> bool:
            nonlocal looked
            found = self.text.find(text, max(0, looked - len(text))) >= 0
            looked = len(self.text)
            return found

        await self.until(there, repr(text), limit)

    async def closed(self, limit: float = LIMIT) -> int:
        """Wait for the end of the socket; its close code."""
        await self.until(lambda: self.code is not None, "close", limit)
        assert self.code is not None
        return self.code

    async def leave(self) -> None:
        """Close the socket, as a tab that is closed does."""
        if self.socket is not None:
            await self.socket.close()
        if self._reader is not None:
            await self._reader

    def lose(self) -> None:
        """The network is gone: no close frame, nothing."""
        assert self.socket is not None
        transport = self.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()


async def shell(page: Browser) -> Tab:
    """A new session at whose shell somebody has typed."""
    made = await page.new()
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.type(b"echo rea''dy\n")
    await tab.see(b"ready\r\n")
    return tab
