"""The list of files changes what is there: by keyboard, mouse and finger, after a question, and nothing by accident."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.browser.conftest import Enter
from tests.browser.test_filespanel import FOCUSED, HERE, act, opened, rows, usable
from tests.browser.test_hands import PHONE
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.waiting import until

# A question that is still on its way in has other colours.
STILL = {"reduced_motion": "reduce"}
FIRST = ["a <b>folder", ".hidden", "big", "bytes", "dot.svg", "link", "page.html"]


def _question(tab: Tab) -> Locator:
    return tab.page.locator("dialog[open]")


def _answered(tab: Tab) -> None:
    """The page knows the answer, too, and takes the next key."""
    expect(_question(tab)).to_have_count(0)
    tab.page.evaluate("() => new Promise((done) => setTimeout(done, 50))")


def _focused(tab: Tab, name: str) -> None:
    until(lambda: tab.page.evaluate(FOCUSED) == name, PATIENCE, f"the focus on {name}")


def _is_there(tab: Tab, command: str, *lines: str) -> None:
    """In the sandbox itself."""
    tab.page.locator(".panel:visible .xterm").click()
    tab.run(f"clear; {command}; echo lis''ted", "listed")
    assert set(lines) <= set(map(str.rstrip, tab.lines())), tab.lines()


def test_files_are_renamed_and_deleted_by_keyboard(either: Door, enter: Enter) -> None:
    """What is refused stands in the question, with what was typed; the focus stays where one was."""
    tab = enter(either, **STILL)
    tab.expected.append("412")
    keyboard = opened(tab).page.keyboard
    for _ in range(4):
        keyboard.press("ArrowDown")
    keyboard.press("F2")
    # All but the ending is selected.
    keyboard.type("page")
    keyboard.press("End")
    keyboard.press("Backspace")
    keyboard.press("Backspace")
    keyboard.press("Backspace")
    keyboard.type("html")
    keyboard.press("Enter")
    expect(_question(tab)).to_contain_text("There is a file or directory of this name already.")
    assert tab.page.evaluate("() => document.activeElement.value") == "page.html"
    usable(tab, "dialog[open]")
    keyboard.press("Control+A")
    keyboard.type("a/b")
    keyboard.press("Enter")
    expect(_question(tab)).to_be_visible()
    keyboard.press("Control+A")
    keyboard.type("-r $(x) é.svg")
    keyboard.press("Enter")
    expect(rows(tab)).to_have_text(["a <b>folder", "-r $(x) é.svg", ".hidden", "big", "bytes", "link", "page.html"])
    _focused(tab, "-r $(x) é.svg")
    keyboard.press("Delete")
    expect(_question(tab)).to_contain_text("Delete -r $(x) é.svg?")
    expect(_question(tab)).to_contain_text("This cannot be undone.")
    # Neither Escape nor Enter deletes.
    keyboard.press("Enter")
    _answered(tab)
    _focused(tab, "-r $(x) é.svg")
    keyboard.press("Delete")
    expect(_question(tab)).to_be_visible()
    keyboard.press("Escape")
    _answered(tab)
    expect(rows(tab)).to_have_count(7)
    keyboard.press("Delete")
    usable(tab, "dialog[open]")
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(rows(tab)).to_have_text(["a <b>folder", ".hidden", "big", "bytes", "link", "page.html"])
    _focused(tab, ".hidden")
    _answered(tab)
    keyboard.press("End")
    keyboard.press("Delete")
    _question(tab).get_by_role("button", name="Delete").click()
    _focused(tab, "link")
    _is_there(tab, "echo *", "a <b>folder big bytes link")


def test_a_folder_goes_with_all_that_is_in_it_and_a_link_alone(door: Door, enter: Enter) -> None:
    """The question says so. A new folder is where one looks, and gets the focus."""
    tab = enter(door, **STILL)
    opened(tab)
    act(tab, "link", "Delete")
    expect(_question(tab)).to_contain_text("Delete the link link?What it leads to stays.")
    _question(tab).get_by_role("button", name="Delete").click()
    expect(rows(tab)).to_have_text([name for name in FIRST if name != "link"])
    _is_there(tab, "echo */deep", "a <b>folder/deep")
    tab.page.get_by_role("button", name="New folder").click()
    usable(tab, "dialog[open]")
    tab.page.keyboard.type("made here")
    tab.page.keyboard.press("Enter")
    _focused(tab, "made here")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#files .words")).to_have_text("Nothing is in this folder.")
    tab.page.keyboard.press("Backspace")
    act(tab, "a <b>folder", "Delete")
    expect(_question(tab)).to_contain_text("Delete the folder a <b>folder?All that is in it is deleted as well.")
    expect(_question(tab)).to_contain_text("In /tmp/here/")
    expect(_question(tab)).to_have_accessible_description(re.compile("^All that is in it is .* In /tmp/here/"))
    _question(tab).get_by_role("button", name="Delete").click()
    expect(rows(tab)).to_have_text(["made here", ".hidden", "big", "bytes", "dot.svg", "page.html"])


def test_what_cannot_be_done_is_said_where_it_was_wanted(door: Door, enter: Enter) -> None:
    """A file that somebody else has deleted meanwhile, and a name that is none."""
    tab = enter(door)
    tab.expected += ["404", "400"]
    opened(tab)
    tab.page.route("**/files?list=1*", lambda route: None)
    _is_there(tab, "rm big; ls b*", "bytes")
    act(tab, "big", "Delete")
    _question(tab).get_by_role("button", name="Delete").click()
    expect(_question(tab)).to_contain_text("There is no such file or directory in the sandbox.")
    tab.page.keyboard.press("Escape")
    tab.page.get_by_role("button", name="New folder").click()
    expect(_question(tab).locator(".bad")).to_be_hidden()
    tab.page.keyboard.type("..")
    tab.page.keyboard.press("Enter")
    expect(_question(tab)).to_contain_text("A name has 255 bytes at most, and is neither . nor .. here.")
    tab.page.keyboard.press("Escape")
    tab.page.unroute_all(behavior="ignoreErrors")


HOSTILE = (
    f"rm -rf {HERE}; mkdir -p {HERE}; cd {HERE}; touch 'a<img src=x>' \"$(printf 'l\\nend')\" "
    "\"$(printf '\\342\\200\\256gpj')\" \"$(printf '\\377')\"; echo ma''de"
)


def test_names_are_text_in_menus_and_questions(door: Door, enter: Enter) -> None:
    """Markup, a line end and a turn of the writing direction; what is no text has no menu."""
    tab = enter(door)
    tab.run(HOSTILE, "made")
    tab.page.keyboard.press("Control+Shift+X")
    expect(rows(tab)).to_have_count(4)
    # What a field does not show is no change.
    tab.page.locator("#files .entry", has_text="end").focus()
    tab.page.keyboard.press("F2")
    expect(_question(tab)).to_be_visible()
    tab.page.keyboard.press("Enter")
    _answered(tab)
    _focused(tab, "l\nend")
    for name in ("a<img src=x>", "l\nend", "\u202egpj"):
        row = tab.page.locator("#files .entries li").filter(has=tab.page.get_by_text(name.strip(), exact=False)).first
        row.locator(".entry").click(button="right")
        tab.page.get_by_role("menuitem", name="Delete").click()
        assert _question(tab).locator("h2 bdi").text_content() == name
        assert _question(tab).locator("img").count() == 0
        tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("Enter")
        expect(row).to_have_count(0)
    tab.page.locator("#files .entry").focus()
    tab.page.keyboard.press("Delete")
    tab.page.keyboard.press("F2")
    assert _question(tab).count() == 0
    assert tab.page.get_by_role("button", name="Actions for").count() == 0
    expect(rows(tab)).to_have_count(1)


def _elsewhere(tab: Tab) -> Tab:
    """The person types in the terminal."""
    tab.page.locator(".panel:visible .xterm").click()
    return tab.focused()


def test_a_menu_does_nothing_to_another_folder(door: Door, enter: Enter) -> None:
    """The list goes with the shell, also below a menu, and there is the same name in both."""
    tab = enter(door, **STILL)
    tab.run(f"rm -rf {HERE}; mkdir -p {HERE}/src/one {HERE}/proj/src/other; cd {HERE}; echo ma''de", "made")
    tab.page.keyboard.press("Control+Shift+X")
    expect(rows(tab)).to_have_text(["proj", "src"])
    for what, back in (("Delete", "proj"), ("Rename", ".."), ("Type its path", "proj"), ("Download", "..")):
        _elsewhere(tab).type(f"cd {back}")
        tab.page.locator("[data-name=src]").hover()
        tab.page.get_by_role("button", name="Actions for src").click()
        tab.page.evaluate("() => sshgate.shown.screen.terminal.input('\\r')")
        expect(rows(tab)).to_have_text(["src"] if back == "proj" else ["proj", "src"])
        tab.page.get_by_role("menuitem", name=what).click()
        tab.notice("Another folder is shown by now.")
        expect(_question(tab)).to_have_count(0)
        tab.page.get_by_role("button", name="Dismiss").click()
    _is_there(tab, "echo * */*", "proj src proj/src src/one")


def test_a_slow_change_leaves_the_keys_to_who_types_elsewhere(door: Door, enter: Enter) -> None:
    """It says that it is under way, and so does a second one. What fails is a notice, and no question."""
    tab = enter(door, **STILL)
    tab.expected.append("404")
    opened(tab)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route) if route.request.method == "DELETE" else route.continue_()

    def begin(name: str) -> Route:
        act(tab, name, "Delete")
        _question(tab).get_by_role("button", name="Delete").click()
        # The page's events are handled while it is asked something.
        until(lambda: tab.page.title() and held, PATIENCE, "a request")
        return held.pop()

    tab.page.route(re.compile("/files"), hold)
    request = begin("big")
    tab.page.get_by_role("button", name="New folder").click()
    tab.notice("A change is under way; wait for it.")
    tab.notice(f"A change in {HERE}/ is under way.")
    _elsewhere(tab)
    request.continue_()
    expect(rows(tab)).to_have_count(6)
    tab.type("echo st''ill\n")
    tab.wait_line("still")
    request = begin("bytes")
    _elsewhere(tab).run("rm bytes; echo remo''ved", "removed")
    request.continue_()
    tab.notice(f"A change in {HERE}/ failed. There is no such file or directory in the sandbox.")
    expect(_question(tab)).to_have_count(0)
    tab.run("echo he''re", "here")
    tab.page.unroute_all(behavior="ignoreErrors")


def test_what_is_shown_of_a_long_list_stays_after_a_change(door: Door, enter: Enter) -> None:
    """The neighbour of what was deleted has the focus, also where it is not in the first part."""
    tab = enter(door, **STILL)
    tab.run(f"rm -rf {HERE}; mkdir -p {HERE}; cd {HERE}; touch $(seq -f f%03g 600); echo ma''de", "made")
    tab.page.keyboard.press("Control+Shift+X")
    tab.page.get_by_role("button", name="Show more of 600").click()
    expect(rows(tab)).to_have_count(600)
    tab.page.locator("[data-name=f550] .entry").focus()
    tab.page.keyboard.press("Delete")
    _question(tab).get_by_role("button", name="Delete").click()
    expect(rows(tab)).to_have_count(599)
    _focused(tab, "f551")


@pytest.mark.parametrize("when", ["2024-05-06 12:00", "now"])
def test_a_date_is_short_and_whole_where_one_points(door: Door, enter: Enter, when: str) -> None:
    """The time of today, else the day, as the browser's language has it."""
    tab = enter(door, locale="de-DE", timezone_id="UTC")
    tab.run(f"rm -rf {HERE}; mkdir -p {HERE}; cd {HERE}; TZ=UTC touch -d '{when}' one; echo ma''de", "made")
    tab.page.keyboard.press("Control+Shift+X")
    short = tab.page.locator("#files .when")
    if when == "now":
        expect(short).to_have_text(re.compile("^[0-9]{2}:[0-9]{2}$"))
    else:
        expect(short).to_have_text("06.05.24")
        assert "6.5.2024, 12:00:00" in (tab.page.locator("#files .entry").get_attribute("title") or "")


