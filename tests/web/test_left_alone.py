"""What nobody comes back to. Each test waits long: all wait at once, each at a gateway of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway, nothing_left
from tests.rig.processes import descendants
from tests.rig.ssh import Ssh
from tests.rig.web import Browser, address, browser, eventually, link, section, shell

pytestmark = [pytest.mark.local, pytest.mark.slow]

Shown = Callable[[Gateway, Ssh], Coroutine[Any, Any, None]]


async def _without_sessions(page: Browser) -> bool:
    return bool((await page.ask("GET", "api/sessions"))[1] == {"sessions": []})


async def a_session_that_nobody_comes_back_to_ends_with_its_sandbox(gate: Gateway, user: Ssh) -> None:
    async with browser(address(gate)) as page:
        await page.login(link(user))
        tab = await shell(page)
        below = descendants(gate.pid)
        await tab.leave()
        await asyncio.to_thread(nothing_left, below, 40)
        await eventually(lambda: _without_sessions(page))


async def a_session_that_no_socket_comes_for_ends_as_well(gate: Gateway, user: Ssh) -> None:
    async with browser(address(gate)) as page:
        await page.login(link(user))
        await page.new()
        await eventually(lambda: _without_sessions(page), 60)
        await asyncio.to_thread(nothing_left, descendants(gate.pid))


async def a_socket_that_answers_no_ping_is_let_go_and_its_session_stays(gate: Gateway, user: Ssh) -> None:
    async with browser(address(gate)) as page:
        await page.login(link(user))
        made = await page.new()
        dead = await page.http.ws_connect(
            page.url + "/terminal", protocols=("sshgate.v1",), headers={"Origin": page.origin}, autoping=False
        )
        attach = {"session": made["id"], "ticket": made["ticket"], "tab": "dead", "cols": 80, "rows": 24}
        await dead.send_json({"type": "attach", **attach})

        async def let_go() -> bool:
            return not (await page.ask("GET", f"api/sessions/{made['id']}"))[1]["attached"]

        async with asyncio.timeout(20):
            while (await dead.receive()).type is not aiohttp.WSMsgType.BINARY:
                pass
        assert not await let_go()
        await eventually(let_go, 60)
        await dead.close()


async def what_runs_keeps_a_session_that_nobody_is_attached_to(gate: Gateway, user: Ssh) -> None:
    """An agent goes on without its page, until the longest lifetime; a shell that waits for somebody does not."""
    async with browser(address(gate)) as page:
        await page.login(link(user))
        idle, running = await shell(page), await shell(page)
        await running.type(b"for i in 1 2 3 4 5 6 7 8 9; do sleep 3; done; echo do''ne\n")
        await idle.leave()
        await running.leave()

        async def gone() -> bool:
            _, answer = await page.ask("GET", "api/sessions")
            states = {one["id"]: one["state"] for one in answer["sessions"]}
            assert states.get(running.session) == "running"
            return states.get(idle.session) in (None, "ended")

        await eventually(gone, 25)
        await running.open(await page.ticket(running.session))
        await running.see(b"done\r\n", 40)


async def half_a_request_does_not_hold_its_place(gate: Gateway, _: Ssh) -> None:
    host, port = address(gate).removeprefix("http://").split(":")

    async def asked(half: str) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(half.encode())
        async with asyncio.timeout(40):
            answer = await reader.read()
        writer.close()
        return answer

    head = "POST /api/login HTTP/1.1\r\nHost: x\r\n"
    more = f"Origin: {address(gate)}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    in_the_head, in_the_body = await asyncio.gather(asked(head), asked(head + more))
    assert b"200" not in in_the_head
    assert in_the_body.split()[1] == b"408"


# With the seconds after which a session that nobody is at may end.
ALL: dict[Shown, str] = {
    a_session_that_nobody_comes_back_to_ends_with_its_sandbox: "8s",
    a_session_that_no_socket_comes_for_ends_as_well: "8s",
    a_socket_that_answers_no_ping_is_let_go_and_its_session_stays: "8s",
    what_runs_keeps_a_session_that_nobody_is_attached_to: "1s",
    half_a_request_does_not_hold_its_place: "8s",
}


@pytest.fixture(scope="module")
def shown(
    local: None, make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> Iterator[dict[Shown, Future[None]]]:
    """What comes of each."""
    gates = {
        one: make_gateway("local", web=section(), profiles={"default": {"limits": {"detached": detached}}})
        for one, detached in ALL.items()
    }
    with ThreadPoolExecutor(len(ALL)) as at_once:
        yield {
            one: at_once.submit(lambda one, gate: asyncio.run(one(gate, user_at(gate))), one, gate)
            for one, gate in gates.items()
        }


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.__name__)
def test_in_time(one: Shown, shown: dict[Shown, Future[None]]) -> None:
    shown[one].result()
