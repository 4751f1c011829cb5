"""What an exec's websocket leaves behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import ssl
from pathlib import Path

import aiohttp
import pytest
import uvloop
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_parser import HttpResponseParser

from sshgate.providers.kubernetes.api.websocket import V5, Connector, connect
from tests.unit.apiserver import connected, serve
from tests.unit.outside_world import authority


@pytest.mark.parametrize("ending", ["ours", "theirs"])
async def test_a_closed_connection_is_freed_at_once(tmp_path: Path, ending: str) -> None:
    """Sessions die as cycles, which may wait long for a collection; what TLS holds must not wait with them."""

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(V5,))
        await socket.prepare(request)
        await socket.send_bytes(b"\x01out")
        if ending == "ours":
            await socket.receive()
        await socket.close()
        return socket

    output, ended = asyncio.Event(), asyncio.Event()
    gc.collect()
    gc.disable()
    try:
        async with serve(answer, tmp_path) as served, connected(served) as api, asyncio.timeout(20):
            socket = await api.websocket(api.path("pods", "x", "exec"), "command=true")
            socket.attach(lambda data, start, end: output.set(), ended.set)
            await output.wait()
            if ending == "theirs":
                await ended.wait()
            else:
                assert connections() == 1
                socket.close()
            while connections():  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert "closed" in repr(socket)
    finally:
        gc.enable()


async def test_what_a_server_sends_before_it_closes_at_once_is_read(tmp_path: Path) -> None:
    """As it does where the program cannot be started: the status and the end may come together with the upgrade."""

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(V5,))
        await socket.prepare(request)
        await socket.send_bytes(b"\x03status")
        assert request.transport is not None
        request.transport.close()
        return socket

    received: list[bytes] = []
    ended = asyncio.Event()
    async with serve(answer, tmp_path) as served, connected(served) as api, asyncio.timeout(20):
        socket = await api.websocket(api.path("pods", "x", "exec"), "command=true")
        await asyncio.sleep(0.1)
        socket.attach(lambda data, start, end: received.append(data[start:end]), ended.set)
        await ended.wait()
    assert received == [b"\x03status"]


@pytest.mark.parametrize("sizes", [(0,), (2, 0, 123), (125,), (1, 125), (65_535,), (1, 65_535), (1, 1 << 20)])
async def test_messages_arrive_as_they_were_sent(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """All three length forms of a frame (RFC 6455 section 5.2), each part of a message, and what follows it."""
    parts = [bytes(number + index & 0xFF for index in range(size)) for number, size in enumerate(sizes)]
    received: list[bytes] = []
    done = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(V5,))
        await socket.prepare(request)
        received.extend([await socket.receive_bytes(), await socket.receive_bytes()])
        done.set()
        await socket.close()
        return socket

    async with serve(answer, tmp_path) as served, connected(served) as api, asyncio.timeout(20):
        socket = await api.websocket(api.path("pods", "x", "exec"), "command=true")
        await socket.send(*parts)
        socket.send_now(b"next")
        await done.wait()
        socket.close()
    assert received == [b"".join(parts), b"next"]


def test_an_open_one_keeps_nothing_of_the_request_nor_of_the_handshake(tmp_path: Path) -> None:
    """A session has one for hours. uvloop, which gateways use, keeps more than asyncio does."""

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(V5,))
        await socket.prepare(request)
        await socket.send_bytes(b"\x01out")
        await socket.receive()
        return socket

    async def work() -> None:
        cert, tls = authority(tmp_path, ["localhost"])
        runner = web.AppRunner(app := web.Application())
        app.router.add_get("/exec", answer)
        await runner.setup()
        await (site := web.TCPSite(runner, "localhost", 0, ssl_context=tls)).start()
        connector = Connector(ssl=ssl.create_default_context(cafile=cert))
        output = asyncio.Event()
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(20):
            socket = await connect(session, f"{site.name}/exec", {}, None, None)
            socket.attach(lambda data, start, end: output.set(), lambda: None)
            await output.wait()
            assert connections() == 1
            kept = [one for one in gc.get_objects() if isinstance(one, aiohttp.ClientResponse | HttpResponseParser)]
            assert kept == []
            assert not [one for one in gc.get_objects() if isinstance(one, dict) and "subjectAltName" in one]
            socket.close()
        await runner.cleanup()

    gc.collect()
    gc.disable()
    try:
        uvloop.run(work())
    finally:
        gc.enable()


def connections() -> int:
    """How many of aiohttp's client connections are still kept by anything."""
    return sum(isinstance(thing, ResponseHandler) for thing in gc.get_objects())
