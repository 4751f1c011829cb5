"""What keys do: Escape in dialogs, the page's own keys, Option on a Mac."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.rig.browser import PATIENCE, Door, Tab, Visitor
from tests.rig.waiting import until

MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0"
ALT, CONTROL, SHIFT = 1, 2, 8


def test_escape_changes_nothing_in_any_dialog(door: Door, enter: Enter) -> None:
    """Chromium empties a dialog's answer on Escape; no question may take that for a yes."""
    tab = enter(door)
    dialogs = tab.page.evaluate("() => [...document.querySelectorAll('dialog')].map(({id}) => id)")
    assert len(dialogs) >= 5
    for dialog in dialogs:
        tab.page.evaluate(
            """(id) => {
              const page = document.querySelector('link[rel=modulepreload][href*=page]').href;
              globalThis.answer = import(page).then(({modules}) => modules['dialogs.js']().asked(id));
            }""",
            dialog,
        )
        tab.page.locator(f"#{dialog}[open]").wait_for()
        tab.page.keyboard.press("Escape")
        assert tab.page.evaluate("() => globalThis.answer") == "cancel", dialog
    tab.page.keyboard.press("Control+Shift+E")
    tab.page.keyboard.press("Delete")
    tab.page.locator("#close-dialog[open]").wait_for()
    tab.page.keyboard.press("Escape")
    tab.page.locator("#close-dialog[open]").wait_for(state="detached")
    assert tab.sessions() == ["connected"]
    tab.run("echo still", "still")


def test_the_pages_keys_work_outside_the_terminal(door: Door, enter: Enter) -> None:
    """With the focus on a button of the header: search, and a new session."""
    tab = enter(door)
    tab.page.focus("#menu-button")
    tab.page.keyboard.press("Control+Shift+F")
    tab.page.locator(".search input:focus").wait_for()
    tab.page.keyboard.press("Escape")
    tab.page.focus("#menu-button")
    tab.page.keyboard.press("Control+Shift+Enter")
    tab.page.locator("#tabs .tab").nth(1).wait_for()
    tab.wait_state("connected")
    tab.page.focus("#menu-button")
    tab.page.keyboard.press("Control+Shift+BracketLeft")
    tab.page.locator("#tabs .tab").nth(0).locator("[aria-selected=true]").wait_for()


def _option_l(tab: Tab, location: int) -> None:
    """The key of a German Mac that types @."""
    keyboard = tab.page.context.new_cdp_session(tab.page)
    side = {"code": "AltLeft" if location == 1 else "AltRight", "location": location}
    keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Alt", "windowsVirtualKeyCode": 18, **side})
    pressed = {"key": "@", "code": "KeyL", "modifiers": ALT, "windowsVirtualKeyCode": 76}
    keyboard.send("Input.dispatchKeyEvent", {"type": "keyDown", "text": "@", "unmodifiedText": "l", **pressed})
    keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", **pressed})
    keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": "Alt", "windowsVirtualKeyCode": 18, **side})


def _press(tab: Tab, key: str, code: str, modifiers: int) -> None:
    """A key of a layout on which it does not type what it does on an American one."""
    keyboard = tab.page.context.new_cdp_session(tab.page)
    for kind in ("rawKeyDown", "keyUp"):
        keyboard.send("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": code, "modifiers": modifiers})


def test_a_key_of_the_page_is_the_one_with_its_letter(door: Door, enter: Enter) -> None:
    """French: Z stands where W is. Dvorak: C stands where I is. Greek has no Latin letters: their places count."""
    tab = enter(door, permissions=["clipboard-read", "clipboard-write"])
    tab.page.keyboard.press("Control+Shift+D")
    tab.page.wait_for_function("() => sshgate.sessions.size === 2")
    tab.page.locator(".pane.focused .panel[data-state=connected]").wait_for()
    panes = tab.page.locator(".pane:visible")
    for key, code, seen in (("W", "KeyZ", 2), ("Z", "KeyW", 1), ("Ω", "KeyZ", 2)):
        _press(tab, key, code, CONTROL | SHIFT)
        assert panes.count() == seen, key
    tab.run("clear; echo select''ed", "selected")
    tab.page.evaluate("() => sshgate.shown.screen.terminal.selectLines(0, 0)")
    _press(tab, "C", "KeyI", CONTROL | SHIFT)
    until(lambda: tab.page.evaluate("() => navigator.clipboard.readText()").strip() == "selected", PATIENCE, "a copy")
    _press(tab, "Π", "KeyP", CONTROL | SHIFT)
    tab.page.locator("#palette[open] input:focus").wait_for()


