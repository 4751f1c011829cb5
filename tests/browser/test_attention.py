"""Programs that want to be noticed, and lists that follow what happens elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.browser.conftest import Enter
from tests.rig.browser import PATIENCE, Door, Tab, Visitor
from tests.rig.relay import Relay
from tests.rig.waiting import until

# What the page shows on the desktop. A browser without a head has no desktop; which it would be asked for is kept.
DESKTOP = """
globalThis.shownOnDesktop = [];
globalThis.Notification = class extends EventTarget {
  static permission = "granted";
  constructor(title, {body, tag}) { super(); shownOnDesktop.push({title, body, tag, shown: this}); }
  close() {}
};
Document.prototype.hasFocus = () => !globalThis.looksElsewhere;
"""
LOOKS_ELSEWHERE = (
    "(elsewhere) => (globalThis.looksElsewhere = elsewhere, elsewhere || dispatchEvent(new Event('focus')))"
)
MADE = """async () => {
  const headers = {"Content-Type": "application/json"};
  return (await fetch("api/sessions", {method: "POST", headers, body: "{}"})).status;
}"""
# Less than the time after which a page asks by itself.
SOON = 15


def _by_events_only(tab: Tab) -> None:
    """From now on the page's own questions for the list fail: what it learns, it learns from the stream."""
    tab.page.route(
        "**/api/sessions", lambda route: route.abort() if route.request.method == "GET" else route.continue_()
    )


def test_a_notification_reaches_tab_title_icon_and_desktop(door: Door, visitors: Callable[..., Visitor]) -> None:
    """OSC 9, 777, 99 and the bell of a tab that is not shown, or while the person looks elsewhere; seen is seen."""
    tab = visitors(door).tab()
    tab.page.add_init_script(DESKTOP)
    tab.open(door.link()).new_session().prompt()
    tab.type(r"sleep 2; printf '\033]777;notify;Claude;waits for you\007'" + "\n")
    tab.new_session().prompt()
    tab.page.locator("#tabs .tab.waits").wait_for()
    assert tab.page.title().startswith("● ")
    assert "favicon-waiting" in (tab.page.get_attribute("link[rel=icon]", "href") or "")
    assert "calls for attention" in (tab.page.locator("#tabs [role=tab]").first.get_attribute("aria-label") or "")
    tab.page.keyboard.press("Control+Shift+BracketLeft")
    until(lambda: not tab.page.title().startswith("●"), PATIENCE, "a plain title")
    assert tab.page.locator("#tabs .tab.waits").count() == 0
    assert "favicon-waiting" not in (tab.page.get_attribute("link[rel=icon]", "href") or "")
    assert tab.page.evaluate("() => shownOnDesktop.length") == 0


def test_a_notification_reaches_the_desktop_while_the_person_looks_elsewhere(
    door: Door, visitors: Callable[..., Visitor]
) -> None:
    """OSC 9 and 99 of the tab that is shown; looking back takes the mark away."""
    tab = visitors(door).tab()
    tab.page.add_init_script(DESKTOP)
    tab.open(door.link()).new_session()

    def shown(text: str) -> bool:
        return text in tab.page.evaluate("() => shownOnDesktop.map(({body}) => body)")

    for sequence, text in ((r"\033]9;green\007", "green"), (r"\033]99;i=1;ready\033\\", "ready")):
        tab.prompt().type(f"sleep 1; printf '{sequence}'; sleep 6\n")
        tab.page.evaluate(LOOKS_ELSEWHERE, True)
        until(partial(shown, text), PATIENCE, text)
        assert tab.page.title().startswith("● ")
        tab.page.evaluate(LOOKS_ELSEWHERE, False)
        assert not tab.page.title().startswith("● ")


def test_progress_is_on_the_tab(door: Door, enter: Enter) -> None:
    """OSC 9;4, as ConEmu and systemd have it."""
    tab = enter(door)
    tab.type(r"printf '\033]9;4;1;42\007'" + "\n")
    button = tab.page.locator("#tabs [role=tab]")
    until(lambda: "42 % done" in (button.get_attribute("aria-label") or ""), PATIENCE, "a share")
    tab.type(r"printf '\033]9;4;0\007'" + "\n")
    until(lambda: "done" not in (button.get_attribute("aria-label") or ""), PATIENCE, "no share")


