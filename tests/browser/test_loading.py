"""The first load: what it costs, and what is there when a part of it does not arrive."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest
from playwright.sync_api import Route

from tests.browser.conftest import Enter
from tests.browser.test_login import NOT_LOGGED_IN
from tests.browser.test_moments import Gate
from tests.rig.browser import Door, Tab, Visitor
from tests.rig.ssh import Ssh, make_key

MOST_BYTES = 200_000
MOST_ROUND_TRIPS = 12
MOST_PARTS = 16
# Connections of a browser to one host (HTTP/1.1).
CONNECTIONS = 6

WORDS_AND_A_BUTTON = """() => {
  const seen = (element) => element.checkVisibility({visibilityProperty: true, opacityProperty: true});
  const words = [...document.querySelectorAll("h1, p, label, .label")].some(
    (one) => one.textContent.trim() && seen(one));
  return words && [...document.querySelectorAll("button")].some(seen);
}"""

BLANK = """(buttons) => buttons.filter((button) => {
  const drawn = button.querySelector(".icon > *")?.getBBox();
  return !button.innerText.trim() && !drawn?.width && !drawn?.height;
}).map(({title}) => title)"""


def test_the_first_load_is_small_and_takes_few_round_trips(door: Door, enter: Enter) -> None:
    """Up to the prompt: bytes as they came over the network; no module waits for another one, our own are one."""
    tab = enter(door)
    parts = tab.page.evaluate(
        """() => performance.getEntries().filter(({entryType}) => ["navigation", "resource"].includes(entryType))
             .map(({name, initiatorType, transferSize}) => ({name, initiatorType, transferSize}))"""
    )
    own = [part for part in parts if "/at/" in part["name"]]
    assert len(own) <= MOST_PARTS
    assert sum(part["transferSize"] for part in parts) <= MOST_BYTES
    preloaded = set(tab.page.evaluate("() => [...document.querySelectorAll('link')].map(({href}) => href)"))
    late = [part["name"] for part in own if part["name"].endswith(".js") and part["name"] not in preloaded]
    assert not late, f"imported, not preloaded: {late}"
    # Nothing waits for the lists of held sessions and of sandboxes.
    own_time = ("/held-sessions", "/sandboxes")
    asked = [part for part in parts if "/api/" in part["name"] and not part["name"].endswith(own_time)]
    assert 1 + ceil(len(own) / CONNECTIONS) + len(asked) <= MOST_ROUND_TRIPS


# On a busy machine the page is read later than its parts arrive, or do not.
READ_LATE = """
const add = document.addEventListener.bind(document);
document.addEventListener = (kind, listener, how) =>
  add(kind, kind === "DOMContentLoaded" ? () => setTimeout(listener, 1500) : listener, how);
"""


def _without(visitor: Visitor, part: str, times: int = 100) -> Tab:
    """A tab whose first requests for a part fail."""
    tab = visitor.tab("Failed to load resource", "net::ERR_FAILED")
    left = {"times": times}

    def answer(route: Route) -> None:
        if left["times"] > 0:
            left["times"] -= 1
            route.abort()
        else:
            route.continue_()

    tab.page.route(f"**/{part}", answer)
    return tab


def test_a_part_that_is_lost_once_is_requested_again(door: Door, visitors: Callable[..., Visitor]) -> None:
    """A module, one that it imports, and a style; the login's ticket is used."""
    visitor = visitors(door)
    for part in ("page.js", "addon-fit.js", "vendor/xterm.js", "page.css"):
        # A preload is a request of its own.
        tab = _without(visitor, part, 2).open(door.link())
        tab.page.locator("#first-session:visible").wait_for()
        assert tab.page.url == door.address
        tab.page.close()
        visitor.context.clear_cookies()


def test_any_part_that_is_lost_leaves_words_and_a_button(door: Door, visitors: Callable[..., Visitor]) -> None:
    """Never a blank page, and never a ticket in the address."""
    visitor = visitors(door)
    parts = "page.js addon-fit.js page.css favicon.svg mono-400.woff2"
    for part in parts.split():
        tab = _without(visitor, part)
        tab.page.goto(door.link())
        tab.page.wait_for_function(WORDS_AND_A_BUTTON)
        assert "login=" not in tab.page.url
        if part.endswith((".js", ".css")):
            tab.page.locator("#loading-text", has_text="did not arrive").wait_for()
        tab.page.close()


def test_no_button_waits_for_its_picture(door: Door, enter: Enter) -> None:
    """Whatever pictures stall, each button in sight has words or draws something."""
    tab = enter(door)
    tab.page.route("**/*.svg", lambda route: None)
    tab.page.reload(wait_until="commit")
    tab.wait_state("connected")
    buttons = tab.page.locator("button:visible, .tab .close")
    assert buttons.count() > 10
    assert not buttons.evaluate_all(BLANK)


def test_what_is_fetched_when_it_is_wanted_is_missed_in_words(door: Door, enter: Enter) -> None:
    """A file with colours is made by an add-on of its own, which no first load waits for."""
    tab = enter(door)
    tab.expected += ["Failed to load resource", "net::ERR_FAILED"]
    tab.page.route("**/addon-serialize.js", lambda route: route.abort())
    tab.page.locator(".xterm:visible").click(button="right")
    tab.page.get_by_role("menuitem", name="Save with colours").click()
    tab.page.locator(".notice", has_text="did not arrive").wait_for()


def test_a_style_that_is_lost_before_the_page_is_read_is_missed(door: Door, visitors: Callable[..., Visitor]) -> None:
    """Chromium gives such a link an empty sheet; without its style the page would be a heap of black buttons."""
    tab = _without(visitors(door), "page.css")
    tab.page.add_init_script(READ_LATE)
    tab.page.goto(door.address)
    tab.page.locator("#loading-text", has_text="did not arrive").wait_for()


