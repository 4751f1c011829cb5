"""Several terminals of one sandbox in one tab: split, moved, left, closed, and as they were after a reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.test_addresses import COUNT
from tests.browser.test_hands import PHONE
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.looks import Looks
from tests.rig.waiting import until

# What each terminal in sight has of the tab, in its order, in twentieths: left, top, width, height.
PLACES = """() => {
  const whole = document.getElementById("panels").getBoundingClientRect();
  return [...document.querySelectorAll(".pane")].filter((one) => one.checkVisibility()).map((one) => {
    const {left, top, width, height} = one.getBoundingClientRect();
    const share = (part, of) => Math.round((part / of) * 20);
    return [share(left - whole.left, whole.width), share(top - whole.top, whole.height),
            share(width, whole.width), share(height, whole.height)];
  });
}"""
LEFT, UPPER, LOWER = [0, 0, 10, 20], [10, 0, 10, 10], [10, 10, 10, 10]


def _split(tab: Tab, key: str) -> None:
    before = tab.page.evaluate("() => sshgate.sessions.size")
    tab.page.keyboard.press(key)
    tab.page.wait_for_function("(count) => sshgate.sessions.size === count", arg=before + 1)
    tab.page.locator(".pane.focused .panel[data-state=connected]").wait_for()
    tab.prompt()


def _places(tab: Tab, *wanted: list[int]) -> None:
    until(lambda: tab.page.evaluate(PLACES) == list(wanted), PATIENCE, f"{wanted}, not {tab.page.evaluate(PLACES)}")


def _here(tab: Tab, mark: str) -> None:
    """The keys go to the terminal that was marked so."""
    tab.run(f"echo here=$mark; true {mark}", f"here={mark}")


def _marks(tab: Tab, mark: str) -> None:
    tab.run(f"mark={mark}; echo marked-$mark", f"marked-{mark}")


def _drag(tab: Tab, divider: Any, x: float) -> None:
    box = divider.bounding_box()
    tab.page.mouse.move(box["x"] + 1, box["y"] + 40)
    tab.page.mouse.down()
    tab.page.mouse.move(x, box["y"] + 60, steps=3)
    tab.page.mouse.up()


def test_terminals_of_one_sandbox_share_a_tab(door: Door, enter: Enter, tmp_path: Path) -> None:
    """By keys and by buttons; each has its size, its focus, its end; the others do not notice."""
    tab = enter(door)
    keyboard = tab.page.keyboard
    tab.run("touch /tmp/shared; mark=left; echo rea''dy", "ready")
    _split(tab, "Control+Shift+D")
    tab.run("ls /tmp/shared", "/tmp/shared")
    _marks(tab, "upper")
    tab.wait_for_size()
    _split(tab, "Control+Shift+O")
    _marks(tab, "lower")
    assert tab.sessions() == ["connected"]
    assert tab.page.evaluate(COUNT) == 3
    _places(tab, LEFT, UPPER, LOWER)

    for key, mark in (("ArrowUp", "upper"), ("ArrowLeft", "left"), ("ArrowRight", "upper"), ("ArrowDown", "lower")):
        keyboard.press(f"Alt+Shift+{key}")
        _here(tab, mark)
    keyboard.press("Control+Shift+Z")
    _places(tab, [0, 0, 20, 20])
    tab.wait_for_size()
    keyboard.press("Control+Shift+Z")

    divider = tab.page.locator(".divider.across")
    divider.focus()
    for _ in range(4):
        keyboard.press("ArrowRight")
    _places(tab, [0, 0, 14, 20], [14, 0, 6, 10], [14, 10, 6, 10])
    _drag(tab, divider, 1100 * 0.4)
    places = [0, 0, 8, 20], [8, 0, 12, 10], [8, 10, 12, 10]
    _places(tab, *places)
    _here(tab, "lower")
    looks = Looks(tmp_path)
    looks.usable(tab, "#panels")
    looks.verify()

    tab.page.reload()
    tab.page.locator(".pane.focused .panel[data-state=connected]").wait_for()
    _places(tab, *places)
    _here(tab, "lower")
    tab.page.locator(".pane").nth(1).locator(".xterm-screen").click()
    _here(tab, "upper")
    tab.page.locator(".pane.focused").get_by_role("button", name="Close this terminal").click()
    tab.page.get_by_role("button", name="End it").click()
    _places(tab, [0, 0, 8, 20], [8, 0, 12, 20])
    _here(tab, "lower")
    tab.type("exit\n")
    tab.page.locator(".pane.focused .panel[data-state=ended]").wait_for()
    keyboard.press("Control+Shift+Backspace")
    _places(tab, [0, 0, 20, 20])
    assert tab.page.locator(".pane-bar:visible").count() == 0
    _here(tab, "left")


def _pull(tab: Tab, label: str, across: float, down: float) -> None:
    """The tab of this label to a place in the panels, in parts of them, without letting it go."""
    box = tab.page.locator("#panels").bounding_box()
    assert box
    mouse = tab.page.mouse
    tab.page.locator("#tabs .tab", has_text=label).hover()
    mouse.down()
    mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down, steps=6)


def _command(tab: Tab, words: str, tabs: int) -> None:
    """By the palette; so many tabs there are then."""
    tab.page.keyboard.press("Control+Shift+P")
    tab.page.locator("#palette[open] input:focus").wait_for()
    tab.type(f"{words}\n")
    until(lambda: len(tab.sessions()) == tabs, PATIENCE, f"{tabs} tabs")


def test_a_tab_is_dragged_onto_a_terminal_and_leaves_it_again(door: Door, enter: Enter) -> None:
    """To the side that the pointer is nearest to; what was dragged runs on, and comes back there after a reload."""
    tab = enter(door)
    _marks(tab, "work")
    tab.new_session(profile="default", name="guest")
    _marks(tab, "guest")
    tab.page.locator("#tabs .tab").first.click()
    _here(tab, "work")
    drop = tab.page.locator(".drop:visible")
    _pull(tab, "guest", 0.1, 0.5)
    until(lambda: drop.count() == 1, PATIENCE, "the place that it would have")
    expect(drop).to_have_text("To the left of this terminal")
    tab.page.keyboard.press("Escape")
    tab.page.mouse.up()
    assert drop.count() == 0
    assert len(tab.sessions()) == 2
    tab.page.locator("#tabs .tab").first.click()
    _pull(tab, "guest", 0.5, 0.9)
    expect(drop).to_have_text("To the bottom of this terminal")
    tab.page.mouse.up()
    _places(tab, [0, 0, 20, 10], [0, 10, 20, 10])
    assert len(tab.sessions()) == 1
    _here(tab, "guest")
    tab.wait_for_size()
    tab.page.reload()
    tab.page.locator(".pane.focused .panel[data-state=connected]").wait_for()
    _places(tab, [0, 0, 20, 10], [0, 10, 20, 10])
    _here(tab, "guest")
    _command(tab, "own", tabs=2)
    _here(tab, "guest")
    tab.page.locator("#tabs .tab").first.click()
    _here(tab, "work")
    _command(tab, "beside guest", tabs=1)
    _places(tab, [0, 0, 10, 20], [10, 0, 10, 20])
    _here(tab, "guest")
    _command(tab, "own", tabs=2)
    tab.page.locator("#tabs .tab").first.click()
    _pull(tab, "guest", 0.1, 0.5)
    expect(drop).to_have_text("To the left of this terminal")
    tab.page.mouse.up()
    # In the order of the Tab key.
    _places(tab, [0, 0, 10, 20], [10, 0, 10, 20])
    tab.page.keyboard.press("Alt+Shift+ArrowRight")
    _here(tab, "work")


def test_on_a_phone_the_terminals_of_a_tab_are_shown_one_at_a_time(door: Door, enter: Enter) -> None:
    """Begun from the list behind one button; a tab is closed with all that is in it, after one question."""
    tab = enter(door, **{**PHONE, "viewport": {"width": 320, "height": 640}})
    _marks(tab, "one")
    tab.page.tap("#more-button")
    tab.page.get_by_role("option", name="Another terminal").first.tap()
    tab.page.wait_for_function("() => sshgate.sessions.size === 2")
    tab.page.locator(".pane.focused .panel[data-state=connected]").wait_for()
    _marks(tab, "two")
    assert tab.page.locator(".pane:visible").count() == 1
    tab.page.get_by_role("button", name="Next terminal").tap()
    _here(tab, "one")
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") == 320
    tab.page.tap("#all-tabs")
    tab.page.locator("#tab-list li button").last.tap()
    tab.page.locator("#close-title", has_text="End these 2 terminals?").wait_for()
    tab.page.get_by_role("button", name="End it").tap()
    tab.page.locator("#welcome:visible").wait_for()
    until(lambda: tab.page.evaluate(COUNT) == 0, PATIENCE, "their ends")
