"""``GET api/events``: the list of sessions, at once and after each change; its ends and its limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import LIMIT, Browser, Tab, address, browser, link, section
from webshim.sessionevents import STREAMS_PER_USER


class Stream:
    """An open one."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.sessions: list[dict[str, Any]] = []

    async def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Read events until the list is so."""
        async with asyncio.timeout(LIMIT):
            while not holds(self.sessions):
                line = await self._answer.content.readline()
                assert line, f"the stream has ended with {self.sessions}"
                if line.startswith(b"data: "):
                    self.sessions = json.loads(line[6:])["sessions"]

    async def ended(self) -> None:
        """Read to the end."""
        async with asyncio.timeout(LIMIT):
            await self._answer.content.read()


@asynccontextmanager
async def _following(page: Browser) -> AsyncIterator[Stream]:
    async with page.http.get(f"{page.url}/api/events", timeout=aiohttp.ClientTimeout(total=None)) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Stream(answer)


async def test_each_change_of_a_session_is_an_event(page: Browser) -> None:
    async with _following(page) as stream:
        await stream.until(lambda sessions: True)
        made = await page.new()

        def mine(sessions: list[dict[str, Any]]) -> dict[str, Any]:
            return next((one for one in sessions if one["id"] == made["id"]), {})

        await stream.until(lambda sessions: mine(sessions).get("state") in ("starting", "running"))
        tab = Tab(page, made["id"])
        await tab.open(made["ticket"])
        await stream.until(lambda sessions: mine(sessions).get("attached") is True)
        await tab.send("title", text="a title")
        await stream.until(lambda sessions: mine(sessions).get("title") == "a title")
        await stream.until(lambda sessions: mine(sessions).get("state") == "running")
        await tab.type(b"sleep 1; printf '\\033]9;%s\\007' green; exec sleep 1000\n")
        await tab.leave()
        await stream.until(lambda sessions: mine(sessions).get("attached") is False)
        await stream.until(lambda sessions: (mine(sessions).get("attention") or {}).get("text") == "green")
        again = Tab(page, made["id"])
        await again.open()
        assert again.hello["attention"]["text"] == "green"
        await stream.until(lambda sessions: mine(sessions)["attention"] is None)
        await again.leave()
        await page.ask("DELETE", f"api/sessions/{made['id']}")
        await stream.until(lambda sessions: not mine(sessions))


async def _opened(page: Browser) -> aiohttp.ClientResponse:
    """One more; the gateway takes a moment to notice that others were closed."""
    async with asyncio.timeout(LIMIT):
        while (answer := await page.http.get(f"{page.url}/api/events")).status != 200:
            answer.close()
            await asyncio.sleep(0.1)
    return answer


async def test_a_user_has_so_many_streams_and_one_that_left_makes_room(page: Browser) -> None:
    page.http.connector._limit = page.http.connector._limit_per_host = 0  # type: ignore[union-attr]
    streams = [await _opened(page) for _ in range(STREAMS_PER_USER)]
    status, answer = await page.ask("GET", "api/events")
    assert (status, answer["error"]["code"]) == (429, "limit")
    streams.pop().close()
    streams.append(await _opened(page))
    for one in streams:
        one.close()


async def test_a_stream_ends_with_its_login_and_without_one_there_is_none(page: Browser, web_user: Ssh) -> None:
    async with browser(page.url) as stranger:
        status, _ = await stranger.ask("GET", "api/events")
        assert status == 401
        await stranger.login(link(web_user))
        async with _following(stranger) as stream:
            await stream.until(lambda sessions: True)
            await stranger.ask("POST", "api/logout")
            await stream.ended()


async def test_a_gateway_that_drains_ends_the_streams(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    gate = gateway("local", web=section())
    async with browser(address(gate)) as fresh:
        await fresh.login(link(user_at(gate)))
        async with _following(fresh) as stream:
            await stream.until(lambda sessions: True)
            assert gate.process is not None
            gate.process.terminate()
            await stream.ended()
