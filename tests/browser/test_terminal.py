"""A session in the browser: what is typed, what is drawn, what a program may ask of the page."""

from __future__ import annotations

import hashlib

import pytest

from tests.browser.conftest import Enter
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.waiting import until

MEGABYTES = 10
RECORD_RINGS = """() => new MutationObserver(() => (globalThis.rang ||= !!document.querySelector(".panel.rings")))
  .observe(document.getElementById("panels"), {attributeFilter: ["class"], subtree: true})"""


def test_a_new_session_is_a_shell_of_the_screens_size(either: Door, enter: Enter) -> None:
    """From a click to a prompt; the terminal is one, and as large as what is drawn."""
    tab = enter(either)
    rows, columns = tab.size()
    tab.run("tty >/dev/null && stty size", f"{rows} {columns}")
    tab.run("echo $((6 * 7)) grün 日本 | cat", "42 grün 日本")


def test_the_shell_follows_the_windows_size(either: Door, enter: Enter) -> None:
    """``stty size`` after each change is what is drawn."""
    tab = enter(either)
    for width, height in ((700, 500), (1300, 800)):
        before = tab.size()
        tab.page.set_viewport_size({"width": width, "height": height})
        _other_size(tab, before)
        tab.wait_for_size()


def _other_size(tab: Tab, before: tuple[int, int]) -> None:
    until(lambda: tab.size() != before, PATIENCE, "another size")


def test_vim_edits_a_file(either: Door, enter: Enter) -> None:
    """A program that draws the whole screen, and leaves it as it was."""
    tab = enter(either)
    vim = "vi -u NONE -N" if either.gateway.settings["sandbox"]["provider"] == "local" else "vim -u NONE -N"
    tab.type(f"cd /tmp; {vim} letter\n")
    until(lambda: tab.screen()["type"] == "alternate", PATIENCE, "the alternate screen")
    tab.type("idear world\x1b:s/dear/hello/\n:wq\n")
    until(lambda: tab.screen()["type"] == "normal", PATIENCE, "the normal screen")
    tab.run("cat letter", "hello world")


def test_ten_megabytes_arrive_to_the_last_line(either: Door, enter: Enter) -> None:
    """A flood is drawn to its end, and the shell answers after it."""
    tab = enter(either)
    lines = MEGABYTES * 10_000
    tab.type(f"seq -f '%099.0f' {lines}; echo DO''NE\n")
    tab.wait_line("DONE", 120)
    seen = tab.lines()
    end = seen.index("DONE")
    assert [int(line) for line in seen[end - 5000 : end]] == list(range(lines - 4999, lines + 1))


def test_ctrl_c_ends_a_flood(door: Door, enter: Enter) -> None:
    """``yes`` does not keep the key from the program."""
    tab = enter(door)
    tab.type("yes\n")
    until(lambda: tab.lines().count("y") > 5000, PATIENCE, "a flood")
    tab.page.keyboard.press("Control+C")
    # Behind what the terminal dropped when the key came, a line may have lost its end.
    until(lambda: any(line.endswith("^C") for line in tab.lines()), PATIENCE, "the key's echo")
    tab.run("echo after", "after")


def test_title_bell_and_clipboard_are_the_pages_to_grant(door: Door, enter: Enter) -> None:
    """A title is text; a copy is made after a key, offered without one; the clipboard is never read."""
    tab = enter(door, permissions=["clipboard-read", "clipboard-write"])
    tab.type(r"printf '\033]0;<b>bold</b>\007'; sleep 100" + "\n")
    tab.page.locator("#tabs .label", has_text="<b>bold</b>").wait_for()
    assert tab.page.title() == "<b>bold</b> · sshgate"
    tab.page.keyboard.press("Control+C")
    tab.prompt().type("printf '\\033]52;c;%s\\007' $(printf 'from a program' | base64)\n")
    tab.notice("copied 14 characters")
    assert tab.page.evaluate("() => navigator.clipboard.readText()") == "from a program"
    tab.prompt().type(r"printf '\033]52;c;?\007up\n'; cat -v" + "\n")
    tab.wait_line("up")  # the shell no longer reads keys as they are
    tab.page.keyboard.type("end\n")
    tab.wait_line("end")
    assert not any("]52" in line for line in tab.lines() if "printf" not in line)
    tab.page.keyboard.press("Control+D")
    # The sign is there for a moment, in which a busy machine draws nothing.
    tab.page.evaluate(RECORD_RINGS)
    tab.prompt().type(r"printf '\a'" + "\n")
    tab.page.wait_for_function("() => globalThis.rang")


def test_copy_and_paste_by_key(door: Door, enter: Enter) -> None:
    """Ctrl+Shift+C takes the selection; what is pasted cannot end bracketed paste."""
    tab = enter(door, permissions=["clipboard-read", "clipboard-write"])
    tab.run("echo select'ed' text", "selected text")
    tab.page.evaluate("() => sshgate.shown.screen.terminal.selectAll()")
    tab.page.keyboard.press("Control+Shift+C")
    copied = until(lambda: tab.page.evaluate("() => navigator.clipboard.readText()"), PATIENCE, "a copy")
    assert "selected text" in copied
    tab.page.evaluate(r"() => navigator.clipboard.writeText('echo one\x1b[201~\necho two')")
    tab.prompt()
    tab.page.keyboard.press("Control+Shift+V")
    until(lambda: "echo two" in tab.lines()[-1], 10, "the pasted text")
    # Bracketed paste: nothing has run yet.
    assert "one" not in tab.lines()
    tab.type("\n")
    tab.wait_line("two")


