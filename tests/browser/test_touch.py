"""Fingers at the page: swipes, a long press, a pinch, the rows of keys, and a header that fits."""

from __future__ import annotations

import time
from functools import partial

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.test_hands import PHONE
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.waiting import until

SMALL = {**PHONE, "viewport": {"width": 320, "height": 600}}
# Between two reports of a touch screen.
FRAME = 1 / 60
POSITION = "() => sshgate.shown.screen.terminal.buffer.active.viewportY"


class Fingers:
    """One or two of them on the terminal, as a touch screen reports them."""

    def __init__(self, tab: Tab) -> None:
        box = tab.page.locator(".panel:visible > .terminal").bounding_box()
        assert box is not None
        self.x, self.y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self._devtools = tab.page.context.new_cdp_session(tab.page)
        self._now = 0.0

    def _report(self, kind: str, *points: tuple[float, float], after: float = FRAME) -> None:
        """``after``: seconds since the last one. A busy machine's fingers would be slow, and throw nothing."""
        self._now = time.time() if kind == "touchStart" else self._now + after
        touching = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        event = {"type": kind, "touchPoints": touching, "timestamp": self._now}
        self._devtools.send("Input.dispatchTouchEvent", event)

    def swipe(self, pixels: float, rest: float = 0.0, steps: int = 12, across: float = 0.0) -> None:
        """Down, and to the right, for positive numbers; ``rest`` seconds pass before the finger is lifted."""
        x, y = self.x - across / 2, self.y - pixels / 2
        self._report("touchStart", (x, y))
        for step in range(1, steps + 1):
            self._report("touchMove", (x + across * step / steps, y + pixels * step / steps))
        time.sleep(rest)
        self._report("touchEnd", after=rest)

    def press(self, seconds: float) -> None:
        """One finger that stays."""
        self._report("touchStart", (self.x, self.y))
        time.sleep(seconds)
        self._report("touchEnd", after=seconds)

    def pinch(self, before: float, after: float, steps: int = 8) -> None:
        """Two fingers, so far from each other."""
        for step in range(steps + 1):
            apart = before + (after - before) * step / steps
            points = (self.x, self.y - apart / 2), (self.x, self.y + apart / 2)
            self._report("touchMove" if step else "touchStart", *points)
        self._report("touchEnd")


def test_a_swipe_scrolls_and_a_thrown_one_glides(door: Door, enter: Enter) -> None:
    """The lines follow the finger; what was moving when it was lifted moves on, and a tap brings the keyboard."""
    tab = enter(door, **PHONE)
    tab.run("seq 1000", "1000")
    tab.prompt()
    fingers = Fingers(tab)
    bottom = tab.page.evaluate(POSITION)
    fingers.swipe(200, rest=0.3)
    rested = tab.page.evaluate(POSITION)
    height = tab.page.evaluate("() => document.querySelector('.panel:not([hidden]) .xterm-rows > div').clientHeight")
    assert abs((bottom - rested) * height - 200) < 2 * height
    time.sleep(0.3)
    assert tab.page.evaluate(POSITION) == rested
    fingers.swipe(200, steps=3)
    lifted = tab.page.evaluate(POSITION)
    until(lambda: tab.page.evaluate(POSITION) < lifted - 3, PATIENCE, "lines that glide on")
    for _ in range(20):
        if tab.page.evaluate(POSITION) == bottom:
            break
        fingers.swipe(-300, steps=3)
        time.sleep(0.5)
    assert tab.page.evaluate(POSITION) == bottom


def test_a_swipe_is_the_programs_where_it_draws_the_screen(door: Door, enter: Enter) -> None:
    """Arrow keys on the alternate screen; turns of the wheel where the program wants the mouse."""
    tab = enter(door, **PHONE)
    tab.run(r"printf '\033[?1049h'; echo alter''nate; cat -v", "alternate")
    Fingers(tab).swipe(100)
    until(lambda: "^[[A^[[A" in "".join(tab.lines()), PATIENCE, "arrows up")
    tab.page.keyboard.press("Control+C")
    tab.run(r"printf '\033[?1049l\033[?1000h\033[?1006h'; clear; echo mo''use; cat -v", "mouse")
    Fingers(tab).swipe(-100)
    until(lambda: "^[[<65;" in "".join(tab.lines()), PATIENCE, "the wheel, turned down")


