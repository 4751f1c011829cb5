"""What can be done by a name: the palette, the menu of a terminal, marks of commands, the settings."""

from __future__ import annotations

from tests.browser.conftest import Enter
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.waiting import until


def _find(tab: Tab, letters: str, wanted: str) -> None:
    """Open the palette, type, and run what is found first."""
    tab.page.keyboard.press("Control+Shift+P")
    tab.page.locator("#palette[open] input:focus").wait_for()
    tab.type(letters)
    chosen = tab.page.locator("#palette [aria-selected=true]")
    until(lambda: chosen.text_content() == wanted, PATIENCE, f"{wanted!r}, not {chosen.text_content()!r}")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#palette[open]").wait_for(state="detached")


def test_the_palette_has_all_actions_tabs_and_profiles(door: Door, enter: Enter) -> None:
    """A few letters find what is of use now, with its key; Enter does it, Escape does nothing."""
    tab = enter(door)
    _find(tab, "term oth", "New terminal: other")
    tab.page.locator("#tabs .tab").nth(1).wait_for()
    tab.wait_state("connected").prompt()
    assert tab.page.evaluate("() => sshgate.shown.profile") == "other"
    _find(tab, "go", "Go to default")
    until(lambda: tab.page.evaluate("() => sshgate.shown.profile") == "default", PATIENCE, "the first tab")
    _find(tab, "search", "SearchCtrl+Shift+F")
    tab.page.locator(".panel:visible .search input:focus").wait_for()
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("Control+Shift+P")
    tab.page.locator("#palette[open] input:focus").wait_for()
    names = tab.page.locator("#palette [role=option] .label").all_text_contents()
    assert len(names) == len(set(names)) > 12
    assert "Copy" not in names, "nothing is selected"
    tab.page.keyboard.press("ArrowUp")
    assert tab.page.locator("#palette [role=option]").last.get_attribute("aria-selected") == "true"
    tab.type("no such thing")
    tab.page.locator("#palette", has_text="There is no such command.").wait_for()
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Escape")
    tab.run("echo on", "on")


def test_what_is_selected_while_a_search_is_open_stays(door: Door, enter: Enter) -> None:
    """The search does not select its match again after each output, while the person works in the terminal."""
    tab = enter(door)
    selected = "() => sshgate.shown.screen.terminal.getSelection()"
    tab.run("echo need''le", "needle")
    tab.search("needle")
    until(lambda: tab.page.evaluate(selected) == "needle", PATIENCE, "the match")
    tab.page.locator(".panel:visible .xterm").click(position={"x": 300, "y": 300})
    tab.run("echo mine", "mine")
    tab.page.evaluate("() => sshgate.shown.screen.terminal.select(0, 0, 3)")
    mine = tab.page.evaluate(selected)
    tab.page.evaluate("() => new Promise((go) => sshgate.shown.screen.write('more\\r\\n', () => setTimeout(go, 400)))")
    assert tab.page.evaluate(selected) == mine
    tab.page.locator(".panel:visible .search input").focus()
    tab.page.locator(".search .count", has_text="of").wait_for()
    tab.page.get_by_role("button", name="Whole words").focus()
    tab.page.keyboard.press("Escape")
    assert tab.page.locator(".search:visible").count() == 0
    # The terminal grew by the bar's row, and xterm.js draws what was selected last again after each change of size.
    for width in (1000, 1100):
        tab.page.set_viewport_size({"width": width, "height": 680})
        tab.page.evaluate("() => new Promise((drawn) => setTimeout(() => requestAnimationFrame(drawn), 200))")
        assert tab.page.evaluate(selected) == ""
        assert tab.page.locator(".panel:visible .xterm-selection > *").count() == 0


SHELL = r"""PS1='\[\e]133;A\a\]\$ '; PS0='\e]133;C\a'; PROMPT_COMMAND='printf "\e]133;D;$?\a"'"""


