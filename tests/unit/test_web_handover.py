"""Connections that move between workers: by requests of several users, in pieces, pipelined, with TLS and without."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web import RequestHandler

from sshgate.access.key_line import fingerprint_of
from sshgate.access.siblings import Inboxes, Siblings
from sshgate.config.model import Access, Address, Config, Limits, SandboxPlace, Ssh, Tls, Web
from sshgate.server.core import Core
from sshgate.server.frontends import Frontends
from sshgate.stream.turns import Budget
from tests.rig.ssh import make_key
from webshim.credentials import Principal, Signer, load
from webshim.handover import Handover

USERS = ["ann", "bob", "cyd", "dan"]
ANSWER_SECONDS = 10.0


class Pair:
    """The web front ends of two workers, in one process, and cookies of users of both."""

    def __init__(self, place: Path, ports: list[int], siblings: Siblings) -> None:
        self.ports = ports
        self.owner = siblings.owner
        self._signer = load(place / "web")
        self._proof = fingerprint_of(base64.b64decode((place / "users" / "ann").read_text().split()[1]))
        assert {self.owner(user) for user in USERS} == {0, 1}

    def head(self, user: str, path: str = "/api/me") -> bytes:
        """A request of this user."""
        now = time.time()
        cookie = self._signer.sign("cookie", Principal(user, "link", self._proof, "id", now, now + 60))
        return f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {self.name}={cookie}\r\n\r\n".encode()

    name = ""


@asynccontextmanager
async def pair(place: Path, tls: Tls | None = None) -> AsyncIterator[Pair]:
    (place / "users").mkdir()
    line = make_key(place / "id")
    for user in USERS:
        (place / "users" / user).write_text(line + "\n")
    here = Address("127.0.0.1", 0)
    config = Config(
        ssh=Ssh(listen=here, host_keys=place / "host"),
        access=Access(authorized_keys=place / "users"),
        # Both have one name for browsers, and so one name of the cookie, as on one port.
        web=Web(listen=here, secret=place / "web", tls=tls, public_url=f"http{'s' * bool(tls)}://127.0.0.1:99"),
        sandbox=SandboxPlace(provider="local"),
        limits=Limits(unauthenticated=50),
    )
    boxes = Inboxes(2)
    both = [Siblings(boxes, index) for index in range(2)]
    async with AsyncExitStack() as stack:
        stack.callback(boxes.close)
        ports = []
        for one in both:
            one.open()
            stack.callback(one.close)
            core = await stack.enter_async_context(Core(config, one))
            doors = Frontends(config, core)
            stack.push_async_callback(doors.close)
            await doors.listen()
            assert doors.web is not None
            ports.append(doors.web._listener.addresses[0].port)  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while not all(one._takers for one in both):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        made = Pair(place, ports, both[0])
        made.name = "__Host-sshgate" if tls else "sshgate-99"
        yield made


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    """The status and the JSON of the next answer."""
    async with asyncio.timeout(ANSWER_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return int(head.split()[1]), json.loads(await reader.readexactly(length))


def certificate(place: Path) -> Tls:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "2", "-subj", "/CN=x", "-keyout", place / "tls.key", "-out", place / "tls.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return Tls(place / "tls.crt", place / "tls.key")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_each_request_of_a_connection_is_answered_whoever_it_is_of(tmp_path: Path, tls: bool) -> None:
    """As behind an HTTP proxy, which sends the requests of many people through one connection."""
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with pair(tmp_path, certificate(tmp_path) if tls else None) as workers:
        for port in workers.ports:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            for turn, user in enumerate(USERS * 3):
                head = workers.head(user)
                for piece in (head[:1], head[1:30], head[30:]) if turn % 3 == 0 else (head,):
                    writer.write(piece)
                    await asyncio.sleep(0.01)
                status, body = await answer(reader)
                assert (status, body["user"]) == (200, user)
            writer.close()


async def test_a_pipelined_request_of_another_worker_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    async with pair(tmp_path) as workers:
        first = next(user for user in USERS if workers.owner(user) == 0)
        second = next(user for user in USERS if workers.owner(user) == 1)
        for port in workers.ports:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(workers.head(first) + workers.head(second))
            assert (await answer(reader))[0] == 200
            status, body = await answer(reader)
            assert (status, body["error"]["code"]) == (503, "unavailable")  # type: ignore[index]
            assert await reader.read() == b""
            writer.close()


async def test_half_a_pipelined_head_is_not_lost(tmp_path: Path) -> None:
    async with pair(tmp_path) as workers:
        first = next(user for user in USERS if workers.owner(user) == 0)
        second = next(user for user in USERS if workers.owner(user) == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", workers.ports[0])
        head = workers.head(second)
        writer.write(workers.head(first) + head[:20])
        assert (await answer(reader))[0] == 200
        await asyncio.sleep(0.05)
        writer.write(head[20:])
        assert (await answer(reader))[0] == 503
        writer.close()


async def test_a_request_that_comes_in_the_turn_after_an_answer_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a proxy that uses its connection for the next user as soon as it has the answer."""
    following: list[bytes] = []
    finish = RequestHandler.finish_response

    async def finished(connection: RequestHandler, *args: Any) -> Any:
        done = await finish(connection, *args)
        if following:
            asyncio.get_running_loop().call_soon(connection.data_received, following.pop())
        return done

    monkeypatch.setattr(RequestHandler, "finish_response", finished)
    async with pair(tmp_path) as workers:
        first = next(user for user in USERS if workers.owner(user) == 0)
        second = next(user for user in USERS if workers.owner(user) == 1)
        following.append(workers.head(second))
        reader, writer = await asyncio.open_connection("127.0.0.1", workers.ports[0])
        writer.write(workers.head(first))
        for user in (first, second):
            status, body = await answer(reader)
            assert (status, body["user"]) == (200, user)
        writer.close()


