"""What comes at an awkward moment: before a thing is there, once it has gone, twice, or while another goes on."""

from __future__ import annotations

from playwright.sync_api import Route, expect

from tests.browser.conftest import Enter
from tests.browser.test_addresses import COUNT
from tests.browser.test_hands import PHONE
from tests.browser.test_splits import PLACES
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.waiting import until

NOTIFY = """(texts) => {
  const page = document.querySelector("link[rel=modulepreload][href*=page]").href;
  return import(page).then(({modules}) => {
    const {notify} = modules["notices.js"]();
    notify("asks", {label: "Yes", act: () => {}});
    for (const text of texts) notify(text);
  });
}"""


class Gate:
    """Requests wait here until they are let on."""

    def __init__(self, tab: Tab, pattern: str, method: str = "GET") -> None:
        self._tab = tab
        self._pattern = pattern
        self._method = method
        self._opened = False
        self.held: list[Route] = []
        tab.page.route(pattern, self._take)

    def _take(self, route: Route) -> None:
        if route.request.method == self._method and not self._opened:
            self.held.append(route)
        else:
            route.fallback()

    def wait(self) -> None:
        """One of them is here. The page's events are handled while it is asked something."""
        until(lambda: self._tab.page.evaluate("1") and self.held, PATIENCE, f"a request for {self._pattern}")

    def open(self) -> None:
        self._opened = True
        for route in self.held:
            route.continue_()


def test_a_terminal_that_is_closed_before_it_is_there_ends(door: Door, enter: Enter) -> None:
    """Nothing runs on behind the person's back."""
    tab = enter(door)
    gate = Gate(tab, "**/api/sessions", "POST")
    tab.page.keyboard.press("Control+Shift+Enter")
    gate.wait()
    tab.page.keyboard.press("Control+Shift+Backspace")
    until(lambda: len(tab.sessions()) == 1, PATIENCE, "one tab less")
    with tab.page.expect_response(lambda response: response.request.method == "DELETE"):
        gate.open()
    until(lambda: tab.page.evaluate(COUNT) == 1, PATIENCE, "its end")


def test_what_could_not_be_ended_comes_back(door: Door, enter: Enter) -> None:
    """The gateway did not answer: the tab is there again, and what ran in it."""
    tab = enter(door)
    tab.expected.append("Failed to load resource")
    tab.run("mark=mine; echo set", "set")
    tab.page.route("**/api/sessions/*", lambda route: route.abort(), times=1)
    tab.page.keyboard.press("Control+Shift+Backspace")
    tab.page.get_by_role("button", name="End it").click()
    tab.page.locator(".notice.bad").wait_for()
    tab.page.locator("#tabs [role=tab]").click()
    tab.wait_state("connected").run("echo it is $mark", "it is mine")


def test_a_split_tab_survives_the_close_of_one_before_the_other_is_back(door: Door, enter: Enter) -> None:
    """After a reload that finds one of its two terminals only."""
    tab = enter(door)
    tab.page.keyboard.press("Control+Shift+D")
    tab.page.wait_for_function("() => sshgate.sessions.size === 2")
    tab.page.locator(".pane.focused .panel[data-state=connected]").wait_for()
    tab.run("mark=late; echo set", "set")
    late = tab.page.evaluate("() => sshgate.shown.id")
    there = [False]

    def listed(route: Route) -> None:
        if route.request.method != "GET" or there[0]:
            route.fallback()
            return
        answer = route.fetch()
        known = [one for one in answer.json()["sessions"] if one["id"] != late]
        route.fulfill(response=answer, json={"sessions": known})

    tab.page.route("**/api/sessions", listed)
    tab.page.route("**/api/held-sessions", lambda route: None)
    tab.page.reload()
    tab.page.locator("#tabs .tab").wait_for()
    tab.page.locator("#tabs .tab").click(button="middle")
    tab.page.get_by_role("button", name="Leave it running").click()
    there[0] = True
    tab.wait_state("connected").run("echo it is $mark", "it is late")
    assert tab.page.evaluate(PLACES) == [[0, 0, 20, 20]]


def test_one_list_of_files_however_often_it_is_wanted(door: Door, enter: Enter) -> None:
    """Pressed three times at once; and a link leads nowhere once the person has gone on."""
    tab = enter(door)
    tab.run("mkdir -p /tmp/here/real; cd /tmp/here; ln -sfn real link; echo ma''de", "made")
    for _ in range(3):
        tab.page.keyboard.press("Control+Shift+X")
    row = tab.page.locator("#files:visible [data-name=link] .entry")
    row.wait_for()
    assert tab.page.locator("#files").count() == 1
    looked = Gate(tab, "**/files?*from=1000000*")
    row.click()
    looked.wait()
    tab.page.locator("#files .crumb").first.click()
    tab.page.locator("#files [data-name=tmp]").wait_for()
    with tab.page.expect_response("**/files?*from=1000000*"):
        looked.open()
    tab.page.wait_for_timeout(300)
    assert tab.page.locator("#files .crumb").count() == 1