def test_prompts_that_a_shell_marks_are_ways(door: Door, enter: Enter) -> None:
    """Ctrl+Shift with an arrow goes from prompt to prompt, the last output is copied whole, also after a reload."""
    tab = enter(door, permissions=["clipboard-read", "clipboard-write"])
    tab.prompt().type(f"{SHELL}; clear\n")
    tab.run("seq 200", "200")
    tab.run("printf 'one\\ntwo'", "two$")
    tab.prompt().type("seq 300 500; false\n")
    tab.wait_line("500")
    tab.prompt()

    def top() -> str:
        return str(tab.page.evaluate(
            """() => { const {active} = sshgate.shown.screen.terminal.buffer;
                       return active.getLine(active.viewportY).translateToString(true); }"""
        ))  # fmt: skip

    def up() -> list[str]:
        tab.page.keyboard.press("Control+Shift+ArrowUp")
        first = top()
        tab.page.keyboard.press("Control+Shift+ArrowUp")
        return [first, top()]

    assert up() == ["two$ seq 300 500; false", "$ printf 'one\\ntwo'"]
    tab.page.keyboard.press("Control+Shift+ArrowDown")
    assert top() == "two$ seq 300 500; false"
    for _ in range(3):
        tab.page.keyboard.press("Control+Shift+ArrowDown")
    stripes = "() => sshgate.shown.screen.marks._prompts.map(({stripe}) => stripe.options.overviewRulerOptions.color)"
    assert tab.page.evaluate(stripes)[-3:] == ["#4ea85c", "#d0525d", "#7d8799"]
    _find(tab, "last output", "Copy the last output")
    tab.notice("Copied.")
    copied = "() => navigator.clipboard.readText()"
    assert tab.page.evaluate(copied) == "".join(f"{number}\n" for number in range(300, 501))
    tab.page.reload()
    tab.wait_state("connected").prompt()
    until(lambda: len(tab.page.evaluate(stripes)) >= 3, PATIENCE, "the marks of before")
    assert up()[0] == "two$ seq 300 500; false"
    # A program that draws the whole screen has these keys.
    tab.type("printf '\\033[?1049h'; cat -v\n")
    until(lambda: tab.screen()["type"] == "alternate", PATIENCE, "the other screen")
    tab.page.keyboard.press("Control+Shift+ArrowUp")
    tab.wait_line("^[[1;6A")


def test_the_page_takes_the_whole_screen_and_its_keys(door: Door, enter: Enter) -> None:
    """The browser is asked for its own keys as well; the same command gives the screen back."""
    tab = enter(door)
    tab.page.evaluate("() => (navigator.keyboard.lock = async () => void (globalThis.locked = true))")
    _find(tab, "full", "Full screen, or a window")
    tab.page.wait_for_function("() => document.fullscreenElement && globalThis.locked")
    tab.run("echo whole", "whole")
    _find(tab, "full", "Full screen, or a window")
    tab.page.wait_for_function("() => !document.fullscreenElement")