def test_a_long_press_offers_the_text(door: Door, enter: Enter) -> None:
    """Lines that the browser can select; a wrapped one is one line; all of it by one button."""
    tab = enter(door, **PHONE, permissions=["clipboard-read", "clipboard-write"])
    tab.run("clear; printf '%0150d\\n' 7; echo sel''ected", "selected")
    tab.prompt()
    Fingers(tab).press(0.8)
    tab.page.locator("#select-dialog[open]").wait_for()
    text = tab.page.locator("#select-text").text_content() or ""
    assert "7\nselected\n" in text
    assert "0" * 149 + "7" in text
    assert tab.page.evaluate("() => getComputedStyle(document.getElementById('select-text')).userSelect") == "text"
    tab.page.get_by_role("button", name="Copy all").tap()
    until(lambda: tab.page.evaluate("() => navigator.clipboard.readText()") == text, PATIENCE, "a copy")
    tab.run("echo on", "on")


def test_a_pinch_changes_the_font(door: Door, enter: Enter) -> None:
    """Larger, and smaller again; the page itself stays as large as it was."""
    tab = enter(door, **PHONE)
    fingers = Fingers(tab)

    def size() -> int:
        return int(tab.page.evaluate("() => sshgate.shown.screen.terminal.options.fontSize"))

    assert size() == 14
    fingers.pinch(100, 150)
    until(lambda: size() == 21, PATIENCE, "a larger font")
    fingers.pinch(200, 100)
    until(lambda: size() in (10, 11), PATIENCE, "a smaller font")
    assert tab.page.evaluate("() => visualViewport.scale") == 1
    tab.run("echo on", "on")


def test_the_rows_of_keys_have_what_programs_want(door: Door, enter: Enter) -> None:
    """All keys in sight at 320 pixels; ^C, Shift+Tab, arrows that come again while held, and more behind one key."""
    tab = enter(door, **SMALL)
    buttons = tab.page.locator("#keybar button:visible")
    boxes = [button.bounding_box() for button in buttons.all()]
    assert len(boxes) == 16
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= 320 for box in boxes)
    assert len({box["y"] for box in boxes if box}) == 2

    def key(name: str) -> None:
        tab.page.locator("#keybar").get_by_role("button", name=name, exact=True).tap()

    tab.type("sleep 1000\n")
    key("Control C")
    tab.wait_line("^C")
    tab.run("clear; echo cat''ted; cat -v", "catted")
    key("Shift Tab")
    key("More keys")
    key("F5")
    key("PgUp")
    key("More keys")
    until(lambda: tab.lines()[-1] == "^[[Z^[[15~^[[5~", PATIENCE, "three keys")
    tab.type("\n")
    left = tab.page.get_by_role("button", name="Left", exact=True)
    for pointer in (1, 2):
        left.dispatch_event("pointerdown", {"pointerId": pointer})
    until(lambda: "^[[D^[[D^[[D" in tab.lines()[-1], PATIENCE, "an arrow that is held")
    left.dispatch_event("pointerup", {"pointerId": 1})
    left.dispatch_event("click", {"detail": 1})

    def rests() -> bool:
        held = tab.lines()[-1]
        time.sleep(0.6)
        return tab.lines()[-1] == held

    # What was sent before may still come; an arrow that is held would come without an end.
    until(rests, PATIENCE, "no arrow after the button is let go")
    left.dispatch_event("pointerdown")
    tab.page.evaluate("() => dispatchEvent(new Event('blur'))")
    until(rests, PATIENCE, "no arrow after the window has lost the focus")
    left.dispatch_event("pointerdown", {"button": 2})
    until(rests, PATIENCE, "no arrow by another button")


def test_a_phone_on_its_side_has_lines_left_beside_its_keyboard(door: Door, enter: Enter) -> None:
    """All keys in one row, a low header that shows a tab's name, and three lines for the program."""
    tab = enter(door, **{**PHONE, "viewport": {"width": 640, "height": 170}})
    tab.page.get_by_role("button", name="New terminal", exact=True).tap()
    tab.page.locator("#tabs .tab").nth(1).wait_for(state="attached")
    tab.wait_state("connected").prompt()
    for more in (False, True):
        boxes = [button.bounding_box() for button in tab.page.locator("#keybar button:visible").all()]
        assert len({box["y"] for box in boxes if box}) == 1
        assert len(boxes) == 16
        assert all(box and box["x"] + box["width"] <= 640 for box in boxes)
        if not more:
            tab.page.get_by_role("button", name="More keys").tap()
    until(lambda: tab.size()[0] >= 3, PATIENCE, "three lines")
    for label in tab.page.locator("#tabs .tab .label").all():
        assert label.evaluate("(label) => label.scrollWidth <= label.clientWidth"), "a name that is cut off"