def test_a_key_of_the_page_is_the_one_with_its_bracket(door: Door, enter: Enter) -> None:
    """Dvorak: . stands where E is, + where ] is, [ where - is. German: * stands where ] is. Arabic: [ where F is."""
    tab = enter(door)
    tab.page.keyboard.press("Control+Shift+Enter")
    tab.page.locator("#tabs .tab").nth(1).wait_for()
    tab.wait_state("connected")
    selected = tab.page.locator("#tabs [role=tab]")
    for key, code, at in ((">", "KeyE", 1), ("+", "BracketRight", 1), ("{", "Minus", 0), ("*", "BracketRight", 1)):
        _press(tab, key, code, CONTROL | SHIFT)
        expect(selected.nth(at)).to_have_attribute("aria-selected", "true")
        assert tab.page.evaluate("() => document.activeElement.matches('textarea')"), key
    # Bépo has letters where brackets are; these keys every layout has.
    for key, at in (("PageUp", 0), ("PageDown", 1)):
        tab.page.keyboard.press(f"Control+Shift+{key}")
        expect(selected.nth(at)).to_have_attribute("aria-selected", "true")
    _press(tab, "[", "KeyF", CONTROL | SHIFT)
    tab.page.locator(".search input:focus").wait_for()


@pytest.mark.parametrize(("option", "typed"), [(None, "@@"), ("left", "^[l@"), ("both", "^[l^[l")])
def test_option_types_letters_on_a_mac_unless_it_is_chosen_as_meta(
    option: str | None, typed: str, door: Door, enter: Enter
) -> None:
    """Left, then right: half of Europe's keyboards have @ [ ] { } | behind Option."""
    tab = enter(door, user_agent=MAC)
    # Where xterm.js looks; ours reads the user agent.
    tab.page.add_init_script("Object.defineProperty(navigator, 'platform', {get: () => 'MacIntel'})")
    if option is not None:
        tab.page.click("#menu-button")
        tab.page.check(f"[name=option][value={option}]")
    tab.page.reload()
    tab.wait_state("connected").run("clear; echo cat''ted; cat -v", "catted")
    for location in (1, 2):
        _option_l(tab, location)
    tab.type("\n")
    until(lambda: tab.lines()[-1] == typed, PATIENCE, typed)


def test_a_whole_visit_by_keyboard_alone(door: Door, visitors: Callable[..., Visitor]) -> None:
    """A named terminal, its search, leaving it, opening it again from home, ending it, another theme, logging out."""
    tab = visitors(door).tab("401").open(door.link())
    keyboard = tab.page.keyboard

    def go(wanted: str, key: str = "Tab", most: int = 30) -> None:
        for _ in range(most):
            if tab.page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
                return
            keyboard.press(key)
        raise AssertionError(f"{wanted} is not reached by {key}")

    go("#choose-session")
    keyboard.press("Enter")
    go("#new-name")
    tab.type("byhand\n")
    tab.wait_state("connected").run("echo here", "here")
    tab.search("here")
    tab.page.locator(".search .count", has_text="of").wait_for()
    go(".search [aria-label^=Close]")
    keyboard.press("Enter")
    keyboard.press("Control+Shift+E")
    keyboard.press("Delete")
    go("[value=leave]")
    keyboard.press("Enter")
    tab.page.locator("#running:visible li").wait_for()
    go("#running-list button")
    keyboard.press("Enter")
    tab.wait_state("connected").wait_line("here")
    keyboard.press("Control+Shift+E")
    go("#menu-button")
    keyboard.press("Enter")
    go("[name=theme]")
    keyboard.press("ArrowRight")
    tab.page.locator("html[data-theme=light]").wait_for()
    keyboard.press("Escape")
    keyboard.press("Control+Shift+E")
    keyboard.press("Delete")
    go("[value=end]")
    keyboard.press("Enter")
    tab.page.locator("#welcome:visible").wait_for()
    go("#menu-button", "Shift+Tab")
    keyboard.press("Enter")
    go("#logout")
    keyboard.press("Enter")
    tab.page.locator("#login:visible").wait_for()
    go("#login-copy")
