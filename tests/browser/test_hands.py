"""The page for a thumb, for the keyboard alone, and for a screen reader."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.conftest import Enter
from tests.rig.browser import PATIENCE, Door, Visitor
from tests.rig.waiting import until

PHONE = {"viewport": {"width": 390, "height": 800}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


def test_a_phone_has_the_keys_that_it_lacks(door: Door, enter: Enter) -> None:
    """Everything fits; Ctrl holds for one key, arrows move, Esc and Tab are sent; a tap keeps the focus."""
    tab = enter(door, **PHONE)
    width = tab.page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] == width[1], "the page scrolls sideways"

    def key(name: str) -> None:
        tab.page.get_by_role("button", name=name, exact=True).tap()

    tab.type("sleep 1000\n")
    key("Ctrl")
    tab.type("c")
    tab.wait_line("^C", 10)
    tab.run("echo first", "first")
    tab.prompt()
    key("Up")
    until(lambda: tab.lines()[-1].endswith("echo first"), PATIENCE, "the line before")
    tab.type("s\n")
    tab.wait_line("firsts")
    tab.prompt().type("cd /us")
    key("Tab")
    until(lambda: tab.lines()[-1].endswith("cd /usr/"), PATIENCE, "a completed name")


def test_a_phone_turned_around_is_another_size(door: Door, enter: Enter) -> None:
    """The viewport changes, the program is told."""
    tab = enter(door, **PHONE)
    before = tab.size()
    tab.page.set_viewport_size({"width": 800, "height": 390})
    until(lambda: tab.size() != before, PATIENCE, "another size")
    tab.wait_for_size()


def test_everything_is_reached_by_keyboard(door: Door, visitors: Callable[..., Visitor]) -> None:
    """From the first button into the terminal, out of it, along the tabs and the tools, and into the menu."""
    tab = visitors(door).tab().open(door.link())

    def focused() -> str:
        return str(tab.page.evaluate("() => document.activeElement.id || document.activeElement.className"))

    assert focused() == "first-session"
    tab.page.keyboard.press("Enter")
    tab.wait_state("connected").prompt()
    assert "xterm" in focused()
    tab.page.keyboard.press("Control+Shift+E")
    assert focused().startswith("tab-layout")
    seen = []
    for _ in range(10):
        tab.page.keyboard.press("Tab")
        seen.append(focused())
    assert seen == [
        "new-session",
        "new-with",
        "search",
        "right",
        "below",
        "upload",
        "download",
        "files-button",
        "menu-button",
        "more-button",
    ]
    tab.page.keyboard.press("Shift+Tab")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#settings[open]").wait_for()
    while focused() != "fontsize-smaller":
        tab.page.keyboard.press("Tab")
    before = tab.size()
    tab.page.keyboard.press("Enter")
    until(lambda: tab.size() != before, PATIENCE, "a smaller font")
    tab.page.keyboard.press("Escape")
    tab.page.reload()
    tab.wait_state("connected")
    size = "() => sshgate.shown.screen.terminal.options.fontSize"
    until(lambda: tab.page.evaluate(size) == 13, PATIENCE, "the font that was chosen")


def test_names_and_roles_are_there_for_a_screen_reader(door: Door, enter: Enter) -> None:
    """The tabs, the tools and the states have names; in screen reader mode the output is text."""
    tab = enter(door)
    tree = tab.page.locator("body").aria_snapshot()
    for wanted in ('tablist "Terminals"', 'button "New terminal"', 'button "Settings"', 'button "Search"'):
        assert wanted in tree, tree
    tab.page.evaluate("() => localStorage.setItem('sshgate.settings', JSON.stringify({screenReader: true}))")
    tab.page.reload()
    tab.wait_state("connected").run("echo spoken", "spoken")
    tab.page.locator(".panel:visible .xterm-accessibility", has_text="spoken").wait_for(state="attached")
