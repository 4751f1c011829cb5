"""A real Chromium at the page, driven by playwright; what it complains of fails the test."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page
from playwright.sync_api import TimeoutError as TooLate

from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# A busy machine makes a browser slow.
PATIENCE = 20.0

# The screen's lines, and above them the scrollback's.
LINES = """() => {
  const buffer = sshgate.shown.screen.terminal.buffer.active;
  return Array.from({length: buffer.length}, (_, line) => buffer.getLine(line).translateToString(true));
}"""
# Every cell of the screen with its colours and attributes, the cursor, the modes.
SCREEN = """() => {
  const {terminal} = sshgate.shown.screen;
  const {active} = terminal.buffer;
  const cells = [];
  for (let row = 0; row < terminal.rows; row += 1) {
    for (let column = 0; column < terminal.cols; column += 1) {
      const cell = active.getLine(active.baseY + row)?.getCell(column);
      cells.push(cell ? `${cell.getChars() || " "}/${cell.getFgColor()}/${cell.getBgColor()}/${cell.isBold()}` : "");
    }
  }
  return {type: active.type, cursor: [active.cursorX, active.cursorY], modes: {...terminal.modes}, cells};
}"""
# At one moment: a tab that goes between two looks would be waited for.
STATES = "(tabs) => tabs.map(({dataset}) => dataset.state ?? '')"
VIOLATIONS = """
globalThis.violations = [];
document.addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) =>
  violations.push(`${violatedDirective}: ${blockedURI}`));
"""


@dataclass(frozen=True)
class Door:
    """A gateway whose page is at ``address``, and its user at ssh."""

    gateway: Gateway
    address: str
    ssh: Ssh

    def link(self) -> str:
        """A fresh login link."""
        output = self.ssh.run("web", options=("-s",))
        found = re.search(r"https?://\S+#login=\S+", output.both)
        assert output.status == 0, output.both
        assert found is not None, output.both
        return found[0]


@dataclass
class Tab:
    """One browser tab with the page. ``expected`` are parts of complaints that belong to the test."""

    page: Page
    address: str
    expected: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.add_init_script(VIOLATIONS)
        self.page.on("console", lambda message: self._complain(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self._complain(str(error)))

    def _complain(self, text: str) -> None:
        if not any(part in text for part in self.expected):
            self.complaints.append(text)

    # --- the page ---

    def open(self, link: str | None = None) -> Tab:
        """Come by a login link, or to the page as it is; returns when it asks for something."""
        self.page.goto(link or self.address)
        try:
            self.page.locator(
                "#welcome:visible, .panel:visible, #login:visible, #failure:visible, dialog[open]"
            ).first.wait_for()
        except TooLate as error:
            raise AssertionError(f"the page shows nothing; it complained: {self.complaints}") from error
        return self

    def new_session(self, profile: str | None = None, name: str | None = None) -> Tab:
        """A new tab of the page, running."""
        before = len(self.sessions())
        if profile is None and name is None:
            self.page.keyboard.press("Control+Shift+Enter") if self.sessions() else self.page.click("#first-session")
        else:
            self.page.click("#new-with" if self.sessions() else "#choose-session")
            if profile is not None:
                self.page.select_option("#new-profile", profile)
            self.page.fill("#new-name", name or "")
            self.page.click("#new-dialog .primary")
        # The session that was shown before is connected too.
        self.page.locator("#tabs .tab").nth(before).wait_for(state="attached")
        return self.wait_state("connected")

    def sessions(self) -> list[str]:
        """The states of all tabs of the page, in their order."""
        states: list[str] = self.page.locator("#tabs .tab").evaluate_all(STATES)
        return states

    def wait_state(self, state: str) -> Tab:
        """Return when the shown session is in this state."""
        self.page.locator(f".panel:visible[data-state={state}]").wait_for()
        return self

    def says(self, text: str) -> None:
        """Return when the bar of the shown session says this."""
        self.page.locator(".panel:visible .state", has_text=text).wait_for()

    def elsewhere(self) -> Tab:
        """Select the first tab, which another window shows: by itself a window shows none of those."""
        self.page.locator("#tabs .tab button").first.click()
        self.says("open in another window")
        return self

    def press(self, button: str) -> None:
        """A button of that bar."""
        self.page.locator(".panel:visible .state").get_by_role("button", name=button, exact=True).click()

    def notice(self, text: str) -> None:
        """Return when a notice says this."""
        self.page.locator(".notice", has_text=text).first.wait_for()

    def search(self, words: str) -> None:
        """Open the search, which is fetched when first wanted, and type these."""
        self.page.keyboard.press("Control+Shift+F")
        self.page.locator(".search input:focus").wait_for()
        self.type(words)

    # --- the terminal ---

    def type(self, text: str) -> None:
        """Keys, one after the other; ``\\n`` is Enter."""
        self.page.keyboard.type(text)

    def prompt(self) -> Tab:
        """Return when a shell waits."""
        until(lambda: self.lines()[-1].rstrip().endswith(("$", "#")), PATIENCE, "a prompt")
        return self

    def focused(self) -> Tab:
        """Return when the terminal has the focus.

        A dialog or a menu that has just gone gives it back a moment later: no hand is that fast.
        """
        self.page.locator(".xterm-helper-textarea:focus").wait_for(state="attached")
        return self

    def run(self, command: str, answer: str) -> None:
        """Type a command; return when a line of the screen is its answer."""
        self.prompt().focused().type(f"{command}\n")
        self.wait_line(answer)

    def lines(self) -> list[str]:
        """What the terminal holds, without the empty lines at its end; at least one line."""
        lines: list[str] = self.page.evaluate(LINES)
        while len(lines) > 1 and not lines[-1]:
            lines.pop()
        return lines

    def wait_line(self, wanted: str, limit: float = PATIENCE) -> None:
        """Return when a line is exactly this."""
        try:
            until(lambda: wanted in [line.rstrip() for line in self.lines()], limit, f"a line {wanted!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen ends with {self.lines()[-8:]}") from None

    def screen(self) -> dict[str, Any]:
        """Everything that is drawn, and how the terminal would answer."""
        seen: dict[str, Any] = self.page.evaluate(SCREEN)
        return seen

    def size(self) -> tuple[int, int]:
        """Rows and columns, as ``stty size`` says them."""
        size = self.page.evaluate("() => sshgate.shown.screen.size")
        return size["rows"], size["cols"]

    def wait_for_size(self) -> None:
        """Return when ``stty size`` in the shell is what is drawn. In a pod what is typed may overtake a size."""
        rows, columns = self.size()
        self.run(f"until [ \"$(stty size)\" = '{rows} {columns}' ]; do sleep 0.1; done; echo FIT''TED", "FITTED")

    # --- the end ---

    def verify(self) -> None:
        """No error on the console, no violation of the content security policy."""
        violations = self.page.evaluate("() => globalThis.violations ?? []")
        assert not violations, violations
        assert not self.complaints, self.complaints


@dataclass
class Visitor:
    """A browser of a person's own: its cookies, its storage, its tabs."""

    context: BrowserContext
    address: str
    tabs: list[Tab] = field(default_factory=list)

    def tab(self, *expected: str) -> Tab:
        """Another tab, empty yet."""
        tab = Tab(self.context.new_page(), self.address, list(expected))
        self.tabs.append(tab)
        return tab

    def verify(self) -> None:
        """Each of its tabs that is still there had nothing to complain of."""
        for tab in self.tabs:
            if not tab.page.is_closed():
                tab.verify()
