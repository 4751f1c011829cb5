"""A browser that floods its socket: ``python -m tests.fairness.flood_web KIND URL LINK CONNECTIONS MIB``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from itertools import cycle, islice
from typing import Any

from tests.fairness.flood import Flooding
from tests.rig.web import Browser, Tab, browser

# First byte of a frame (RFC 6455 section 5.2), and its payload. Masked by zeros.
TEXT, BINARY, PING, FRAGMENT = 0x81, 0x82, 0x89, 0x00


def frame(head: int, payload: bytes) -> bytes:
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([head]) + size + bytes(4) + payload


def control(kind: str, **fields: Any) -> bytes:
    return frame(TEXT, json.dumps({"type": kind, **fields}).encode())


KINDS = {
    "bytes": [frame(BINARY, b"x")],
    "empty messages": [frame(BINARY, b"")],
    "acks": [control("ack", offset=0)],
    "pings": [control("ping", id=1)],
    "websocket pings": [frame(PING, b"")],
    "fragments": [frame(FRAGMENT, b"")],
    "sizes": [control("resize", cols=80 + number, rows=24) for number in range(50)],
    "titles": [control("title", text=str(number)) for number in range(50)],
    "snapshots": [control("snapshot", offset=0, cols=80, rows=24, data="x" * 1000)],
    "requests": [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
}


async def prepared(page: Browser, kind: str, size: int) -> Flooding:
    """A connection on which the flood begins."""
    frames = KINDS[kind]
    blob = b"".join(islice(cycle(frames), size // len(b"".join(frames)) * len(frames)))
    if kind == "requests":
        host, port = page.url.rpartition("/")[2].split(":")
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, int(port))
        return Flooding(transport, blob, size // len(frames[0]))
    tab = Tab(page, (await page.new())["id"])
    await tab.open()
    await tab.until(lambda: tab.text, "a prompt")
    connection = tab.socket._response.connection if tab.socket is not None else None
    assert connection is not None
    assert isinstance(connection.transport, asyncio.Transport)
    first = frame(0x02, b"") if kind == "fragments" else b""
    return Flooding(connection.transport, first + blob, len(blob) * len(frames) // len(b"".join(frames)))


async def main(kind: str, url: str, link: str, connections: str, mib: str) -> None:
    """Flood as the command line says."""
    async with contextlib.AsyncExitStack() as stack:
        page = await stack.enter_async_context(browser(url))
        await page.login(link)
        floods = [await prepared(page, kind, int(float(mib) * (1 << 20))) for _ in range(int(connections))]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        cut = await asyncio.gather(*(one.send() for one in floods))
        print(json.dumps({"bytes": sum(one.sent for one in floods), "cut": sum(cut)}), flush=True)
        os._exit(0)


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main(*sys.argv[1:]))
