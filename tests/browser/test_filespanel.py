"""The list of files at the side: where it is, what it shows, what goes in and comes out."""

from __future__ import annotations

import tarfile
from pathlib import Path

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Enter
from tests.browser.test_files import DROP
from tests.browser.test_hands import PHONE
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.looks import AXE, THEMES, violations, wear
from tests.rig.waiting import until

HERE = "/tmp/here"
# A page of an attacker, a picture, a name with markup, a link to a folder, bytes that are no text.
MADE = (
    f"rm -rf {HERE}; mkdir -p {HERE}/'a <b>folder'/deep; cd {HERE}; echo '<script>alert(1)</script><h1>no' >page.html; "
    'echo \'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="7"/>\' >dot.svg; head -c 300000 /dev/zero >big; '
    "printf 'a\\0b' >bytes; ln -s 'a <b>folder' link; echo hidden >.hidden; echo ma''de"
)
FOCUS_IS = """() => {
  const {activeElement: focused, body} = document;
  return focused === body ? "nowhere" : document.getElementById("files").contains(focused) ? "in" : "out";
}"""
FOCUSED = "() => document.activeElement.closest('li')?.dataset.name ?? document.activeElement.textContent"


def rows(tab: Tab) -> Locator:
    return tab.page.locator("#files:visible .entries li .name")


def opened(tab: Tab) -> Tab:
    tab.run(MADE, "made")
    tab.page.keyboard.press("Control+Shift+X")
    rows(tab).first.wait_for()
    return tab


def act(tab: Tab, name: str, what: str) -> None:
    """By the menu of a row, with a mouse."""
    tab.page.locator(f"[data-name='{name}']").hover()
    tab.page.get_by_role("button", name=f"Actions for {name}").click()
    tab.page.get_by_role("menuitem", name=what).click()


def _crumbs(tab: Tab) -> list[str]:
    return tab.page.locator("#files .crumb").all_text_contents()


def usable(tab: Tab, element: str | None = None) -> None:
    if not AXE.exists():
        return
    for theme in THEMES:
        wear(tab.page, theme)
        assert not violations(tab.page, element), theme


def test_folders_previews_and_the_terminal_by_keyboard(door: Door, enter: Enter) -> None:
    """It is where the shell is, goes where one goes, and shows text as text; what it cannot show it says."""
    tab = opened(enter(door))
    keyboard = tab.page.keyboard
    expect(rows(tab)).to_have_text(["a <b>folder", ".hidden", "big", "bytes", "dot.svg", "link", "page.html"])
    assert _crumbs(tab) == ["/", "tmp", "here"]
    assert tab.page.evaluate(FOCUSED) == "a <b>folder"
    usable(tab)
    keyboard.press("Enter")
    expect(rows(tab)).to_have_text(["deep"])
    keyboard.press("Backspace")
    expect(rows(tab)).to_have_count(7)
    until(lambda: tab.page.evaluate(FOCUSED) == "a <b>folder", PATIENCE, "the folder that one came from")
    keyboard.press("End")
    keyboard.press("Enter")
    expect(tab.page.locator(".preview pre")).to_have_text("<script>alert(1)</script><h1>no\n")
    usable(tab)
    keyboard.press("Escape")
    assert tab.page.evaluate(FOCUSED) == "page.html"
    for name, words in (("bytes", "binary, or text that is not UTF-8: 3 bytes."), ("big", "too large: 293 KiB, and")):
        tab.page.click(f"[data-name={name}] .entry")
        tab.page.locator(".preview [role=status]", has_text=words).wait_for()
        keyboard.press("Escape")
    tab.page.click("[data-name='dot.svg'] .entry")
    tab.page.locator(".preview img").wait_for()
    assert tab.page.evaluate("() => document.querySelector('.preview img').naturalWidth") == 9
    keyboard.press("Escape")
    tab.page.click("[data-name=link] .entry")
    expect(rows(tab)).to_have_text(["deep"])
    # It stays there while one types; with the terminal it goes on only when asked to.
    tab.page.locator(".panel:visible .xterm").click()
    tab.run("cd /; mkdir -p /tmp/there; cd /tmp/there; pwd", "/tmp/there")
    assert _crumbs(tab)[-1] == "a <b>folder"
    tab.page.get_by_role("button", name="Follow the terminal").click()
    expect(tab.page.locator("#files .crumb").last).to_have_text("there")
    keyboard.press("Control+Shift+X")
    expect(tab.page.locator("#files")).to_be_hidden()
    assert tab.page.evaluate("() => document.activeElement.matches('.xterm *')")
    tab.page.click("#files-button")
    tab.page.locator(".panel:visible .xterm").click()
    tab.run(f"cd {HERE}; echo back", "back")
    expect(rows(tab)).to_have_count(7)
    act(tab, "dot.svg", "Type its path")
    until(lambda: tab.lines()[-1].rstrip().endswith(f"{HERE}/dot.svg"), PATIENCE, "the path")
    keyboard.press("Control+C")


