"""The gateway is replaced while a page is open: its login holds, and a named sandbox is joined again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import Tab, address, browser, link, section


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
async def test_a_page_joins_its_named_sandbox_at_the_next_gateway(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    gate = gateway("kubernetes", web=section())
    user = user_at(gate)
    async with browser(address(gate)) as page:
        await page.login(link(user))
        made = await page.new(name="work")
        tab = Tab(page, made["id"])
        await tab.open(made["ticket"])
        await tab.type(b"echo before >note; echo do''ne\n")
        await tab.see(b"done\r\n")
        os.kill(gate.pid, signal.SIGTERM)
        await tab.until(lambda: tab.messages("drain"), "the drain")
        assert await tab.closed() == 1012
        await asyncio.to_thread(gate.stop)
        await asyncio.to_thread(gate.start)
        assert (await page.ask("POST", f"api/sessions/{made['id']}/ticket"))[0] == 404
        again = await page.new(profile=made["profile"], name=made["name"])
        tab = Tab(page, again["id"])
        await tab.open(again["ticket"])
        await tab.type(b"cat note\n")
        await tab.see(b"before\r\n")
        await page.ask("DELETE", f"api/sessions/{again['id']}")
        assert (await asyncio.to_thread(user.as_user("dev=work").run, "end", options=("-s",))).status == 0
