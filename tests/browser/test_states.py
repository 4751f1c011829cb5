"""What the page does when the network, the gateway or a limit is in the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.browser.conftest import web
from tests.conftest import MakeGateway
from tests.rig.browser import Door, Visitor
from tests.rig.gateway import Gateway, free_port
from tests.rig.relay import Relay
from tests.rig.ssh import Ssh


def test_output_survives_a_lost_network_exactly_once(
    visitors: Callable[..., Visitor], behind: tuple[Relay, Door]
) -> None:
    """The program goes on while nobody looks; what it printed stands there once, in its order."""
    network, door = behind
    tab = visitors(door).tab("Failed to load resource", "WebSocket").open(door.link()).new_session().prompt()
    tab.type("clear; for i in $(seq 400); do echo line $i; sleep 0.02; done; echo DO''NE\n")
    tab.wait_line("line 40")
    for _ in range(2):
        network.cut()
        tab.wait_state("reconnecting")
        network.mend()
        tab.wait_state("connected")
    tab.wait_line("DONE", 60)
    output = [line for line in tab.lines() if line.startswith("line ")]
    assert output == [f"line {number}" for number in range(1, 401)]


def test_a_silent_network_is_noticed_by_typing(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor]
) -> None:
    """A gateway that answers nothing, with its connections open: words, then another try; lost keys are reported."""
    port = free_port()
    served = gateway("local", web=web(port))
    door = Door(served, f"http://127.0.0.1:{port}/", user_at(served))
    tab = visitors(door).tab("Failed to load resource", "WebSocket").open(door.link()).new_session().prompt()
    os.kill(served.pid, signal.SIGSTOP)
    try:
        tab.type("x")
        tab.says("No answer from the gateway")
        tab.wait_state("reconnecting")
        tab.type("y")
        tab.says("keys are not sent")
    finally:
        os.kill(served.pid, signal.SIGCONT)
    tab.wait_state("connected")
    tab.page.keyboard.press("Control+C")
    tab.run("echo again", "again")


def test_a_refusal_is_a_sentence_with_a_way_on(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor]
) -> None:
    """One session more than a user may have: the page says why, and tries again when asked."""
    port = free_port()
    served = gateway("local", web=web(port, sessions_per_user=1))
    door = Door(served, f"http://127.0.0.1:{port}/", user_at(served))
    tab = visitors(door).tab("429").open(door.link()).new_session().prompt()
    tab.page.keyboard.press("Control+Shift+Enter")
    tab.wait_state("failed")
    assert "session" in (tab.page.locator(".panel:visible .state .text").text_content() or "")
    tab.page.keyboard.press("Control+Shift+BracketLeft")
    tab.wait_state("connected").type("exit\n")
    tab.wait_state("ended").press("Close")
    tab.wait_state("failed").press("Try again")
    tab.wait_state("connected").run("echo on", "on")


BLOCKED = """for (const area of ["sessionStorage", "localStorage"]) {
  Object.defineProperty(globalThis, area, {get: () => { throw new DOMException("blocked", "SecurityError"); }});
}"""
FULL = 'Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };'


@pytest.mark.parametrize("storage", [BLOCKED, FULL], ids=["blocked", "full"])
def test_a_browser_that_keeps_nothing_has_a_whole_page(
    storage: str, door: Door, visitors: Callable[..., Visitor]
) -> None:
    """What is left running gets no tab again, and a setting holds, as long as the page is there; a reload works."""
    tab = visitors(door).tab()
    tab.page.add_init_script(storage)
    tab.open(door.link()).new_session().prompt()
    tab.page.locator("#tabs [role=tab]").press("Delete")
    tab.page.get_by_role("button", name="Leave it running").click()
    row = tab.page.locator("#running").get_by_text("Open", exact=True)
    row.wait_for()
    with tab.page.expect_response("**/api/sessions"):
        tab.page.evaluate("() => dispatchEvent(new Event('focus'))")
    assert tab.sessions() == []
    row.click()
    tab.wait_state("connected")
    tab.page.click("#menu-button")
    tab.page.check("[name=theme][value=light]")
    tab.page.locator("html[data-theme=light]").wait_for(state="attached")
    tab.page.reload()
    tab.wait_state("connected").run("echo ag''ain", "again")
