"""What engines differ in, in a second one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.browser import Door
from tests.rig.firefox import FIREFOX, Firefox
from tests.rig.waiting import until

LINES = """(() => {
  const {active} = sshgate.shown.screen.terminal.buffer;
  const lines = Array.from({length: active.length}, (_, line) => active.getLine(line).translateToString(true));
  while (lines.length > 1 && !lines.at(-1)) lines.pop();
  return lines;
})()"""


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    if not FIREFOX.exists():
        pytest.skip("no firefox on this machine: apt-get install firefox-esr")
    with Firefox(tmp_path_factory.mktemp("firefox")) as browser:
        yield browser


def line(firefox: Firefox, wanted: str) -> None:
    until(lambda: wanted in firefox.evaluate(LINES), 30, f"a line {wanted!r}")


def test_a_visit_in_a_second_engine(door: Door, firefox: Firefox) -> None:
    """Login, typeface, typing, the page's keys, search, Escape in every dialog, a reload."""
    firefox.open(door.link())
    firefox.wait("document.querySelector('#first-session')?.checkVisibility()")
    assert firefox.evaluate("location.href") == door.address
    assert firefox.evaluate("document.fonts.check('14px \"JetBrains Mono\"')")
    firefox.evaluate("document.querySelector('#first-session').click()")
    firefox.wait("globalThis.sshgate?.shown?.state === 'connected' && document.activeElement.matches('textarea')")
    firefox.wait(f"/[$#]\\s*$/.test({LINES}.at(-1))")
    firefox.type("echo second''engine\n")
    line(firefox, "secondengine")

    for dialog in firefox.evaluate("[...document.querySelectorAll('dialog')].map(({id}) => id)"):
        page = "document.querySelector('link[rel=modulepreload][href*=page]').href"
        asked = f"modules['dialogs.js']().asked('{dialog}')"
        firefox.evaluate(f"import({page}).then(({{modules}}) => void (globalThis.answer = {asked}))")
        firefox.wait(f"document.getElementById('{dialog}').open")
        firefox.press("Escape")
        assert firefox.evaluate("globalThis.answer") == "cancel", dialog

    firefox.evaluate("sshgate.shown.screen.focus()")
    firefox.press("Control", "Shift", "F")
    firefox.wait("document.activeElement.matches('.search input')")
    firefox.type("engine")
    firefox.wait("/of/.test(document.querySelector('.search .count').textContent)")
    firefox.press("Escape")
    firefox.wait("document.activeElement.matches('textarea')")
    # Ctrl+Shift+P is the browser's own there.
    firefox.press("Control", "Shift", " ")
    firefox.wait("document.activeElement.matches('#palette[open] input')")
    firefox.press("Escape")
    firefox.wait("document.activeElement.matches('textarea')")
    firefox.press("Control", "Shift", "E")
    firefox.press("Delete")
    firefox.wait("document.querySelector('#close-dialog').open")
    firefox.press("Escape")
    assert firefox.evaluate("sshgate.sessions.size") == 1

    firefox.evaluate("void (globalThis.before = true, location.reload())")
    firefox.wait("!globalThis.before && globalThis.sshgate?.shown?.state === 'connected'")
    line(firefox, "secondengine")
    firefox.evaluate("sshgate.shown.end()")
    assert not firefox.complaints
