"""Addresses of terminals: what one leads to, what it asks first; and the page as an app of its own."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.conftest import Enter
from tests.browser.test_login import NOT_LOGGED_IN
from tests.rig.browser import PATIENCE, Door, Tab, Visitor
from tests.rig.waiting import until

SHOWN = "() => sshgate.shown?.id ?? null"
COUNT = "() => fetch('api/sessions').then((found) => found.json()).then(({sessions}) => sessions.length)"


def _wait_for(tab: Tab, wanted: str) -> None:
    tab.page.wait_for_url(f"{tab.address}{wanted}")


def _come(tab: Tab, address: str) -> None:
    """A page that is loaded, as from a bookmark."""
    tab.page.goto("about:blank")
    tab.page.goto(f"{tab.address}{address}")
    tab.page.locator("#welcome:visible, .panel:visible").first.wait_for()


def test_a_terminal_has_an_address_that_leads_to_it(door: Door, visitors: Callable[..., Visitor]) -> None:
    """Typed, loaded, left running, or opened before the login; "back" leaves the page, and a ticket never stays."""
    visitor = visitors(door)
    tab = visitor.tab().open(door.link()).new_session().prompt()
    one = tab.page.evaluate(SHOWN)
    _wait_for(tab, f"#/s/{one}")
    length = tab.page.evaluate("() => history.length")
    tab.new_session(profile="default", name="work").prompt()
    _wait_for(tab, "#/n/work")
    assert tab.page.evaluate("() => history.length") == length
    two = tab.page.evaluate(SHOWN)

    tab.page.evaluate("(hash) => (location.hash = hash)", f"#/s/{one}")
    until(lambda: tab.page.evaluate(SHOWN) == one, PATIENCE, "the first one")
    _come(tab, "#/n/work")
    until(lambda: tab.page.evaluate(SHOWN) == two, PATIENCE, "the one of that sandbox, not that shown last")
    tab.wait_state("connected")
    tab.page.click("#home")
    _wait_for(tab, "")

    _come(tab, f"#/s/{one}")
    tab.wait_state("connected")
    tab.page.keyboard.press("Control+Shift+E")
    tab.page.keyboard.press("Delete")
    tab.page.get_by_role("button", name="Leave it running").click()
    until(lambda: tab.page.evaluate(SHOWN) == two, PATIENCE, "the other one")
    _come(tab, f"#/s/{one}")
    until(lambda: tab.page.evaluate(SHOWN) == one, PATIENCE, "a tab for what was left running")

    tab.page.evaluate("(hash) => (location.hash = hash)", door.link().split("/")[-1])
    _wait_for(tab, f"#/s/{one}")
    tab.wait_state("connected")

    tab.page.close()
    visitor.context.clear_cookies()
    waiting = visitor.tab(NOT_LOGGED_IN)
    waiting.page.goto(f"{door.address}#/n/work")
    waiting.page.locator("#login:visible").wait_for()
    visitor.tab().open(door.link()).page.close()
    until(lambda: waiting.page.evaluate("() => globalThis.sshgate?.shown?.id ?? null") == two, PATIENCE, "its place")
    waiting.wait_state("connected")


def test_an_address_makes_nothing_by_itself(door: Door, enter: Enter) -> None:
    """It fills the dialog, which one may leave; what it says beyond profile and name counts for nothing."""
    tab = enter(door)
    shown = f"#/s/{tab.page.evaluate(SHOWN)}"
    _come(tab, "#/new?profile=other&name=two&command=id")
    for address, name, profile in (("", "two", "other"), ("#/n/three", "three", "other"), ("#/new", "", "other")):
        if address:
            tab.page.evaluate("(hash) => (location.hash = hash)", address)
        tab.page.locator("#new-dialog[open]").wait_for()
        assert tab.page.input_value("#new-name") == name
        assert tab.page.input_value("#new-profile") == profile
        tab.page.keyboard.press("Escape")
        _wait_for(tab, shown)
        assert tab.page.evaluate(COUNT) == 1
    tab.wait_state("connected").run("echo still''here", "stillhere")
    tab.page.evaluate("() => (location.hash = '#/s/none')")
    tab.notice("has ended, or is another user's")
    tab.page.evaluate("() => (location.hash = '#/new?profile=none&name=four')")
    tab.notice("a profile that you do not have")
    tab.page.locator("#new-dialog[open]").wait_for()
    tab.page.click("#new-dialog .primary")
    tab.page.locator("#tabs .tab").nth(1).wait_for()
    tab.wait_state("connected")
    _wait_for(tab, "#/n/four")


def test_the_page_can_be_installed(door: Door, visitors: Callable[..., Visitor]) -> None:
    """What Chromium finds missing or wrong in the manifest, and that its parts are there."""
    tab = visitors(door).tab().open(door.link())
    browser = tab.page.context.new_cdp_session(tab.page)
    found = browser.send("Page.getAppManifest")
    assert found["errors"] == []
    assert found["url"] == f"{door.address}site.webmanifest"
    errors = browser.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [one["errorId"] for one in errors if one["errorId"] != "in-incognito"] == []
    for part in ("icons/192.png", "icons/512.png", "icons/maskable.png"):
        assert tab.page.request.get(f"{door.address}{part}").ok