def test_what_is_uploaded_asks_has_progress_and_comes_back(either: Door, enter: Enter, tmp_path: Path) -> None:
    """Files, a folder, a drop on a row; a file that is there is asked about and keeps its mode."""
    tab = enter(either)
    tab.expected.append("412")
    opened(tab)
    files = tab.page.locator("#files input[type=file]").first
    transfers = tab.page.locator(".transfers li")
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/one").write_text("one\n")
    (tmp_path / "tree/two").write_text("two\n")
    (tmp_path / "page.html").write_text("another\n")
    (tmp_path / "fresh").write_text("fresh\n")
    tab.page.locator(".panel:visible .xterm").click()
    tab.run("chmod 750 page.html; echo changed", "changed")
    files.set_input_files([tmp_path / "page.html", tmp_path / "fresh"])
    expect(transfers.last).to_contain_text("page.html is there already.")
    transfers.last.get_by_role("button", name="Skip").click()
    expect(transfers.last).to_contain_text("Uploaded 1 file.")
    files.set_input_files(tmp_path / "page.html")
    transfers.last.get_by_role("button", name="Replace").click()
    expect(transfers.last).to_contain_text("Uploaded page.html (8 bytes).")
    tab.page.locator("#files input[type=file]").last.set_input_files(tmp_path / "tree")
    expect(transfers.last).to_contain_text("Uploaded 2 files.")
    expect(rows(tab)).to_have_count(9)
    tab.page.evaluate(DROP, {"name": "dropped", "url": "favicon.svg", "where": "[data-folder]"})
    expect(transfers.last).to_contain_text("Uploaded dropped")
    usable(tab)
    tab.page.locator(".panel:visible .xterm").click()
    tab.run("clear; stat -c %a page.html; cat page.html tree/*/one tree/two fresh; ls a*; echo listed", "listed")
    assert {"750", "another", "one", "two", "fresh", "deep  dropped"} <= set(map(str.rstrip, tab.lines()))
    with tab.page.expect_download() as expected:
        tab.page.get_by_role("button", name="Download this folder as an archive").click()
    assert expected.value.suggested_filename == "here.tar"
    with tarfile.open(expected.value.path()) as archive:
        assert {"./tree/sub/one", "./link", "./a <b>folder/dropped"} <= set(archive.getnames())
    with tab.page.expect_download() as expected:
        act(tab, "fresh", "Download")
    assert Path(expected.value.path()).read_text() == "fresh\n"
    tab.page.route("**/files?path=*never", lambda route: None)
    (tmp_path / "never").write_text("never\n")
    files.set_input_files(tmp_path / "never")
    expect(transfers.last).to_contain_text("Uploading never")
    transfers.last.get_by_role("button", name="Cancel").click()
    expect(transfers.last).to_contain_text("Cancelled.")


def test_it_fits_a_small_phone(door: Door, enter: Enter) -> None:
    """Over all else, which is out of reach until Escape; behind the button for more, and within 320 pixels."""
    tab = enter(door, **{**PHONE, "viewport": {"width": 320, "height": 640}})
    tab.run(MADE, "made")
    tab.page.tap("#more-button")
    tab.page.locator("#palette").get_by_text("Files", exact=True).tap()
    rows(tab).first.wait_for()
    wide = "() => [...document.querySelectorAll('#files button')].map((one) => one.getBoundingClientRect().right)"
    assert max(tab.page.evaluate(wide)) <= 320
    usable(tab)
    assert tab.page.locator("#files").bounding_box() == {"x": 0, "y": 0, "width": 320, "height": 640}
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate(FOCUS_IS) in ("in", "nowhere")
    # What is beside it on a wider screen is in reach.
    tab.page.set_viewport_size({"width": 900, "height": 640})
    tab.page.focus("#files-button")
    assert tab.page.evaluate(FOCUS_IS) == "out"
    tab.page.set_viewport_size({"width": 320, "height": 640})
    until(lambda: tab.page.evaluate(FOCUS_IS) != "out", PATIENCE, "a header out of reach")
    tab.page.locator("#files").get_by_role("button", name="big", exact=False).first.focus()
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#files")).to_be_hidden()
    # Also where a tap beside all buttons has left the focus nowhere.
    tab.page.keyboard.press("Control+Shift+X")
    until(lambda: tab.page.evaluate(FOCUS_IS) == "in", PATIENCE, "the focus")
    tab.page.evaluate("() => document.activeElement.blur()")
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#files")).to_be_hidden()
    tab.run("echo clo''sed", "closed")
    tab.page.keyboard.press("Control+Shift+X")
    rows(tab).first.wait_for()
    tab.page.get_by_role("button", name="Actions for big").tap()
    tab.page.get_by_role("menuitem", name="Type its path").tap()
    expect(tab.page.locator("#files")).to_be_hidden()
    until(lambda: "".join(tab.lines()).rstrip().endswith(f"{HERE}/big"), PATIENCE, "the path")