def test_a_finger_has_the_same_within_320_pixels(door: Door, enter: Enter) -> None:
    tab = enter(door, **{**PHONE, **STILL, "viewport": {"width": 320, "height": 640}})
    opened(tab)
    for name in ("big", "a <b>folder"):
        tab.page.get_by_role("button", name=f"Actions for {name}").tap()
        menu = tab.page.locator("#context:popover-open")
        _within(menu)
        usable(tab, "#context")
        menu.get_by_role("menuitem", name="Rename").tap()
        _within(_question(tab))
        longer = f"{name} {'with a long name ' * 10}"
        tab.page.locator("#name-file-name").fill(longer)
        _question(tab).get_by_role("button", name="Rename").tap()
        tab.page.locator(f"[data-name='{longer}']").wait_for()
        tab.page.get_by_role("button", name=f"Actions for {name}").tap()
        menu.get_by_role("menuitem", name="Delete").tap()
        _within(_question(tab))
        usable(tab, "dialog[open]")
        _question(tab).get_by_role("button", name="Delete").tap()
        tab.page.locator(f"[data-name='{longer}']").wait_for(state="detached")
    expect(rows(tab)).to_have_text([name for name in FIRST if name not in ("big", "a <b>folder")])
    tab.page.get_by_role("button", name="New folder").tap()
    _within(_question(tab))
    tab.page.locator("#name-file-name").fill("made")
    _question(tab).get_by_role("button", name="Make").tap()
    expect(rows(tab).first).to_have_text("made")
    boxes = "[...document.querySelectorAll('#files :is(button, .small)')].map((one) => one.getBoundingClientRect())"
    assert max(tab.page.evaluate(f"() => {boxes}.map(({{right}}) => right)")) <= 320


def _within(element: Locator) -> None:
    box = element.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 320