def test_a_large_paste_arrives_whole(door: Door, enter: Enter) -> None:
    """More than a line holds: what a program has not read yet waits in the page, every byte once."""
    tab = enter(door)
    tab.type("stty -echo -icanon; echo ready; head -c 3000000 | sha256sum | cut -c1-64; stty sane\n")
    tab.wait_line("ready")
    text = "".join(f"{number:09d}\n" for number in range(300_000))
    tab.page.evaluate("(text) => sshgate.shown.screen.terminal.paste(text)", text)
    tab.wait_line(hashlib.sha256(text.encode()).hexdigest(), 60)


def test_search_finds_what_was_printed(door: Door, enter: Enter) -> None:
    """Ctrl+Shift+F, a word, Enter to the next one, Escape back to the shell."""
    tab = enter(door)
    tab.run("seq 1000 1100", "1100")
    tab.search("105")
    tab.page.locator(".search .count", has_text="of 10").wait_for()  # 1050 to 1059
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Escape")
    tab.run("echo back", "back")


def test_webgl_that_is_lost_goes_on_in_the_dom(door: Door, enter: Enter) -> None:
    """A graphics card that goes away takes nothing along."""
    tab = enter(door)
    tab.page.evaluate("() => sshgate.shown.screen.accelerate()")
    canvas = tab.page.locator(".panel:visible .xterm-screen canvas")
    if canvas.count() == 0:
        pytest.skip("this browser has no WebGL")
    tab.run("echo drawn", "drawn")
    tab.page.evaluate(
        """() => [...document.querySelectorAll(".panel:not([hidden]) .xterm-screen canvas")].forEach((canvas) =>
             canvas.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext())"""
    )
    tab.page.locator(".panel:visible .xterm-rows > div", has_text="drawn").first.wait_for()
    tab.run("echo still", "still")


def test_search_begins_at_the_newest_line(door: Door, enter: Enter) -> None:
    """The last match first, in sight and in a colour of its own; Escape leaves the view where it was."""
    tab = enter(door)
    tab.run("clear; for i in $(seq 300); do echo needle $i; done", "needle 300")
    tab.prompt()
    position = "() => sshgate.shown.screen.terminal.buffer.active.viewportY"
    before = tab.page.evaluate(position)
    tab.search("needle")
    tab.page.locator(".search .count", has_text="300 of 300").wait_for()
    bottom = "() => sshgate.shown.screen.terminal.buffer.active.baseY"
    assert tab.page.evaluate(position) == tab.page.evaluate(bottom)
    for _ in range(40):
        tab.page.keyboard.press("Enter")
    tab.page.locator(".search .count", has_text="260 of 300").wait_for()
    match = tab.page.evaluate(
        """() => {
          const {terminal} = sshgate.shown.screen;
          const box = (name) => document.querySelector(`.panel:not([hidden]) ${name}`).getBoundingClientRect();
          return [terminal.getSelectionPosition().start.y - terminal.buffer.active.viewportY,
                  box(".search").bottom <= box(".xterm-screen").top,
                  terminal.options.theme.selectionInactiveBackground];
        }"""
    )
    assert match[0] >= 0
    assert match[1], "the search bar lies on lines"
    assert match[2] == "#c77f1a"
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate(position) == before
    tab.search("NEEDLE 29[0-9]")
    tab.page.locator(".search .count", has_text="none").wait_for()
    tab.page.get_by_role("button", name="Regular expression").click()
    tab.page.locator(".search .count", has_text="of 10").wait_for()
    tab.page.get_by_role("button", name="Upper and lower case count").click()
    tab.page.locator(".search .count", has_text="none").wait_for()


def test_emoji_of_several_characters_take_the_cells_of_one_where_that_is_wanted(door: Door, enter: Enter) -> None:
    """A family of three; the add-on that knows is fetched only then, and before a terminal is made."""
    tab = enter(door)
    fetched: list[str] = []
    tab.page.on("request", lambda request: fetched.append(request.url) if "graphemes" in request.url else None)

    def width() -> int:
        written: int = tab.page.evaluate(
            """() => new Promise((done) => {
              const {terminal} = sshgate.shown.screen;
              const family = "\\r\\n\\u{1f468}\\u200d\\u{1f469}\\u200d\\u{1f467}";
              terminal.write(family, () => done(terminal.buffer.active.cursorX));
            })"""
        )
        return written

    assert width() == 6
    assert not fetched
    tab.page.click("#menu-button")
    tab.page.check("[name=graphemes]")
    until(lambda: width() == 2, PATIENCE, "the cells of one")
    tab.page.reload()
    tab.wait_state("connected")
    assert width() == 2
    tab.page.click("#menu-button")
    tab.page.uncheck("[name=graphemes]")
    assert width() == 6
