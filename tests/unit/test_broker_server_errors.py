"""What the sandbox gets of a provider's errors, and what its requests leave behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshgate.telemetry.codes import Code
from tests.rig.broker import HI, KEY, sandbox
from tests.rig.messages import FakeApi, fake_api


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


@pytest.mark.parametrize("status", [401, 403])
async def test_what_a_provider_says_of_a_key_stays_outside(api: FakeApi, tmp_path: Path, status: int) -> None:
    api.denied = status
    async with sandbox(api, tmp_path) as one:
        found, answer, _ = await one.post("/anthropic/v1/messages")
    assert (found, KEY in answer.decode()) == (status, False)
    assert b"does not accept the key of your operator" in answer
    assert KEY in str(api.received)


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_an_error_that_repeats_the_key_passes_without_it(api: FakeApi, tmp_path: Path, status: int) -> None:
    api.denied = status
    async with sandbox(api, tmp_path) as one:
        found, answer, headers = await one.post("/anthropic/v1/messages")
    assert (found, KEY in answer.decode() + str(headers)) == (status, False)
    assert b"('x-api-key', '***')" in answer
    assert json.loads(answer)
    (event,) = [record for record in one.records if record.code is Code.MODEL_REQUEST]
    assert (event.fields["status"], event.fields["bytes_out"]) == (status, len(answer))


async def begin_an_error(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 500 Broken\r\nContent-Length: 99\r\n\r\nyour key is " + KEY[:-1].encode())
    await reader.read()
    writer.close()


async def test_an_error_that_never_ends_does_not_hold_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sshgate.broker.sockets.ERROR_SECONDS", 0.2)

    server = await asyncio.start_server(begin_an_error, "127.0.0.1", 0)
    async with server, sandbox(FakeApi(port=server.sockets[0].getsockname()[1]), tmp_path) as one:
        status, answer, _ = await asyncio.wait_for(one.post("/anthropic/v1/messages"), 10)
    assert status == 500
    assert answer == b"your key is"
    (event,) = [record for record in one.records if record.code is Code.MODEL_REQUEST]
    assert (event.fields["bytes_out"], event.fields["whole"]) == (len(answer), False)


async def test_an_error_whose_reader_leaves_is_reported(tmp_path: Path) -> None:
    server = await asyncio.start_server(begin_an_error, "127.0.0.1", 0)
    async with server, sandbox(FakeApi(port=server.sockets[0].getsockname()[1]), tmp_path) as one:
        _, writer = await one.connect()
        body = json.dumps(HI).encode()
        head = f"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await asyncio.sleep(0.3)
        writer.close()
        async with asyncio.timeout(8):  # before the error is given up
            while not any(record.code is Code.MODEL_REQUEST for record in one.records):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_no_models_name_keeps_what_others_cost_from_being_written_down(api: FakeApi, tmp_path: Path) -> None:
    async with sandbox(api, tmp_path) as one:
        await one.post("/anthropic/v1/messages", HI | {"model": "claude-\ud800"})
        await one.post("/anthropic/v1/messages")
        await one.accounts.flush()
        assert "1 users, 0 to be written" in repr(one.accounts)


async def test_a_redirect_is_not_followed(api: FakeApi, tmp_path: Path) -> None:
    api.redirect = f"{api.url}/elsewhere"
    async with sandbox(api, tmp_path) as one:
        status, _, headers = await one.post("/anthropic/v1/messages")
    assert status == 502
    assert "Location" not in headers
    assert len(api.received) == 1


async def test_a_provider_that_is_not_there_is_an_error_that_names_no_address(tmp_path: Path) -> None:
    async with sandbox(FakeApi(port=1), tmp_path) as one:
        status, answer, _ = await one.post("/anthropic/v1/messages")
    assert status == 502
    assert b"127.0.0.1" not in answer


async def test_a_long_request_beyond_the_connections_of_a_sandbox_gets_its_answer(api: FakeApi, tmp_path: Path) -> None:
    """A client that still writes when the connection is closed takes that for the end, and reads no answer."""
    async with sandbox(api, tmp_path) as one:
        held = [await one.connect() for _ in range(5)]
        await asyncio.sleep(0.05)
        reader, writer = await one.connect()
        writer.write(
            b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000)
        )
        await writer.drain()
        assert b"too many connections" in await asyncio.wait_for(reader.read(), 10)
        for _, other in [*held, (reader, writer)]:
            other.close()
