"""Hands for agents: a line break that does not submit, files as paths, a question before lines run, keys of habit."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route

from tests.browser.conftest import Enter
from tests.browser.test_keyboard import MAC
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.waiting import until

CLIPBOARD = ["clipboard-read", "clipboard-write"]
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0"
COPY_PICTURE = """async () => {
  const canvas = new OffscreenCanvas(8, 8);
  canvas.getContext("2d").fillRect(0, 0, 8, 8);
  const picture = await canvas.convertToBlob({type: "image/png"});
  await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
}"""


def _copied(tab: Tab, text: str) -> None:
    tab.page.evaluate("(text) => navigator.clipboard.writeText(text)", text)


@pytest.mark.parametrize(
    ("modes", "sent"),
    [("", ""), (r"\033[?1004h", "^["), (r"\033[?1004h\033[>4;2m", "^[[27;2;13~")],
    ids=["a shell", "an agent", "an editor"],
)
def test_shift_enter_is_a_line_break_for_agents(modes: str, sent: str, door: Door, enter: Enter) -> None:
    """Enter for a shell; Alt+Enter for what wants focus reports; the key itself where that is asked for."""
    tab = enter(door)
    # A report that the terminal has the focus comes as soon as it is wanted, and is echoed wherever the cursor is then.
    tab.prompt().type(f"printf '{modes}'; clear; echo cat''ted; cat -v\n")
    until(lambda: tab.lines()[0].removeprefix("^[[I") == "catted", PATIENCE, "a program that wants this")
    tab.page.keyboard.press("Shift+Enter")
    tab.type("end\n")
    # What is typed is echoed, and printed again when the line is done: at once, or anywhere in what was typed next.
    wanted = [f"{sent}end"] * 2 if sent.endswith("~") else [sent, sent, "end", "end"]

    def seen() -> list[str]:
        return sorted("\n".join(tab.lines()[1:]).replace("^[[I", ""))

    until(lambda: seen() == sorted("\n".join(wanted)), PATIENCE, f"{wanted}, in any order")


def test_a_pasted_picture_becomes_a_path(door: Door, enter: Enter) -> None:
    """A picture of the screen, from the clipboard to a file in the sandbox."""
    tab = enter(door, permissions=CLIPBOARD)
    tab.page.evaluate(COPY_PICTURE)
    tab.page.keyboard.press("Control+Shift+V")
    tab.notice("Uploaded /tmp/paste-")
    until(lambda: re.search(r"/tmp/paste-\d{8}-\d{6}-\d{3}\.png$", tab.lines()[-1].rstrip()), PATIENCE, "a path")
    tab.page.keyboard.press("Control+A")
    tab.type("od -An -c -N4 ")
    tab.page.keyboard.press("Enter")
    tab.wait_line(" 211   P   N   G")


def test_a_path_is_not_typed_once_the_person_is_elsewhere(door: Door, enter: Enter) -> None:
    """The upload ends after another tab was opened: a notice has its path, and no terminal does."""
    tab = enter(door, permissions=CLIPBOARD)
    held: list[Route] = []
    tab.page.route(re.compile("/files"), lambda route: held.append(route))
    tab.page.evaluate(COPY_PICTURE)
    tab.page.keyboard.press("Control+Shift+V")
    # The page's events are handled while it is asked something.
    until(lambda: tab.page.title() and held, PATIENCE, "an upload")
    first = tab.page.evaluate("() => sshgate.shown.id")
    tab.new_session().prompt()
    held[0].continue_()
    tab.notice("Uploaded /tmp/paste-")
    typed = """(id) => {
      const {buffer} = [...sshgate.sessions.values()].find((one) => one.id === id).screen.terminal;
      const rows = [...Array(buffer.active.length).keys()];
      return rows.map((row) => buffer.active.getLine(row).translateToString()).join("");
    }"""
    tab.page.wait_for_timeout(500)
    assert "/tmp/paste-" not in tab.page.evaluate(typed, first)
    assert not any("/tmp/paste-" in line for line in tab.lines())


def test_lines_that_would_run_are_asked_about(door: Door, enter: Enter) -> None:
    """Where no bracketed paste protects; also a very long text; not where it is switched off."""
    tab = enter(door, permissions=CLIPBOARD)
    dialog = tab.page.locator("#ask-paste-dialog[open]")
    tab.run("clear; echo cat''ted; cat", "catted")
    _copied(tab, "one\ntwo\n")
    tab.page.keyboard.press("Control+Shift+V")
    dialog.get_by_role("heading", name="Paste 2 lines?").wait_for()
    assert tab.page.locator("#ask-paste-text").text_content() == "one\ntwo"
    tab.page.keyboard.press("Escape")
    tab.type("none\n")
    tab.wait_line("none")
    assert "one" not in tab.lines()
    tab.page.keyboard.press("Control+Shift+V")
    dialog.wait_for()
    tab.page.keyboard.press("Enter")
    tab.wait_line("two")
    # One line is what a person sees and means; the shell itself has bracketed paste.
    _copied(tab, "single\n")
    tab.page.keyboard.press("Control+Shift+V")
    tab.wait_line("single")
    tab.page.keyboard.press("Control+D")
    tab.prompt()
    _copied(tab, "echo first\necho second")
    tab.page.keyboard.press("Control+Shift+V")
    until(lambda: tab.lines()[-1].endswith("echo second"), PATIENCE, "the pasted text")
    tab.page.keyboard.press("Control+C")
    tab.prompt()
    _copied(tab, "x" * 6000)
    tab.page.keyboard.press("Control+Shift+V")
    dialog.get_by_role("heading", name="Paste 6000 characters?").wait_for()
    tab.page.keyboard.press("Escape")
    tab.page.click("#menu-button")
    tab.page.uncheck("[name=pasteWarning]")
    tab.page.keyboard.press("Escape")
    tab.page.locator(".panel:visible .xterm").click()
    tab.run("clear; echo cat''ted; cat", "catted")
    _copied(tab, "three\nfour\n")
    tab.page.keyboard.press("Control+Shift+V")
    tab.wait_line("four")
    assert dialog.count() == 0


def _typed(tab: Tab, line: str) -> None:
    until(lambda: tab.lines()[-1].rstrip().endswith(line), PATIENCE, f"a line that ends with {line!r}")


def test_keys_of_habit_delete_words_and_copy(door: Door, enter: Enter) -> None:
    """Ctrl+Backspace and Ctrl+Delete take a word each, Ctrl+Insert copies; a full screen's program has its own."""
    tab = enter(door, permissions=CLIPBOARD)
    tab.prompt().type("echo one two three")
    tab.page.keyboard.press("Control+Backspace")
    _typed(tab, "echo one two")
    tab.page.keyboard.press("Control+A")
    tab.page.keyboard.press("Control+Delete")
    _typed(tab, "$  one two")
    tab.page.keyboard.press("Control+C")
    tab.run("clear; echo select''ed", "selected")
    tab.page.evaluate("() => sshgate.shown.screen.terminal.selectLines(0, 0)")
    tab.page.keyboard.press("Control+Insert")
    until(lambda: tab.page.evaluate("() => navigator.clipboard.readText()").strip() == "selected", PATIENCE, "a copy")
    tab.run(r"printf '\033[?1049h'; echo alter''nate; cat -v", "alternate")
    tab.page.keyboard.press("Control+Backspace")
    tab.type("x\n")
    until(lambda: any(line.startswith("^H") for line in tab.lines()), PATIENCE, "the key as it is")


