"""The page's states, one after the other, as a person sees them: pictures, axe-core and the console at each.

``scripts/page --accept`` takes what this draws for right, ``scripts/page --screenshots`` for webshim/README.md too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Route

from tests.browser.conftest import end_sessions, web
from tests.browser.test_hands import PHONE
from tests.browser.test_touch import Fingers
from tests.conftest import MakeGateway
from tests.rig.browser import PATIENCE, Door, Tab, Visitor
from tests.rig.gateway import Gateway
from tests.rig.looks import THEMES, Looks, compare, shoot
from tests.rig.relay import Relay
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

STATIC = Path(__file__).parents[2] / "webshim/static"
STILL = {"reduced_motion": "reduce"}
TABLET = {**PHONE, **STILL, "viewport": {"width": 820, "height": 1100}}
# Both themes come by the system's wish, and no transition is under way.
SIGHT = (
    r"PS1='\[\e[32m\]you@sandbox\[\e[0m\]:\[\e[34m\]\W\[\e[0m\]\$ '; cd /tmp; clear; printf '%s\n' "
    r"'total 3' $'drwxr-xr-x 2 you you  120 \e[34mdocs\e[0m' $'-rwxr-xr-x 1 you you 4096 \e[32mbuild\e[0m' "
    r"'-rw-r--r-- 1 you you  812 README_FIRST.md' '┌────────────┬───────┐' '│ host_name  │ state │' "
    r"'├────────────┼───────┤' '│ web_1      │ up    │' '└────────────┴───────┘'"
)
PROJECT = (
    "mkdir -p /tmp/made/src; cd /tmp/made; echo '# Made here' >README.md; head -c 4096 /dev/zero >data.bin; "
    "touch -d '2024-05-06 12:00' *; clear"
)
ASK = """(id) => {
  const page = document.querySelector('link[rel=modulepreload][href*=page]').href;
  void import(page).then(({modules}) => modules['dialogs.js']().asked(id));
}"""
NOTICE = """() => {
  const page = document.querySelector('link[rel=modulepreload][href*=page]').href;
  return import(page).then(({modules}) => {
    const {notify, complain} = modules['notices.js']();
    notify("A program wants to copy 14 characters to the clipboard.", {label: "Copy", act: () => {}});
    complain("notes.txt was not uploaded. The disk of the sandbox is full.");
  });
}"""


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    return Looks(tmp_path)


@pytest.mark.timeout(300)
def test_every_state_is_right_for_eye_hand_and_reader(
    local: None,
    gateway: MakeGateway,
    user_at: Callable[[Gateway], Ssh],
    visitors: Callable[..., Visitor],
    relay: tuple[Relay, int],
    looks: Looks,
) -> None:
    """On a desktop, a tablet and a phone; that the console stays empty, `visitors` sees to."""
    network, port = relay
    served = gateway(
        "local",
        web=web(port, public_url=f"http://127.0.0.1:{network.port}/", users_file="web.users"),
        profiles={"gpu": {"extends": "default", "description": "One GPU, 64 GB of memory."}},
    )
    (served.place / "web.users").touch()
    door = Door(served, f"http://127.0.0.1:{network.port}/", user_at(served))
    _desktop(door, visitors(door, **STILL), network, looks)
    _touched(door, visitors(door, **TABLET), visitors(door, **PHONE, **STILL), looks)
    looks.verify()


def _desktop(door: Door, visitor: Visitor, network: Relay, looks: Looks) -> None:
    # Before the login, and while the network is cut, requests fail, and the browser says so.
    tab = visitor.tab("Failed to load resource", "WebSocket").open()
    looks.at(tab, "login")
    tab.open(door.link())
    looks.at(tab, "home", THEMES)
    tab.page.click("#choose-session")
    looks.at(tab, "new-terminal")
    tab.page.get_by_role("button", name="Cancel").click()
    tab.new_session(profile="default", name="work").prompt()
    tab.type(f"{SIGHT}\n")
    tab.prompt()
    looks.at(tab, "terminal", THEMES)
    tab.search("you")
    tab.page.locator(".search .count", has_text="of").wait_for()
    looks.at(tab, "search")
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("Control+Shift+P")
    tab.page.locator("#palette[open] input:focus").wait_for()
    tab.type("new")
    tab.page.locator("#palette [aria-selected=true]", has_text="New").wait_for()
    looks.at(tab, "palette")
    tab.page.keyboard.press("Escape")
    tab.page.mouse.click(400, 300, button="right")
    tab.page.locator("#context:popover-open").wait_for()
    looks.at(tab, "menu", ("light",))
    tab.page.keyboard.press("Escape")
    _files(tab)
    looks.at(tab, "files")
    tab.page.keyboard.press("Escape")
    tab.type("cd ..; clear\n")
    tab.type(f"{SIGHT}\n")
    tab.prompt()
    tab.page.click("#menu-button")
    tab.page.locator("#settings[open] .sample .xterm-rows", has_text="README").wait_for()
    looks.at(tab, "settings", THEMES)
    tab.page.keyboard.press("Escape")
    for dialog in tab.page.evaluate("() => [...document.querySelectorAll('[id$=-dialog]')].map(({id}) => id)"):
        tab.page.evaluate(ASK, dialog)
        tab.page.locator(f"#{dialog}[open]").wait_for()
        looks.usable(tab, f"#{dialog}")
        tab.page.keyboard.press("Escape")
    tab.page.evaluate(NOTICE)
    tab.page.locator(".notice").last.hover()  # it stays then
    looks.at(tab, "notices")
    tab.page.evaluate("() => document.getElementById('notices').replaceChildren()")

    network.cut()
    tab.wait_state("reconnecting").says("Trying again")
    looks.at(tab, "reconnecting")
    network.mend()
    tab.page.evaluate("() => dispatchEvent(new Event('online'))")
    tab.wait_state("connected")

    other = visitor.tab().open()
    other.elsewhere()
    looks.at(other, "elsewhere", ("light",))
    other.page.close()

    tab.new_session(profile="default", name="").prompt()
    tab.page.keyboard.press("Control+Shift+E")
    tab.page.keyboard.press("Delete")
    tab.page.get_by_role("button", name="Leave it running").click()
    tab.page.locator("#home").click()
    tab.page.locator("#running:visible li").nth(1).wait_for()
    tab.page.locator("[aria-labelledby=sandboxes-title] li").wait_for()
    looks.at(tab, "running", ("light",))
    tab.page.locator("#tabs .tab button").first.click()
    tab.prompt().type("exit 3\n")
    tab.says("Ended with status 3.")
    looks.at(tab, "ended")
    end_sessions(visitor)


def _files(tab: Tab) -> None:
    tab.page.evaluate("() => (sshgate.shown.screen.terminal.clearSelection(), sshgate.shown.screen.focus())")
    tab.type(f"{PROJECT}\n")
    tab.prompt().page.evaluate("() => document.getElementById('files-button').click()")
    tab.page.locator("#files .entries li").nth(2).wait_for()
    tab.page.click("[data-name='README.md'] .entry")
    tab.page.locator(".preview pre").wait_for()
    tab.page.keyboard.press("Escape")


def _touched(door: Door, tablet: Visitor, phone: Visitor, looks: Looks) -> None:
    wide = tablet.tab().open(door.link()).new_session(profile="default", name="slate").prompt()
    wide.type(f"{SIGHT}\n")
    wide.prompt()
    looks.at(wide, "tablet", ("light",))
    end_sessions(tablet)
    small = phone.tab().open(door.link())
    small.page.locator(".running:visible li").nth(1).wait_for()
    looks.at(small, "phone-home", ("light",))
    small.new_session(profile="default", name="pocket").prompt()
    small.type(f"{SIGHT}\n")
    small.prompt()
    looks.at(small, "phone", THEMES)
    for button, name in (("#all-tabs", "phone-tabs"), ("#more-button", "phone-more")):
        small.page.tap(button)
        small.page.locator(".choices:popover-open, #palette[open]").wait_for()
        small.page.wait_for_timeout(1000)  # the browser's own mark of a tap fades
        looks.at(small, name)
        small.page.keyboard.press("Escape")
    Fingers(small).press(0.8)
    small.page.locator("#select-dialog[open]").wait_for()
    looks.at(small, "phone-select")
    small.page.keyboard.press("Escape")
    small.page.get_by_role("button", name="More keys").tap()
    looks.at(small, "phone-keys", ("light",))
    _files(small)
    looks.at(small, "phone-files", ("light",))


def test_a_moved_button_is_another_picture_and_smooth_edges_are_not(
    door: Door, visitors: Callable[..., Visitor]
) -> None:
    """The tolerance: fractions of a pixel change each edge of each letter; a button that moves changes few pixels."""
    tab = visitors(door, **STILL).tab()
    # What tests before have left would come into the picture, and have another age in the next one.
    for left in ("sandboxes", "held-sessions", "events"):
        tab.page.route(f"**/api/{left}", lambda route: None)
    tab.page.route("**/api/sessions", lambda route: route.fulfill(json={"sessions": []}))
    tab.open(door.link())

    def differs(style: str, element: str = "body") -> list[str]:
        tab.page.evaluate("([element, style]) => (document.querySelector(element).style = style)", [element, style])
        found = compare(tab.page, shoot(tab.page), accepted)[1]
        tab.page.evaluate("(element) => (document.querySelector(element).style = '')", element)
        return found

    accepted, _ = compare(tab.page, shoot(tab.page), None)
    assert differs("") == []
    assert differs("transform: translate(0.3px, 0.3px)") == []
    assert differs("transform: translateX(6px)", "#menu-button")
    assert differs("transform: translateY(4px)", "#first-session")
    assert differs("display: none", "#new-with")


def test_the_typeface_is_there_and_has_every_sign(door: Door, visitors: Callable[..., Visitor]) -> None:
    """What another typeface would have to draw has another width: letters, frames, blocks, and what the page writes."""
    tab = visitors(door).tab().open(door.link())
    written = "".join(file.read_text() for file in [*STATIC.glob("*.js"), STATIC / "index.html"])
    signs = {letter for letter in written if ord(letter) > 126} | {chr(code) for code in range(0x2500, 0x25A0)}
    others = tab.page.evaluate(
        """(signs) => ["serif", "monospace"].flatMap((other) => {
             const pen = document.createElement("canvas").getContext("2d");
             pen.font = `100px "JetBrains Mono", ${other}`;
             return signs.filter((sign) => Math.round(pen.measureText(sign).width) !== 60);
           })""",
        sorted(signs),
    )
    assert not others


def test_a_typeface_that_comes_late_is_measured(door: Door, visitors: Callable[..., Visitor]) -> None:
    tab = visitors(door).tab()
    held: list[Route] = []
    tab.page.route("**/fonts/*", lambda route: held.append(route))
    tab.page.goto(door.link(), wait_until="domcontentloaded")
    tab.page.locator("#welcome:visible").wait_for()
    tab.new_session()
    width = "({options, _core}) => _core._charSizeService.width / options.fontSize"
    width = f"() => ({width})(sshgate.shown.screen.terminal)"
    assert round(tab.page.evaluate(width), 3) != 0.6
    for route in held:
        route.continue_()
    until(lambda: round(tab.page.evaluate(width), 3) == 0.6, PATIENCE, "the measures of its own typeface")


def test_one_line_goes_through_the_bar(door: Door, visitors: Callable[..., Visitor]) -> None:
    """Brand, tabs, their signs and all icons have one centre, with a mouse and with a finger."""
    for options in ({}, TABLET):
        tab = visitors(door, **options).tab().open(door.link()).new_session()
        centres = _centres(tab)
        assert len(centres) > 8
        assert max(centres) - min(centres) <= 0.5, centres


def _centres(tab: Tab) -> list[float]:
    found: list[float] = tab.page.evaluate(
        """() => [...document.querySelectorAll("header :is(.icon, .dot, .label)")]
             .filter((one) => one.checkVisibility()).map((one) => one.getBoundingClientRect())
             .map(({top, height}) => top + height / 2)"""
    )
    return found