def test_the_right_button_has_a_menu(door: Door, enter: Enter) -> None:
    """Copy, paste, the link below; what is of no use is grey; keys go along; a program that wants the mouse gets it."""
    tab = enter(door, permissions=["clipboard-read", "clipboard-write"])
    menu = tab.page.locator("#context:popover-open")
    tab.run("clear; echo https://exam''ple.org/x", "https://example.org/x")
    box = tab.page.locator(".panel:visible .xterm-screen").bounding_box()
    assert box
    tab.page.mouse.move(box["x"] + 60, box["y"] + 8)
    tab.page.locator(".panel:visible .xterm[data-link]").wait_for()
    tab.page.mouse.click(box["x"] + 60, box["y"] + 8, button="right")
    menu.get_by_role("menuitem", name="Copy the link").click()
    tab.page.mouse.click(box["x"] + 300, box["y"] + 300, button="right")
    assert menu.get_by_role("menuitem", name="Copy", exact=False).first.get_attribute("aria-disabled") == "true"
    assert menu.get_by_text("Copy the link").count() == 0
    place = menu.bounding_box()
    assert place
    assert abs(place["x"] - box["x"] - 300) < 2
    assert "Paste" in tab.page.evaluate("() => document.activeElement.textContent"), "the first one that is of use"
    tab.page.keyboard.press("Enter")
    until(lambda: tab.lines()[-1].endswith("https://example.org/x"), PATIENCE, "what was pasted")
    tab.page.keyboard.press("Control+C")
    tab.page.mouse.click(box["x"] + 300, box["y"] + 300, button="right")
    with tab.page.expect_download() as download:
        menu.get_by_role("menuitem", name="Save as text").click()
    assert "https://example.org/x\n" in download.value.path().read_text()
    tab.page.mouse.click(box["x"] + 300, box["y"] + 300, button="right")
    with tab.page.expect_download() as download:
        menu.get_by_role("menuitem", name="Save with colours").click()
    assert "example.org" in download.value.path().read_text()
    tab.page.mouse.click(box["x"] + 300, box["y"] + 300, button="right")
    menu.wait_for()
    tab.page.keyboard.press("Escape")
    menu.wait_for(state="detached")
    tab.run("printf '\\033[?1000h'; echo wan''ted", "wanted")
    tab.page.mouse.click(box["x"] + 300, box["y"] + 300, button="right")
    tab.page.wait_for_timeout(200)
    assert menu.count() == 0
    tab.page.keyboard.press("Control+C")


def test_settings_show_what_they_do(door: Door, enter: Enter) -> None:
    """Segments, switches, the name of a font: the sample and the terminal follow, and a reload keeps them."""
    tab = enter(door, permissions=["clipboard-read", "clipboard-write"])
    keyboard = tab.page.keyboard
    options = "(of) => { const {screen} = sshgate.shown; return screen.terminal.options[of]; }"
    tab.page.click("#menu-button")
    dialog = tab.page.locator("#settings[open]")
    dialog.locator(".sample .xterm-rows", has_text="README_FIRST").wait_for()
    dialog.get_by_role("radio", name="System's").first.focus()
    keyboard.press("ArrowRight")
    tab.page.locator("html[data-theme=light]").wait_for()
    dialog.get_by_role("radio", name="Gruvbox").check()
    until(lambda: tab.page.evaluate(options, "theme")["background"] == "#fbf1c7", PATIENCE, "another palette")
    ground = tab.page.evaluate("() => getComputedStyle(document.querySelector('.sample')).backgroundColor")
    assert ground == "rgb(251, 241, 199)"
    dialog.get_by_role("radio", name="Another").check()
    dialog.locator("[name=fontName]").fill('DejaVu Sans Mono"; x')
    dialog.get_by_role("radio", name="Medium").check()
    dialog.get_by_role("radio", name="Underline").check()
    dialog.get_by_role("radio", name="30 000").check()
    dialog.get_by_role("checkbox", name="Copy what is selected").check()
    dialog.get_by_role("radio", name="Pastes").check()
    keyboard.press("Escape")
    tab.page.reload()
    tab.wait_state("connected").prompt()
    assert tab.page.evaluate(options, "fontFamily").startswith('"DejaVu Sans Mono x", ')
    assert tab.page.evaluate(options, "lineHeight") == 1.2
    assert tab.page.evaluate(options, "cursorStyle") == "underline"
    assert tab.page.evaluate(options, "scrollback") == 30_000
    tab.run("clear; echo twi''ce", "twice")
    box = tab.page.locator(".panel:visible .xterm-screen").bounding_box()
    assert box
    tab.page.mouse.dblclick(box["x"] + 12, box["y"] + 8)
    until(lambda: tab.page.evaluate("() => navigator.clipboard.readText()") == "twice", PATIENCE, "a copy")
    tab.prompt().type("echo ")
    tab.page.mouse.click(box["x"] + 300, box["y"] + 200, button="right")
    until(lambda: tab.lines()[-1].endswith("echo twice"), PATIENCE, "what was pasted")