def test_a_mac_has_its_own_keys(door: Door, enter: Enter) -> None:
    """⌘ with arrows, Backspace, K and F; the help names them."""
    tab = enter(door, user_agent=MAC)
    tab.prompt().type("cho one two")
    tab.page.keyboard.press("Meta+ArrowLeft")
    tab.type("e")
    tab.page.keyboard.press("Meta+ArrowRight")
    tab.type(" three\n")
    tab.wait_line("one two three")
    tab.prompt().type("echo gone")
    tab.page.keyboard.press("Meta+Backspace")
    tab.type("echo kept\n")
    tab.wait_line("kept")
    assert "gone" not in "".join(tab.lines()[-1])
    tab.prompt()
    tab.page.keyboard.press("Meta+KeyK")
    until(lambda: len(tab.lines()) == 1, PATIENCE, "a clear screen")
    tab.page.keyboard.press("Meta+KeyF")
    tab.page.locator(".search input:focus").wait_for()
    assert "⌘F" in (tab.page.locator("#home-keys").text_content() or "")


def test_windows_copies_and_pastes_by_ctrl(door: Door, enter: Enter) -> None:
    """Ctrl+C with a selection, Ctrl+V always."""
    tab = enter(door, user_agent=WINDOWS, permissions=CLIPBOARD)
    tab.run("clear; echo select''ed", "selected")
    tab.prompt()
    tab.page.evaluate("() => sshgate.shown.screen.terminal.selectLines(0, 0)")
    tab.page.keyboard.press("Control+C")
    until(lambda: "selected" in tab.page.evaluate("() => navigator.clipboard.readText()"), PATIENCE, "a copy")
    _copied(tab, "echo pas''ted")
    tab.page.keyboard.press("Control+V")
    tab.type("\n")
    tab.wait_line("pasted")