async def test_a_head_costs_one_check_of_a_signature_and_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, charge = Signer.read, Budget.charge
    checked: list[str] = []
    charged: list[float] = []

    def counted(signer: Signer, use: Any, word: str) -> Principal | None:
        checked.append(word)
        return read(signer, use, word)

    def noted(budget: Budget, seconds: float) -> None:
        charged.append(seconds)
        charge(budget, seconds)

    monkeypatch.setattr(Signer, "read", counted)
    monkeypatch.setattr(Budget, "charge", noted)
    async with pair(tmp_path) as workers:
        user = next(user for user in USERS if workers.owner(user) == 1)
        wrong = f"{workers.name}=x; ".encode() * 300
        reader, writer = await asyncio.open_connection("127.0.0.1", workers.ports[0])
        writer.write(workers.head(user).replace(b"Cookie: ", b"Cookie: " + wrong))
        status, body = await answer(reader)
        assert (status, body["user"]) == (200, user)
        # At both workers, and for the answer.
        assert len(checked) == 3
        assert len(charged) == 2
        writer.close()


async def test_a_long_head_moves_nowhere(tmp_path: Path) -> None:
    async with pair(tmp_path) as workers:
        for user in USERS:
            reader, writer = await asyncio.open_connection("127.0.0.1", workers.ports[0])
            long = b"".join(b"A%d: %s\r\n" % (number, b"a" * 8000) for number in range(5))
            writer.write(workers.head(user)[:-2] + long + b"\r\n")
            assert (await answer(reader))[0] == (503 if workers.owner(user) else 200)
            writer.close()


async def test_a_client_that_leaves_with_its_request_leaves_nothing_to_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head and the end of its TLS come in one segment."""
    copies: list[Handover] = []
    copy = Handover._copy

    async def copied(handover: Handover, *args: Any) -> None:
        await copy(handover, *args)
        copies.append(handover)

    monkeypatch.setattr(Handover, "_copy", copied)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(received, sent)
    async with pair(tmp_path, certificate(tmp_path)) as workers, asyncio.timeout(ANSWER_SECONDS):
        user = next(user for user in USERS if workers.owner(user) == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", workers.ports[0])
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(sent.read())
                received.write(await reader.read(1 << 16))
        client.write(workers.head(user))
        with contextlib.suppress(ssl.SSLWantReadError):
            client.unwrap()
        writer.write(sent.read())
        while await reader.read(1 << 16):
            pass
        writer.close()
        while not copies or copies[0]._copied:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_head_without_an_end_is_cut(tmp_path: Path) -> None:
    async with pair(tmp_path) as workers, asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", workers.ports[0])
        writer.write(b"GET / HTTP/1.1\r\nA: " + b"a" * (1 << 20))
        assert b" 400 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_request_after_one_with_a_body_moves(tmp_path: Path, pieces: int) -> None:
    """As when a page logs in and goes on by the same connection."""
    async with pair(tmp_path) as workers:
        for user in USERS:
            for port in workers.ports:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                body = b'{"link": "wrong"}'
                head = b"POST /api/login HTTP/1.1\r\nOrigin: http://127.0.0.1:99\r\nContent-Type: application/json\r\n"
                head += b"Host: x\r\nContent-Length: %d\r\n\r\n" % len(body)
                for part in (head, body) if pieces == 2 else (head + body,):
                    writer.write(part)
                    await asyncio.sleep(0.01)
                assert (await answer(reader))[0] == 401
                writer.write(workers.head(user))
                status, found = await answer(reader)
                assert (status, found.get("user")) == (200, user)
                writer.close()
