"""What a sandbox says of a transfer is not believed, and it is not waited for without an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

import webshim.files
from sshgate.stream.interfaces import STDOUT, Exited
from sshgate.stream.tasks import Event
from webshim.files import _Change, _Download, _Listing, _query, _Transfer, _Upload
from webshim.responses import Refusal

NONSENSE = [b"nonsense\n", b"-5\n", b"9" * 30 + b"\n", b"\xb2\n", b"\n", b"n" * 100_000]


@pytest.mark.parametrize("output", NONSENSE)
async def test_a_download_whose_size_is_nonsense_is_refused_and_ends(output: bytes) -> None:
    download = _Download(make_mocked_request("GET", "/"), "file")
    for start in range(0, len(output), 1000):
        await download.write(STDOUT, output[start : start + 1000])
    await download.wait_closed()
    assert len(download._head) < 2000
    with pytest.raises(Refusal) as refused:
        await download.completed()
    assert (refused.value.status, refused.value.code) == (502, "sandbox")


@pytest.mark.parametrize("output", NONSENSE)
async def test_an_upload_whose_size_is_nonsense_is_refused(output: bytes) -> None:
    upload = _Upload(make_mocked_request("PUT", "/"), 1000)
    await upload.write(STDOUT, output)
    await upload.finish(Exited(0))
    with pytest.raises(Refusal) as refused:
        upload.completed()
    assert (refused.value.status, refused.value.code) == (502, "sandbox")


TRANSFERS: list[Callable[[web.Request], _Transfer]] = [
    lambda request: _Download(request, "file"), _Listing, lambda request: _Upload(request, 1000), _Change
]  # fmt: skip
IDS = ["download", "list", "upload", "change"]


def _request(lost: Event) -> web.Request:
    request: web.Request = make_mocked_request("GET", "/")
    request._protocol = SimpleNamespace(lost=lost)  # type: ignore[assignment]
    return request


@pytest.mark.parametrize("transfer", TRANSFERS, ids=IDS)
async def test_a_transfer_whose_script_never_ends_is_given_up(
    transfer: Callable[[web.Request], _Transfer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webshim.files, "STALLED_SECONDS", 0.01)
    monkeypatch.setattr(webshim.files, "LIST_SECONDS", 0.01)
    given_up = transfer(_request(Event()))
    async with asyncio.timeout(5):
        await asyncio.gather(given_up.give_up(), given_up.wait_closed())
    with pytest.raises(Refusal) as refused:
        given_up._check()
    assert (refused.value.status, refused.value.code) == (502, "sandbox")


@pytest.mark.parametrize("transfer", TRANSFERS, ids=IDS)
async def test_a_transfer_ends_with_its_connection(transfer: Callable[[web.Request], _Transfer]) -> None:
    lost = Event()
    left = transfer(_request(lost))
    giving_up = asyncio.create_task(left.give_up())
    lost.set()
    async with asyncio.timeout(5):
        await asyncio.gather(giving_up, left.wait_closed())


async def test_a_browser_may_pause_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is not the sandbox's delay."""
    monkeypatch.setattr(webshim.files, "STALLED_SECONDS", 0.01)
    download = _Download(_request(Event()), "file")
    with download._browsers_turn():
        giving_up = asyncio.create_task(download.give_up())
        await asyncio.sleep(0.1)
        assert not giving_up.done()
    async with asyncio.timeout(5):
        await giving_up


async def test_a_change_that_never_ends_is_given_up_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webshim.files, "STALLED_SECONDS", 0.1)
    change = _Change(_request(Event()))

    async def talk() -> None:
        while not change._gone.is_set():
            await change.write(STDOUT, b"x" * 1000)
            await asyncio.sleep(0.001)

    async with asyncio.timeout(5):
        await asyncio.gather(change.give_up(), talk())
    with pytest.raises(Refusal, match="in time"):
        change.completed()


@pytest.mark.parametrize("query", ["path=%FF", "path=\udcff", "path=one&\udcff=1"])
def test_a_query_that_is_no_text_is_refused(query: str) -> None:
    """Also where aiohttp has no parser in C, which refuses such bytes that are not quoted."""
    request = make_mocked_request("DELETE", "/").clone(rel_url=URL(f"/?{query}", encoded=True))
    with pytest.raises(Refusal, match="no text"):
        _query(request)
