"""The page's states, one after the other, as a person sees them.

``scripts/page --screenshots`` keeps what this draws in webshim/screenshots.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import web
from tests.browser.test_hands import PHONE
from tests.browser.test_touch import Fingers
from tests.conftest import MakeGateway
from tests.rig.browser import Door, Tab, Visitor
from tests.rig.gateway import Gateway, free_port
from tests.rig.relay import Relay
from tests.rig.ssh import Ssh

LARGEST = 150_000
SIGHT = (
    r"PS1='\[\e[32m\]you@sandbox\[\e[0m\]:\[\e[34m\]\W\[\e[0m\]\$ '; cd /tmp; mkdir -p src docs; touch README.md; "
    r"clear; ls -l --color=always --time-style=+ /etc/ | sed -n '2,11p'"
)


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[Tab, str], None]:
    """Takes a picture; where to is said by SSHGATE_SCREENSHOTS."""
    place = Path(os.environ.get("SSHGATE_SCREENSHOTS", tmp_path))

    def keep(tab: Tab, name: str) -> None:
        file = place / f"{name}.png"
        tab.page.screenshot(path=file, animations="disabled", caret="initial")
        assert file.stat().st_size < LARGEST, f"{name} is too large for the README"

    return keep


def test_every_state_is_shown_and_leads_on(
    local: None,
    gateway: MakeGateway,
    user_at: Callable[[Gateway], Ssh],
    visitors: Callable[..., Visitor],
    keep: Callable[[Tab, str], None],
    relay: tuple[Relay, int],
) -> None:
    """Login, welcome, running, search, menu, dialog, ended, lost network, another tab, phone."""
    network, port = relay
    served = gateway(
        "local",
        web=web(port, public_url=f"http://127.0.0.1:{network.port}/", users_file="web.users"),
        profiles={"gpu": {"extends": "default"}},
    )
    (served.place / "web.users").touch()
    door = Door(served, f"http://127.0.0.1:{network.port}/", user_at(served))
    visitor = visitors(door)
    # Before the login, and while the network is cut, requests fail, and the browser says so.
    tab = visitor.tab("Failed to load resource", "WebSocket").open()
    keep(tab, "login")
    tab.open(door.link())
    keep(tab, "welcome")
    tab.new_session(profile="default", name="work").prompt()
    tab.type(f"{SIGHT}\n")
    tab.prompt()
    keep(tab, "terminal")
    tab.page.keyboard.press("Control+Shift+F")
    tab.type("host")
    tab.page.locator(".search .count", has_text="of").wait_for()
    keep(tab, "search")
    tab.page.keyboard.press("Escape")
    tab.page.click("#new-with")
    keep(tab, "new-session")
    tab.page.get_by_role("button", name="Cancel").click()

    network.cut()
    tab.wait_state("reconnecting").says("Trying again")
    keep(tab, "reconnecting")
    network.mend()
    tab.wait_state("connected").run("echo again", "again")

    other = visitor.tab().open()
    other.says("open in another tab")
    keep(other, "elsewhere")
    other.page.close()

    tab.page.click("#menu-button")
    tab.page.select_option("#theme", "light")
    keep(tab, "settings-light")
    tab.page.keyboard.press("Escape")
    keep(tab, "terminal-light")
    tab.page.locator(".panel:visible .xterm").click()
    tab.prompt().type("exit 3\n")
    tab.says("Ended with status 3.")
    keep(tab, "ended")

    phone = visitors(door, **PHONE).tab().open(door.link())
    phone.new_session(profile="default", name="pocket").prompt()
    phone.type(f"{SIGHT.replace('2,11p', '2,6p')}\n")
    phone.prompt()
    keep(phone, "phone")
    phone.page.tap("#all-tabs")
    keep(phone, "phone-tabs")
    phone.page.keyboard.press("Escape")
    Fingers(phone).press(0.8)
    phone.page.locator("#select-dialog[open]").wait_for()
    keep(phone, "phone-select")
    phone.page.keyboard.press("Escape")
    phone.page.evaluate("() => document.getElementById('menu').showPopover()")
    phone.page.select_option("#theme", "light")
    phone.page.keyboard.press("Escape")
    phone.page.get_by_role("button", name="More keys").tap()
    keep(phone, "phone-light")


def test_output_survives_a_lost_network_exactly_once(
    local: None,
    gateway: MakeGateway,
    user_at: Callable[[Gateway], Ssh],
    visitors: Callable[..., Visitor],
    relay: tuple[Relay, int],
) -> None:
    """The program goes on while nobody looks; what it printed stands there once, in its order."""
    network, port = relay
    served = gateway("local", web=web(port, public_url=f"http://127.0.0.1:{network.port}/"))
    door = Door(served, f"http://127.0.0.1:{network.port}/", user_at(served))
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