def test_an_api_that_hangs_leaves_words_and_a_button(door: Door, visitors: Callable[..., Visitor]) -> None:
    """The page itself is there, its first answer is not."""
    tab = visitors(door).tab(NOT_LOGGED_IN)
    hangs = [True]
    tab.page.route("**/api/**", lambda route: None if hangs[0] else route.continue_())
    tab.page.goto(door.address)
    tab.page.wait_for_function(WORDS_AND_A_BUTTON)
    hangs[0] = False
    tab.page.locator("#loading").get_by_role("button").click()
    tab.page.locator("#login:visible").wait_for()


@pytest.mark.parametrize("part", ["page.js", "addon-fit.js", "page.css"])
def test_any_part_that_stalls_leaves_words_and_a_button(
    part: str, door: Door, visitors: Callable[..., Visitor]
) -> None:
    """Neither does it arrive nor fail: no browser draws a page whose style it still waits for."""
    tab = visitors(door).tab(NOT_LOGGED_IN)
    stalls = [True]
    tab.page.route(f"**/{part}", lambda route: None if stalls[0] else route.continue_())
    tab.page.goto(door.address, wait_until="commit")
    tab.page.wait_for_function(f"() => performance.getEntriesByType('paint').length && ({WORDS_AND_A_BUTTON})()")
    stalls[0] = False
    tab.page.locator("#loading").get_by_role("button").click()
    tab.page.locator("#login:visible").wait_for()


def test_a_style_that_stalls_once_is_requested_again(door: Door, visitors: Callable[..., Visitor]) -> None:
    """The page comes by itself."""
    tab = visitors(door).tab(NOT_LOGGED_IN)
    tab.page.route("**/page.css", lambda route: None, times=1)
    tab.page.goto(door.address, wait_until="commit")
    tab.page.locator("#login:visible").wait_for()


def test_lists_that_stall_are_missed_in_words(door: Door, enter: Enter) -> None:
    """The list of terminals as the page begins; that of files, by its style; matches, by the add-on for search."""
    tab = enter(door)
    sessions, style = Gate(tab, "**/api/sessions"), Gate(tab, "**/files.css")
    search = Gate(tab, "**/addon-search.js")
    tab.page.reload()
    tab.notice("takes long to list")
    sessions.open()
    tab.wait_state("connected")
    tab.page.keyboard.press("Control+Shift+X")
    tab.notice("list of files did not arrive")
    style.open()
    tab.page.locator(".notice", has_text="list of files").get_by_role("button", name="Try again").click()
    tab.page.locator("#files:visible").wait_for()
    tab.page.locator(".xterm:visible").click()
    tab.search("echo")
    tab.page.locator(".search", has_text="did not load").wait_for()
    search.open()
    tab.page.locator(".search", has_text=re.compile(r"none|\d of \d")).wait_for()


def _answered_before_its_modules(tab: Tab) -> Gate:
    """The page has its first answers; its modules come once the gate is opened."""
    gate = Gate(tab, "**/page.js")
    with tab.page.expect_response("**/api/me"), tab.page.expect_response("**/api/sessions"):
        tab.page.goto(tab.address, wait_until="commit")
    gate.wait()
    return gate


@pytest.mark.parametrize("late", [False, True], ids=["at once", "a minute later"])
def test_the_first_answers_are_used_while_they_are_fresh(
    late: bool, door: Door, visitors: Callable[..., Visitor]
) -> None:
    """They were requested before the modules came. A browser may let a page sleep in between."""
    visitor = visitors(door)
    visitor.tab().open(door.link())
    tab = visitor.tab()
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url.removeprefix(f"{door.address}api/")))
    gate = _answered_before_its_modules(tab)
    if late:
        tab.page.evaluate("() => { const now = Date.now.bind(Date); Date.now = () => now() + 60_000; }")
    gate.open()
    tab.page.locator("#who", has_text="dev").wait_for()
    assert asked.count("me") == 1 + late


def test_the_first_answers_are_dropped_when_another_window_has_logged_in(
    door: Door, visitors: Callable[..., Visitor], tmp_path: Path
) -> None:
    """They are another user's: neither the name nor the list is shown to the one who is logged in now."""
    (door.gateway.users / "eve").write_text(make_key(tmp_path / "id") + "\n")
    visitor = visitors(door)
    other = visitor.tab("409").open(door.link())
    tab = visitor.tab()
    gate = _answered_before_its_modules(tab)
    other.page.goto("about:blank")
    other.open(replace(door, ssh=Ssh(tmp_path, door.gateway.port, "eve")).link())
    other.page.get_by_role("button", name="Switch").click()
    other.page.locator("#who", has_text="eve").wait_for()
    gate.open()
    tab.page.locator("#who", has_text="eve").wait_for()


def test_parts_are_compressed_for_browsers_only(door: Door, visitors: Callable[..., Visitor]) -> None:
    """With and without gzip the content is the same, under tags of its own, which spare the second transfer."""
    request = visitors(door).context.request
    index = request.get(door.address)
    assert index.headers["content-encoding"] in ("gzip", "deflate")
    part = next(iter(re.findall(r'href="([^"]+/vendor/xterm.js)"', index.text())))
    packed = request.get(f"{door.address}{part}")
    plain = request.get(f"{door.address}{part}", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.body() == plain.body()
    assert packed.headers["etag"] != plain.headers["etag"]
    assert packed.headers["vary"] == "Accept-Encoding"
    again = request.get(f"{door.address}{part}", headers={"If-None-Match": packed.headers["etag"]})
    assert again.status == 304
