"""A page that reads slowly, or not at all: the gateway's memory stays, the program waits, Ctrl-C is heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import Browser, Tab, address, browser, eventually, link, section

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

MIB = 1 << 20
# What the allocator and one ring may add.
SLACK = 16 * MIB


@pytest.fixture(scope="module")
def gate(make_gateway: MakeGateway) -> Gateway:
    """A gateway whose memory nobody else uses."""
    return make_gateway("local", web=section())


@pytest.fixture
async def tab(gate: Gateway, user_at: Callable[[Gateway], Ssh]) -> AsyncIterator[Tab]:
    async with browser(address(gate)) as page:
        await page.login(link(user_at(gate)))
        yield await _shell(page)
        for session in (await page.ask("GET", "api/sessions"))[1]["sessions"]:
            await page.ask("DELETE", f"api/sessions/{session['id']}")


async def _shell(page: Browser) -> Tab:
    made = await page.new()
    found = Tab(page, made["id"])
    await found.open(made["ticket"])
    await found.type(b"PS1='$ '; stty -echo; echo rea''dy\n")
    await found.see(b"ready\r\n")
    return found


async def test_a_flood_keeps_memory_flat_and_ctrl_c_answers(tab: Tab, gate: Gateway) -> None:
    before = gate.memory
    await tab.type(b"yes sshgate\n")
    ends = time.monotonic() + 4
    most = 0
    while time.monotonic() < ends:
        await tab.until(lambda: len(tab.text) > MIB, "more output")
        tab.text.clear()
        most = max(most, gate.memory)
    await tab.type(b"\x03echo qu''iet\n")
    await tab.see(b"quiet\r\n")
    assert tab.received > 8 * MIB
    assert most < before + SLACK, f"{most - before} bytes more"


async def test_a_tab_that_acknowledges_nothing_stops_the_program(tab: Tab, gate: Gateway) -> None:
    before = gate.memory
    tab.acking = False
    # One program: bash goes on with a loop when Ctrl-C comes just as the loop's child has ended.
    await tab.type(b"yes sshgate\n")
    await tab.until(lambda: tab.received >= 500_000, "a window full")
    await asyncio.sleep(1)
    at = tab.received
    await asyncio.sleep(1)
    assert tab.received == at
    assert at - tab.acked <= 512 * 1024
    assert gate.memory < before + SLACK
    tab.acking = True
    await tab.send("ack", offset=tab.offset)
    await tab.until(lambda: tab.received > at + 4 * MIB, "output going on")
    await tab.type(b"\x03echo qu''iet\n")
    await tab.see(b"quiet\r\n")


async def test_a_socket_that_is_not_read_costs_no_memory(tab: Tab, gate: Gateway) -> None:
    before = gate.memory
    assert tab.socket is not None
    transport = tab.socket._response.connection.transport  # type: ignore[union-attr]
    assert transport is not None
    await tab.type(b"yes sshgate\n")
    await tab.until(lambda: tab.received > MIB, "the flood")
    transport.pause_reading()
    await asyncio.sleep(2)
    assert gate.memory < before + SLACK
    transport.resume_reading()
    await tab.type(b"\x03echo qu''iet\n")
    await tab.see(b"quiet\r\n")


async def test_input_that_no_program_reads_is_bounded_and_does_not_hold_up_the_rest(tab: Tab, gate: Gateway) -> None:
    before = gate.memory
    await tab.type(b"stty raw; while :; do echo tick; sleep 0.2; done\n")
    await tab.see(b"tick")
    for _ in range(8):
        await tab.type(b"x" * 32_768)
    await tab.send("ping", id="through")
    await tab.until(lambda: tab.messages("pong"), "an answer although nothing is read")
    for _ in range(64):
        await tab.type(b"x" * 32_768)
    assert await tab.closed() == 1008
    assert tab.messages("error")[-1]["code"] == "input"
    assert gate.memory < before + SLACK


async def test_input_that_is_read_is_acknowledged(tab: Tab) -> None:
    await tab.type(b"stty raw; head -c 300000 | wc -c; stty sane -echo\n")
    await asyncio.sleep(0.5)
    for _ in range(10):
        await tab.type(b"x" * 30_000)
    await tab.see(b"300000")
    await tab.until(lambda: tab.messages("taken") and tab.messages("taken")[-1]["offset"] > 260_000, "taken")


async def test_detached_output_goes_on_and_memory_stays(tab: Tab, gate: Gateway) -> None:
    before = gate.memory
    await tab.type(b"yes sshgate | head -c 8000000; echo do''ne\n")
    await tab.until(lambda: tab.received > MIB, "the flood")
    await tab.leave()

    async def quiet() -> bool:
        # Nobody acknowledges anything, and yet it comes to its end.
        last = Tab(tab.browser, tab.session)
        last.acking = False
        await last.open()
        end = last.hello["until"]
        await last.leave()
        await asyncio.sleep(0.5)
        await last.open()
        await last.leave()
        return bool(last.hello["until"] == end and end > 8_000_000)

    await eventually(quiet)
    last = Tab(tab.browser, tab.session)
    await last.open()
    await last.see(b"done\r\n")
    assert gate.memory < before + SLACK
