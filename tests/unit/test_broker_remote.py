"""The connection between a gateway and a broker in another process: who may make one, and what it carries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sshgate.broker import remote
from sshgate.broker.caller import NO_KEYS, Caller
from sshgate.broker.remote import BrokerListener, RemoteBroker, read_secret, seal, unseal
from sshgate.broker.sockets import LIMIT, SocketStream
from sshgate.config.model import Address, Broker, Config
from sshgate.errors import ConfigError
from sshgate.stream.interfaces import Stream
from tests.rig.waiting import until
from tests.unit.far_end import FarEnd
from tests.unit.outside_world import authority

CALLER = Caller("dev", ("staff", "all"), "default", "pod-1", "uid-1", "work")
KEYS = {"anthropic": "sk-brought"}


class Echo:
    """A broker that answers what it was sent, in capitals, and remembers who asked."""

    def __init__(self) -> None:
        self.served: list[tuple[Caller, Mapping[str, str]]] = []

    async def open(self) -> None: ...

    def reconfigure(self, config: Config) -> None: ...

    async def close(self) -> None: ...

    async def serve(self, stream: Stream, caller: Caller, brought: Mapping[str, str] = NO_KEYS) -> None:
        self.served.append((caller, brought))
        while (data := await stream.read()) is not None:
            await stream.write(data.upper())
        stream.close()


@pytest.fixture
def settings(tmp_path: Path) -> Broker:
    (tmp_path / "secret").write_bytes(os.urandom(32).hex().encode())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Broker(listen=Address("127.0.0.1", probe.getsockname()[1]), secret=tmp_path / "secret")


@contextlib.asynccontextmanager
async def listening(settings: Broker) -> AsyncIterator[Echo]:
    echo = Echo()
    listener = BrokerListener(settings, echo)
    await listener.open()
    try:
        yield echo
    finally:
        await listener.close()


async def exchanged(broker: RemoteBroker, data: bytes) -> bytes:
    mine, its = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=its, limit=LIMIT)
    serving = asyncio.create_task(broker.serve(SocketStream(reader, writer), CALLER, KEYS))
    reader, writer = await asyncio.open_connection(sock=mine)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await serving
    return answer


async def test_it_carries_who_asks_the_keys_and_the_bytes(settings: Broker) -> None:
    async with listening(settings) as echo:
        assert await exchanged(RemoteBroker(settings), b"hello" * 50_000) == b"HELLO" * 50_000
    assert echo.served == [(CALLER, KEYS)]


async def test_pieces_go_on_without_a_task_and_none_overtakes_one_that_waits(settings: Broker) -> None:
    far = FarEnd()
    far.room.set()
    async with listening(settings), asyncio.timeout(20):
        serving = asyncio.create_task(RemoteBroker(settings).serve(far, CALLER))
        for piece in (b"a", b"b", b"c"):
            far.says.put(piece)
            await asyncio.to_thread(until, partial(far.written.endswith, piece.upper()))
        assert not far.waits
        far.room.clear()
        far.says.put(b"d")
        await asyncio.to_thread(until, lambda: far.waits > 0)
        far.says.put(b"e")
        await asyncio.sleep(0.1)
        far.room.set()
        far.says.put(b"f")
        far.says.put_eof()
        await serving
    assert far.written == b"ABCDEF"
    assert far.closed


async def test_a_broker_that_comes_late_is_waited_for(settings: Broker) -> None:
    asking = asyncio.create_task(exchanged(RemoteBroker(settings), b"hello"))
    await asyncio.sleep(0.7)
    async with listening(settings):
        assert await asking == b"HELLO"


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        (b"POST /anthropic/v1/messages HTTP/1.1\r\n", b'{"type": "error"'),
        (b"POST /openai/v1/responses HTTP/1.1\r\n", b'"code": "sshgate"'),
        (b"POST /gemini/v1/models/x:countTokens HTTP/1.1\r\n", b'"status": "UNAVAILABLE"'),
        (b"hello", b'{"type": "error"'),
    ],
)
async def test_without_a_broker_the_answer_is_one_that_agents_try_again(
    settings: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: bytes, form: bytes
) -> None:
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.2)
    broker = RemoteBroker(settings)
    for _ in range(2):
        answer = await exchanged(broker, asked)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"x-should-retry: true" in answer
        assert form in answer.partition(b"\r\n\r\n")[2]
    assert "".join(capsys.readouterr()).count("broker.unreachable") == 1
    assert await exchanged(broker, b"") == b""


async def test_another_secret_opens_nothing(settings: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.2)
    (tmp_path / "other").write_bytes(b"x" * 40)
    async with listening(settings) as echo:
        assert await exchanged(RemoteBroker(replace(settings, secret=tmp_path / "other")), b"hello") != b"HELLO"
    assert echo.served == []


STRANGERS = [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x05abcde", b"\xff" * 50, b"\0\0\0\x40" + b"x" * 64]


@pytest.mark.parametrize("data", STRANGERS)
async def test_a_stranger_is_cut_and_gets_nowhere(settings: Broker, data: bytes) -> None:
    async with listening(settings) as echo:
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.listen.port if settings.listen else 0)
        await reader.readexactly(len(remote.HELLO) + remote.CHALLENGE)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
    assert echo.served == []


def test_a_preamble_is_good_for_one_challenge_and_shows_nothing(settings: Broker) -> None:
    key = read_secret(settings.secret)
    sealed = seal(key, b"1" * 16, CALLER, KEYS)[4:]
    assert unseal(key, b"1" * 16, sealed) == (CALLER, KEYS)
    assert b"dev" not in sealed
    assert b"sk-brought" not in sealed
    for challenge, text in ((b"2" * 16, sealed), (b"1" * 16, sealed[:-1] + b"x"), (b"1" * 16, sealed[:10])):
        with pytest.raises(ValueError, match="not by a gateway"):
            unseal(key, challenge, text)


def test_a_short_secret_is_refused(settings: Broker) -> None:
    settings.secret.write_bytes(b"short\n")
    with pytest.raises(ConfigError, match="fewer than 32 bytes"):
        RemoteBroker(settings)


async def test_with_a_certificate_all_is_tls_and_no_other_broker_is_trusted(
    settings: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 1.0)
    assert settings.listen is not None
    named = replace(settings, listen=replace(settings.listen, host="localhost"))
    certificate, private = tmp_path / "ca.pem", tmp_path / "ca.key"
    authority(tmp_path, ["localhost"])
    secured = replace(named, certificate=certificate, private_key=private)
    gateway = replace(named, certificate=tmp_path / "known.pem")
    shutil.copy(certificate, tmp_path / "known.pem")
    (tmp_path / "other").mkdir()
    stranger, _ = authority(tmp_path / "other", ["localhost"])

    async def asked(settings: Broker) -> bytes:
        near, far = socket.socketpair()
        serving = asyncio.create_task(
            RemoteBroker(settings).serve(SocketStream(*await asyncio.open_connection(sock=far, limit=LIMIT)), CALLER)
        )
        reader, writer = await asyncio.open_connection(sock=near)
        writer.write(b"hello" * 50_000)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while len(answer) < 250_000 and (data := await reader.read(65536)):
                answer += data
        writer.close()
        await serving
        return answer

    async with listening(secured) as echo:
        port = settings.listen.port
        with monkeypatch.context() as bounds:
            bounds.setattr(remote, "MOST_UNPROVEN", 2)
            bounds.setattr(remote, "PREAMBLE_SECONDS", 60.0)
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            async with asyncio.timeout(10):
                assert await silent[2][0].read() == b""  # a handshake takes a place
            for _, writer in silent:
                writer.close()
        assert await asked(gateway) == b"HELLO" * 50_000
        for other in (named, replace(named, certificate=stranger), replace(gateway, listen=settings.listen)):
            assert await asked(other) != b"HELLO" * 50_000
    assert len(echo.served) == 1
    with pytest.raises(ConfigError, match=r"broker\.certificate"):
        BrokerListener(replace(secured, private_key=tmp_path / "other" / "ca.key"), echo)