def test_a_session_that_nobody_looks_at_calls_too(door: Door, visitors: Callable[..., Visitor]) -> None:
    """Left running: the home page says what it wants, and the title has the mark."""
    tab = visitors(door).tab("Failed to load resource").open(door.link()).new_session().prompt()
    _by_events_only(tab)
    call = "printf '\\033]9;bu%s is {}\\007' ild"
    tab.type(f"sleep 3; {call.format('green')}; sleep 4; {call.format('red')}; exec sleep 1000\n")
    tab.new_session().prompt()
    tab.page.keyboard.press("Control+Shift+BracketLeft")
    tab.page.keyboard.press("Control+Shift+E")
    tab.page.keyboard.press("Delete")
    tab.page.get_by_role("button", name="Leave it running").click()
    until(lambda: tab.page.title().startswith("● "), SOON, "the mark")
    tab.page.get_by_role("button", name="Home").click()
    tab.page.locator("#running:visible li", has_text="calls for attention: build is").wait_for(timeout=SOON * 1000)
    assert not tab.page.title().startswith("● ")
    # What a row says changes around the focus.
    tab.page.locator("#running li button").nth(1).focus()
    tab.page.locator("#running:visible li", has_text="build is red").wait_for(timeout=SOON * 1000)
    assert "build is red" in (tab.page.locator("#running li button:focus").get_attribute("aria-label") or "")


def test_lists_follow_what_happens_elsewhere(door: Door, visitors: Callable[..., Visitor]) -> None:
    """Another window has a tab more, and one less, without being looked at; one stream serves both windows."""
    visitor = visitors(door)
    tab = visitor.tab().open(door.link()).new_session().prompt()
    other = visitor.tab("Failed to load resource").open()
    other.elsewhere()
    _by_events_only(other)
    tab.new_session().prompt()
    other.page.locator("#tabs .tab").nth(1).wait_for(timeout=SOON * 1000)
    identity = tab.page.evaluate("() => sshgate.shown.id")
    tab.page.evaluate("(id) => fetch(`api/sessions/${id}`, {method: 'DELETE'})", identity)
    until(lambda: other.page.locator("#tabs .tab").count() == 1, SOON, "one tab less")
    # The tab that reads the stream goes; the other takes its place.
    tab.page.close()
    assert other.page.evaluate(MADE) == 201
    other.page.locator("#tabs .tab").nth(1).wait_for()


def test_the_bell_of_a_tab_that_is_not_shown_marks_it(door: Door, enter: Enter) -> None:
    """Output that holds a bell, and no more."""
    tab = enter(door)
    tab.type(r"sleep 1; printf '\a'" + "\n")
    tab.new_session().prompt()
    tab.page.locator("#tabs .tab.waits").wait_for(timeout=SOON * 1000)


def test_a_call_made_while_the_line_is_lost_is_shown(
    visitors: Callable[..., Visitor], behind: tuple[Relay, Door]
) -> None:
    """The page resumes with output that it has not seen, whether the gateway had noticed the loss by then or not."""
    network, door = behind
    tab = visitors(door).tab("Failed to load resource", "WebSocket")
    tab.page.add_init_script(DESKTOP)
    tab.open(door.link()).new_session().prompt()
    tab.run(r"echo go''es; sleep 2; printf '\033]9;gr%s\007' een; echo do''ne", "goes")
    tab.page.evaluate(LOOKS_ELSEWHERE, True)
    network.cut()
    tab.wait_state("reconnecting")
    tab.page.wait_for_timeout(2500)
    network.mend()
    tab.wait_state("connected").wait_line("done")
    until(lambda: tab.page.title().startswith("● "), PATIENCE, "the mark")
    assert "green" in tab.page.evaluate("() => shownOnDesktop.map(({body}) => body)")


def test_a_program_that_calls_without_end_changes_the_page_now_and_then(
    door: Door, visitors: Callable[..., Visitor]
) -> None:
    """Bells, notifications, progress and titles, 4000 times each."""
    tab = visitors(door).tab()
    tab.page.add_init_script(DESKTOP)
    tab.open(door.link()).new_session().prompt()
    tab.page.evaluate(LOOKS_ELSEWHERE, True)
    tab.page.evaluate(
        """() => {
          const described = sshgate._describe.bind(sshgate);
          globalThis.described = 0;
          sshgate._describe = () => (globalThis.described++, described());
        }"""
    )
    each = r"\a\033]9;call %d\a\033]9;4;1;%d\a\033]0;title %d\a"
    tab.run(f"for i in $(seq 4000); do printf '{each}' $i $((i % 100)) $i; done; echo do''ne", "done")
    tab.page.locator("#tabs .tab", has_text="title 4000").wait_for()
    assert tab.page.title().startswith("● ")
    assert len(tab.page.evaluate("() => shownOnDesktop")) <= 5
    assert tab.page.evaluate("() => described") < 400
