"""A thousand idle sockets on one gateway, each at a session of its own, in a few named sandboxes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import Browser, Tab, address, browser, link, section

# Scaled down on small machines by SSHGATE_TEST_SOCKETS; a shell of its own is what each of them costs.
MANY = int(os.environ.get("SSHGATE_TEST_SOCKETS", "1000"))
AT_ONCE = 20
# A sandbox may not have any number of processes.
EACH = 200
KIB = 1024


@pytest.mark.slow
@pytest.mark.local
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("local")
async def test_a_thousand_idle_sockets_are_served_and_cost_little(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    gate = gateway(
        "local", web=section(sessions_per_user=MANY + 10), limits={"connections_per_source": 60},
        profiles={"default": {"shell": "/bin/sh", "hold": "never"}},
    )  # fmt: skip
    async with browser(address(gate)) as page:
        user = user_at(gate)
        await page.login(link(user))
        page.http.connector._limit = 0  # type: ignore[union-attr]  # every socket holds a connection
        first = await _idle(page)
        before = gate.memory
        tabs = []
        for start in range(0, MANY, AT_ONCE):
            tabs += await asyncio.gather(*(_idle(page, start // EACH) for _ in range(AT_ONCE)))
        gone = [(tab.code, bytes(tab.text), tab.frames[-2:]) for tab in tabs if tab.code is not None]
        assert not gone, f"{len(gone)} of them ended: {gone[:3]}"
        each = (gate.memory - before) / len(tabs) / KIB
        print(f"{len(tabs)} idle sockets: {each:.0f} KiB each in the gateway")
        assert each < 400
        for tab in (first, tabs[0], tabs[-1]):
            await tab.type(b"echo st''ill\n")
            await tab.see(b"still\r\n")
        assert len((await page.ask("GET", "api/sessions"))[1]["sessions"]) == MANY + 1
        # Some of them all at once, as an operator would; hanging up each takes a program in the sandbox for each.
        ended = await asyncio.to_thread(user.as_user("dev=many0").run, "end", options=("-s",))
        assert ended.status == 0, ended.both
        for tab in tabs[:EACH]:
            assert await tab.closed() == 1000
        # The rest runs on: the gateway must end in time with them as well.
        await asyncio.to_thread(gate.stop)


async def _idle(page: Browser, sandbox: int = 0) -> Tab:
    made = await page.new(name=f"many{sandbox}")
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.until(lambda: tab.received, "a prompt", 120)
    return tab
