"""Files between the browser's machine and the sandbox."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.browser.conftest import Enter
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.waiting import until

BIG = 24 << 20

# What a browser does when a file is dropped; playwright has no hand for it.
DROP = """async ({name, url, where}) => {
  const bytes = await fetch(url).then((answer) => answer.text());
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name));
  const target = document.querySelector(where ?? "#panels");
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true});
    // Whatever is not prevented, the browser does: it leaves the page.
    if (target.dispatchEvent(event)) throw new Error(`${kind} was not taken`);
  }
}"""


def _digest(tab: Tab, name: str, digest: str) -> None:
    tab.run(f"clear; sha256sum {name} | cut -c1-64", digest)


def test_upload_and_download_keep_every_byte(either: Door, enter: Enter, tmp_path: Path) -> None:
    """A file goes to the shell's working directory and comes back the same, through disk and network only."""
    payload = os.urandom(BIG)
    (tmp_path / "payload").write_bytes(payload)
    digest = hashlib.sha256(payload).hexdigest()
    tab = enter(either)
    tab.run("mkdir -p /tmp/here; cd /tmp/here; pwd", "/tmp/here")
    tab.page.set_input_files("#upload-files", tmp_path / "payload")
    tab.notice("Uploaded payload (24 MiB)")
    _digest(tab, "payload", digest)
    with tab.page.expect_download() as expected:
        tab.page.click("#download")
        tab.page.fill("#download-path", "payload")
        tab.page.click("#download-dialog .primary")
    assert expected.value.suggested_filename == "payload"
    assert hashlib.sha256(Path(expected.value.path()).read_bytes()).hexdigest() == digest


def test_a_dropped_file_is_uploaded(door: Door, enter: Enter) -> None:
    """Dragging onto the terminal; the name may hold what it likes, and is typed as the shell reads it."""
    tab = enter(door)
    tab.page.evaluate(DROP, {"name": "it's a file.svg", "url": "favicon.svg"})
    tab.notice("Uploaded it's a file.svg")
    until(lambda: tab.lines()[-1].rstrip().endswith(r"'it'\''s a file.svg'"), PATIENCE, "the name")
    tab.page.keyboard.press("Control+C")
    content = (Path(__file__).parents[2] / "webshim" / "static" / "favicon.svg").read_bytes()
    _digest(tab, "*file.svg", hashlib.sha256(content).hexdigest())
    with tab.page.expect_download() as expected:
        tab.page.click("#download")
        tab.page.fill("#download-path", "it's a file.svg")
        tab.page.keyboard.press("Enter")
    assert Path(expected.value.path()).read_bytes() == content


def test_a_file_dropped_beside_the_terminal_does_not_leave_the_page(door: Door, enter: Enter) -> None:
    """The row of tabs is near, and a browser shows what is dropped there instead of the page."""
    tab = enter(door)
    tab.page.evaluate(DROP, {"name": "beside", "url": "favicon.svg", "where": "#tabs"})
    tab.notice("Uploaded beside")
    assert tab.lines()[-1].rstrip().endswith("$"), "the name is typed only for the terminal"


def test_an_upload_asks_before_it_replaces_and_keeps_the_mode(either: Door, enter: Enter, tmp_path: Path) -> None:
    """A program that is replaced can still be run."""
    tab = enter(either)
    tab.expected.append("412")
    tab.run("cd /tmp; echo old >tool; chmod 755 tool; cat tool", "old")
    (tmp_path / "tool").write_text("new\n")
    tab.page.set_input_files("#upload-files", tmp_path / "tool")
    tab.notice("tool is there already.")
    tab.run("clear; cat tool", "old")
    tab.page.get_by_role("button", name="Replace").click()
    tab.notice("Uploaded tool")
    tab.page.locator(".panel:visible .xterm").click()
    tab.run("clear; cat tool; stat -c %a tool", "new")
    tab.wait_line("755")


def test_a_file_that_is_not_there_is_a_sentence(door: Door, visitors: object, enter: Enter) -> None:
    """No page of an error, no empty file."""
    tab = enter(door)
    tab.expected.append("404")
    tab.page.click("#download")
    tab.page.fill("#download-path", "/nothing/here")
    tab.page.keyboard.press("Enter")
    tab.notice("/nothing/here was not downloaded")
    tab.run("echo on", "on")


def test_a_path_below_the_home_and_a_download_that_says_so(door: Door, enter: Enter) -> None:
    """As a shell would read it, from any working directory."""
    tab = enter(door)
    tab.run("echo at home >~/letter; cd /tmp; pwd", "/tmp")
    with tab.page.expect_download() as expected:
        tab.page.click("#download")
        tab.page.fill("#download-path", "~/letter")
        tab.page.keyboard.press("Enter")
    assert Path(expected.value.path()).read_text() == "at home\n"
    tab.notice("Downloading letter (8 bytes).")
