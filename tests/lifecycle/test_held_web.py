"""A page with a held session while its gateway is killed and while the API server is away: no byte lost or doubled."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lifecycle.conftest import MakeReplica, UserAt
from tests.rig.balancer import Balancer
from tests.rig.cluster import Namespace
from tests.rig.gateway import nothing_left
from tests.rig.waiting import until
from tests.rig.web import Browser, Tab, address, browser, link, section

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

HELD = {"default": {"hold": "named"}}
COUNT = b"for i in $(seq 1 400); do echo n-$i-; sleep 0.02; done; echo ov''er\n"
EVERY = [str(number) for number in range(1, 401)]


async def shell(page: Browser) -> tuple[Tab, dict[str, Any]]:
    """A tab of a new session, and what it is held as."""
    made = await page.new(name="work")
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.until(lambda: tab.messages("state"), "a running program")
    held: dict[str, Any] = tab.messages("state")[-1]["held"]
    assert held is not None
    return tab, held


def counted(tab: Tab) -> list[str]:
    """The numbers that were shown, without what was typed."""
    return re.findall(r"n-(\d+)-\r\n", tab.text.decode())


async def test_the_page_goes_on_at_another_gateway_after_its_own_was_killed(
    space: Namespace, replica: MakeReplica, user: UserAt
) -> None:
    one, two = replica(profiles=HELD, web=section()), replica(profiles=HELD, web=section())
    there = user("dev", two)
    async with browser(address(one)) as first, browser(address(two)) as second:
        await first.login(await asyncio.to_thread(link, user("dev", one)))
        await second.login(await asyncio.to_thread(link, there))
        tab, held = await shell(first)
        await tab.type(COUNT)
        await tab.see(b"n-50-\r\n")
        nothing_left(one.kill())
        began = time.monotonic()
        await tab.closed()
        status, made = await second.ask(
            "POST", "api/sessions", {"name": "work", "session": held["name"], "held": held["id"]}
        )
        assert status == 201, made
        tab.browser, tab.session = second, made["id"]
        await tab.open(made["ticket"])
        assert tab.hello["start"] == "resume"
        shown = tab.received
        await tab.until(lambda: tab.received > shown, "more output")
        took = time.monotonic() - began
        await tab.see(b"over\r\n")
        assert counted(tab) == EVERY
        assert took < 15
        await tab.type(b"exit 6\n")
        assert await tab.closed() == 1000
        assert tab.messages("exit")[0]["code"] == 6
    assert (await asyncio.to_thread(there.as_user("dev=work").run, "end", options=("-s",))).status == 0
    await asyncio.to_thread(until, lambda: not space.living(), 30, "the end of it")


async def test_the_page_stays_while_the_api_server_is_away(
    space: Namespace, replica: MakeReplica, user: UserAt, tmp_path: Path
) -> None:
    with Balancer.before_server(space.gateway, tmp_path) as (proxy, place):
        made = replica(
            profiles=HELD, web=section(), sandbox={"provider": "kubernetes", "namespace": space.name, **place}
        )
        dev = user("dev", made)
        async with browser(address(made)) as page:
            await page.login(await asyncio.to_thread(link, dev))
            tab, _ = await shell(page)
            await tab.type(COUNT.rstrip() + b'; read line; echo "typed: $line"; exit 4\n')
            await tab.see(b"n-20-\r\n")
            proxy.cut()
            await tab.until(lambda: tab.messages("notice") and tab.messages("notice")[-1]["text"], "a notice")
            assert "your program runs on, connecting again" in tab.messages("notice")[-1]["text"]
            await tab.type(b"during the outage\n")
            await asyncio.sleep(5)
            proxy.mend()
            await tab.see(b"typed: during the outage\r\n", 60)
            assert await tab.closed() == 1000
            assert tab.messages("notice")[-1]["text"] == ""
            assert tab.messages("exit")[0]["code"] == 4
            assert len(tab.messages("hello")) == 1
            assert counted(tab) == EVERY
        assert (await asyncio.to_thread(dev.as_user("dev=work").run, "end", options=("-s",))).status == 0
        await asyncio.to_thread(until, lambda: not space.living(), 30, "the end of it")