def test_a_key_that_is_held_down_does_a_thing_once(door: Door, enter: Enter) -> None:
    """One terminal more, not thirty; the palette's own key closes it; where no sandbox runs, a split says so."""
    tab = enter(door)
    keyboard = tab.page.keyboard
    for key in ("Control", "Shift", "Enter", "Enter", "Enter"):
        keyboard.down(key)
    for key in ("Enter", "Shift", "Control"):
        keyboard.up(key)
    tab.page.locator("#tabs .tab").nth(1).wait_for()
    tab.wait_state("connected").prompt()
    assert len(tab.sessions()) == 2
    palette = tab.page.locator("#palette[open]")
    keyboard.press("Control+Shift+P")
    palette.wait_for()
    keyboard.press("Control+Shift+P")
    palette.wait_for(state="detached")
    tab.page.locator(".panel:visible .xterm").click()
    tab.type("exit\n")
    tab.wait_state("ended")
    keyboard.press("Control+Shift+D")
    tab.notice("No sandbox runs here for another terminal.")


def test_home_asks_once_before_it_ends_what_goes_on(door: Door, enter: Enter) -> None:
    """Pressed twice at once: one answer ends it once; Escape does nothing."""
    tab = enter(door)
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.method))
    tab.page.click("#home")
    end = tab.page.locator("#running-list").get_by_role("button", name="End:")
    question = tab.page.locator("#end-dialog[open]")
    end.click()
    question.wait_for()
    tab.page.keyboard.press("Escape")
    question.wait_for(state="detached")
    end.evaluate("(button) => (button.click(), button.click())")
    question.wait_for()
    tab.page.get_by_role("button", name="End it").click()
    until(lambda: tab.page.evaluate(COUNT) == 0, PATIENCE, "its end")
    assert asked.count("DELETE") == 1


def test_a_turned_phone_leaves_the_focus_where_it_is(door: Door, enter: Enter) -> None:
    tab = enter(door, **PHONE)
    tab.page.focus("#more-button")
    tab.page.set_viewport_size({"width": 800, "height": 390})
    tab.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert tab.page.evaluate("() => document.activeElement.id") == "more-button"


def test_no_search_opens_in_a_terminal_that_is_gone(door: Door, enter: Enter) -> None:
    """What finds in xterm.js came once the terminal was closed: there is nothing to find."""
    tab = enter(door)
    gate = Gate(tab, "**/addon-search.js")
    tab.page.keyboard.press("Control+Shift+F")
    gate.wait()
    tab.page.locator("#tabs .tab").click(button="middle")
    tab.page.get_by_role("button", name="End it").click()
    tab.page.locator("#welcome:visible").wait_for()
    with tab.page.expect_response("**/addon-search.js"):
        gate.open()
    tab.page.wait_for_timeout(500)
    assert tab.page.locator(".notice.bad").count() == 0


def test_what_asks_stays_when_there_are_many_notices(door: Door, enter: Enter) -> None:
    tab = enter(door)
    tab.page.evaluate(NOTIFY, ["one", "two", "three", "four", "five"])
    expect(tab.page.locator(".notice span")).to_have_text(["asks", "three", "four", "five"])


def test_commands_of_which_a_word_is_begun_come_first(door: Door, enter: Enter) -> None:
    """Of those that have the letters inside, too: "Clear" is earlier in the list of actions."""
    tab = enter(door)
    tab.page.keyboard.press("Control+Shift+P")
    tab.page.locator("#palette[open] input:focus").wait_for()
    tab.type("le")
    rows = tab.page.locator("#palette [role=option] .label")
    expect(rows.first).to_have_text("Leave the terminal")
    titles = rows.all_text_contents()
    assert titles.index("Larger letters") < titles.index("Clear")


def test_a_tab_goes_although_its_end_was_not_known_at_first(door: Door, enter: Enter) -> None:
    """What is ended elsewhere is held a moment longer than it is listed: that answer is not the last word."""
    tab = enter(door)
    tab.new_session().prompt()
    other = Tab(tab.page.context.new_page(), tab.address).open()
    other.page.locator("#tabs .tab").nth(1).wait_for()
    other.elsewhere()
    held = "() => fetch('api/held-sessions').then((found) => found.json())"
    before = tab.page.evaluate(held)
    other.page.route("**/api/held-sessions", lambda route: route.fulfill(json=before), times=1)
    with other.page.expect_response("**/api/held-sessions"):
        tab.page.evaluate("() => fetch(`api/sessions/${sshgate.shown.id}`, {method: 'DELETE'})")
    until(lambda: other.page.locator("#tabs .tab").count() == 1, PATIENCE, "one tab less")


def test_a_tab_goes_although_its_end_takes_long(door: Door, enter: Enter) -> None:
    """It is held at both looks that follow its being unlisted; a later one finds that it has ended."""
    tab = enter(door)
    tab.new_session().prompt()
    other = Tab(tab.page.context.new_page(), tab.address).open()
    other.page.locator("#tabs .tab").nth(1).wait_for()
    other.elsewhere()
    before = tab.page.evaluate("() => fetch('api/held-sessions').then((found) => found.json())")
    looks: list[Route] = []

    def hold(route: Route) -> None:
        looks.append(route)
        route.fulfill(json=before) if len(looks) <= 2 else route.continue_()

    other.page.route("**/api/held-sessions", hold)
    tab.page.evaluate("() => fetch(`api/sessions/${sshgate.shown.id}`, {method: 'DELETE'})")
    until(lambda: other.page.evaluate("1") and len(looks) == 2, PATIENCE, "two looks")
    assert other.page.locator("#tabs .tab").count() == 2
    other.page.evaluate("""() => {
      const now = Date.now.bind(Date);
      Date.now = () => now() + 20_000;
      dispatchEvent(new Event("focus"));
    }""")
    until(lambda: other.page.locator("#tabs .tab").count() == 1, PATIENCE, "one tab less")
