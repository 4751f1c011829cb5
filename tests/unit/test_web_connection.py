"""Connections at the browser's door that nobody has logged in on: counted from TCP on, and their time is bounded."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import webshim.connection
import webshim.server
from sshgate.access.key_line import fingerprint_of
from sshgate.config.model import Access, Address, Config, Limits, SandboxPlace, Ssh, Tls, Web
from sshgate.server.core import Core
from sshgate.server.frontends import Frontends
from tests.hostile.polling import until
from tests.rig.ssh import make_key
from webshim.connection import Connection
from webshim.credentials import Principal, load

ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def opened(place: Path, tls: Tls | None = None) -> AsyncIterator[tuple[Core, int]]:
    """Both doors of a gateway with local sandboxes, and the browser's port."""
    here = Address("127.0.0.1", 0)
    config = Config(
        ssh=Ssh(listen=here, host_keys=place / "host"),
        access=Access(authorized_keys=place / "users"),
        web=Web(listen=here, secret=place / "web", tls=tls),
        sandbox=SandboxPlace(provider="local"),
        limits=Limits(unauthenticated=5),
    )
    async with Core(config) as core:
        doors = Frontends(config, core)
        try:
            await doors.listen()
            assert doors.web is not None
            yield core, int(doors.web.url.rpartition(":")[2])
        finally:
            await doors.close()


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: float = 5.0) -> None:
    async with asyncio.timeout(limit):
        try:
            while await reader.read(1 << 16):
                pass
        except ConnectionResetError:
            pass
        writer.close()


async def test_a_connection_without_a_login_ends_however_much_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webshim.connection, "ANONYMOUS_SECONDS", 0.5)
    async with opened(tmp_path) as (core, port):
        silent, busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]

        async def ask() -> None:
            while True:
                busy[1].write(ASKED)
                await asyncio.sleep(0.05)

        asking = asyncio.create_task(ask())
        await asyncio.gather(ended(*silent), ended(*busy))
        asking.cancel()
        assert core.admission.web.total == 0


@pytest.mark.parametrize(
    "part", ["vendor/xterm.js", "vendor/addon-serialize.js"], ids=["an answer under way", "a written answer"]
)
async def test_a_connection_whose_client_reads_nothing_ends(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be sent keeps no connection open, also one that is closed already but for that."""
    made: list[Connection] = []

    class Kept(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    monkeypatch.setattr(webshim.server, "Connection", Kept)
    monkeypatch.setattr(webshim.connection, "ANONYMOUS_SECONDS", 2.0)
    monkeypatch.setattr(webshim.connection, "UNREAD_SECONDS", 0.5)
    async with opened(tmp_path) as (core, port):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            while not made or not (made[0].transport and made[0].transport.get_write_buffer_size()):
                client.send(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % part.encode())
                await asyncio.sleep(0.001)
            assert made[0].progress == (part == "vendor/xterm.js")
            await until(lambda: core.admission.web.total == 0)


async def test_a_connection_that_has_not_become_a_websocket_is_counted(tmp_path: Path) -> None:
    """Sockets are counted by user instead. This one lacks its key; its connection is there for other requests."""
    (tmp_path / "users").mkdir()
    line = make_key(tmp_path / "id")
    (tmp_path / "users" / "ann").write_text(line + "\n")
    async with opened(tmp_path) as (core, port):
        now = time.time()
        proof = fingerprint_of(base64.b64decode(line.split()[1]))
        cookie = load(tmp_path / "web").sign("cookie", Principal("ann", "link", proof, "id", now, now + 60))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /terminal HTTP/1.1\r\nHost: x\r\nOrigin: http://127.0.0.1:{port}\r\n"
            f"Cookie: sshgate-{port}={cookie}\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Protocol: sshgate.v1\r\n\r\n".encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        assert core.admission.web.total == 1
        writer.close()
        await until(lambda: core.admission.web.total == 0)


@pytest.fixture
def files(tmp_path: Path) -> Tls:
    files = Tls(tmp_path / "cert", tmp_path / "key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", files.key, "-out", files.cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


async def test_tls_handshakes_hold_places_that_newcomers_get(tmp_path: Path, files: Tls) -> None:
    async with opened(tmp_path, files) as (core, port):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(ASKED)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert core.admission.web.unauthenticated == 5
        writer.close()
        # Those that gave their places up are cut some moments later; all are given back at the end.
        for one in silent[:10]:
            await ended(*one)
        for _, other in silent:
            other.close()
        await until(lambda: core.admission.web.total == 0)