def test_pasting_without_the_clipboard_is_by_a_field(door: Door, enter: Enter) -> None:
    """Over plain HTTP, or without consent, the page may not read the clipboard; a long press in a field may."""
    tab = enter(door, **PHONE)
    tab.page.evaluate("() => Object.defineProperty(navigator, 'clipboard', {get: () => undefined})")
    tab.page.get_by_role("button", name="Paste", exact=True).tap()
    tab.page.locator("#paste-text:focus").wait_for()
    tab.page.fill("#paste-text", "echo from the fi''eld")
    tab.page.get_by_role("button", name="Into the terminal").tap()
    until(lambda: tab.lines()[-1].endswith("fi''eld"), PATIENCE, "the pasted text")
    tab.type("\n")
    tab.wait_line("from the field")


def test_what_a_keyboard_commits_in_lines_keeps_its_lines(door: Door, enter: Enter) -> None:
    """As dictation does it, and a phone's keyboard; lines that would run are asked about, as in any paste."""
    tab = enter(door, **PHONE)
    tab.run("clear; echo cat''ted; cat >/tmp/lines; clear; cat /tmp/lines", "catted")
    commit = partial(tab.page.context.new_cdp_session(tab.page).send, "Input.insertText", {"text": "line1\nline2\n"})
    dialog = tab.page.locator("#ask-paste-dialog[open]")
    commit()
    dialog.wait_for()
    tab.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert "line1" not in tab.lines()
    commit()
    dialog.get_by_role("heading", name="Paste 2 lines?").wait_for()
    tab.page.keyboard.press("Enter")
    until(lambda: "line2" in tab.lines(), PATIENCE, "two lines")
    tab.page.keyboard.press("Control+D")
    tab.prompt()
    assert tab.lines()[:2] == ["line1", "line2"]


def test_the_header_fits_the_smallest_phone(door: Door, enter: Enter) -> None:
    """The shown session's name leads to all tabs; the tools are behind one button."""
    tab = enter(door, **SMALL)
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") == 320
    for button in tab.page.locator("header button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
    tab.focused().type(r"printf '\033]0;first one\007'" + "\n")
    tab.page.locator("#all-tabs", has_text="first one").wait_for()
    tab.page.get_by_role("button", name="New terminal").tap()
    tab.page.locator("#tabs .tab").nth(1).wait_for(state="attached")
    tab.wait_state("connected").prompt()
    tab.page.locator("#all-tabs").tap()
    rows = tab.page.locator("#tab-list:popover-open li")
    expect(rows).to_have_count(2)
    rows.get_by_text("first one").tap()
    tab.page.locator("#all-tabs", has_text="first one").wait_for()
    tab.page.locator("#all-tabs").tap()
    rows.nth(1).get_by_role("button", name="Close").tap()
    tab.page.get_by_role("button", name="End it").tap()
    until(lambda: len(tab.sessions()) == 1, PATIENCE, "one tab less")
    tab.page.get_by_role("button", name="All commands").tap()
    assert not tab.page.locator("#palette input:focus").count(), "the phone's keyboard would hide the list"
    tab.page.get_by_role("option", name="Search").tap()
    tab.page.locator(".search input:focus").wait_for()
    tab.page.keyboard.press("Escape")
    tab.page.get_by_role("button", name="All commands").tap()
    tab.page.get_by_role("option", name="Settings").tap()
    tab.page.locator("#settings[open]").wait_for()
    fields = tab.page.locator("#settings .fields").bounding_box()
    assert fields
    assert fields["height"] > 300, "most of the dialog is for the settings"
    tab.page.keyboard.press("Escape")
    tab.page.locator("#all-tabs").tap()
    tab.page.locator("#tab-list:popover-open").get_by_role("button", name="Home").tap()
    tab.page.locator("#first-session:visible").wait_for()
    tab.page.locator("#tab-list:popover-open").wait_for(state="hidden")
    # Where it is leaves room for what it is called.
    other = Tab(tab.page.context.new_page(), tab.address).open()
    expect(other.page.locator("#all-tabs .label")).to_have_text("Home")
    other.page.locator("#all-tabs").tap()
    other.page.locator("#tab-list:popover-open li button").first.tap()
    other.says("open in another window")
    other.page.locator("#all-tabs").tap()
    label = other.page.locator("#tab-list:popover-open .label")
    until(lambda: label.evaluate("(label) => label.clientWidth") > 60, PATIENCE, "a name")
    other.page.close()
