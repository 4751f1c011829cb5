"""The home page: what runs, whose it is and for how long; named sandboxes; a tab whose session is about to end."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.conftest import web
from tests.conftest import MakeGateway
from tests.rig.browser import Door, Visitor
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh

LOOK_AGAIN = "() => window.dispatchEvent(new Event('focus'))"


def test_home_shows_what_runs_and_for_how_long(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor]
) -> None:
    """Named sandboxes with their profile and clocks, sessions with their last line; renamed, ended when sure."""
    port = free_port()
    limits = {"idle": "9m", "max_lifetime": "5h", "detached": "20m"}
    served = gateway("local", web=web(port), profiles={"default": {"limits": limits, "hold": "never"}})
    door = Door(served, f"http://127.0.0.1:{port}/", user_at(served))
    visitor = visitors(door)
    tab = visitor.tab().open(door.link()).new_session(profile="default", name="work").prompt()
    tab.page.evaluate(LOOK_AGAIN)
    expect(tab.page.locator("#tabs .word")).to_have_text("9 min")
    assert "if nobody types" in (tab.page.locator("#tabs [role=tab]").get_attribute("aria-label") or "")
    tab.run("echo the last li''ne; exec sleep 1000", "the last line")
    tab.page.click("#home")
    sandbox = tab.page.locator("#sandboxes:visible li")
    expect(sandbox).to_contain_text("default, in use, 1 min old")
    session = tab.page.locator("#running:visible li")
    expect(session).to_contain_text("running, has a tab here")
    session.get_by_role("button", name="Rename").click()
    tab.page.fill("#rename-label", "my <i>build")
    tab.page.keyboard.press("Enter")
    expect(session.locator("strong")).to_have_text("my <i>build")
    expect(tab.page.locator("#tabs .label")).to_have_text("my <i>build")

    tab.page.locator("#tabs [role=tab]").press("Delete")
    tab.page.get_by_role("button", name="Leave it running").click()
    expect(session).to_contain_text("not open")
    expect(session).to_contain_text("ends in 20 min if nobody comes back, in 5 h at the latest")
    expect(session.locator("code")).to_have_text("the last line")
    tab.page.reload()
    sandbox.get_by_role("button", name="Open:").click()
    tab.wait_state("connected").prompt()
    tab.page.click("#home")
    expect(session).to_have_count(2)
    sandbox.get_by_role("button", name="End:").click()
    expect(tab.page.locator("#end-title")).to_have_text("End the sandbox work?")
    tab.page.keyboard.press("Escape")
    expect(sandbox).to_be_visible()
    sandbox.get_by_role("button", name="End:").click()
    tab.page.get_by_role("button", name="End it").click()
    expect(tab.page.locator("#sandboxes")).to_be_hidden()
    # What runs is before what has ended.
    tab.page.click("#first-session")
    tab.wait_state("connected").prompt()
    tab.page.click("#home")
    expect(session.first).to_contain_text("running")
    expect(session.last).to_contain_text("Ended.")


def test_terminals_of_one_sandbox_are_told_apart_and_ended_ones_are_read_and_removed(
    door: Door, visitors: Callable[..., Visitor]
) -> None:
    """By the names of their tabs; those that have none go on counting. All are in sight where the page is scrolled."""
    tab = visitors(door, viewport={"width": 700, "height": 320}).tab().open(door.link())
    tab.new_session(profile="default", name="pair").prompt()
    tab.page.keyboard.press("Control+Shift+Enter")
    tab.wait_state("connected")
    tab.page.locator("#tabs .tab button").first.click()
    tab.wait_state("connected").prompt()
    tab.page.keyboard.press("Control+Shift+D")
    tab.page.locator(".panel:visible[data-state=connected]").nth(1).wait_for()
    tab.page.click("#home")
    names = tab.page.locator("#running:visible li strong")
    expect(names).to_have_text(["pair 1", "default", "pair 3"])
    height = "(list) => [list.clientHeight, list.scrollHeight]"
    shown, whole = tab.page.locator("#running-list").evaluate(height)
    assert shown == whole
    shown, whole = tab.page.locator("#welcome").evaluate(height)
    assert shown < whole

    tab.page.locator("#tabs .tab button").first.click()
    tab.focused().type("exit 3\n")
    tab.page.locator(".panel[data-state=ended]").wait_for()
    tab.page.locator("#tabs [role=tab]").first.press("Delete")
    tab.page.get_by_role("button", name="Leave it running").click()
    tab.page.click("#home")
    expect(names).to_have_text(["pair", "default", "pair 2"])
    ended = tab.page.locator("#running:visible li", has_text="Ended with status 3.")
    expect(ended.get_by_role("button")).to_have_text(["Show", "Remove"])
    ended.get_by_role("button", name="Show:").click()
    tab.wait_state("ended").says("Ended with status 3.")
    tab.page.click("#home")
    ended.get_by_role("button", name="Remove:").click()
    expect(names).to_have_count(2)
    assert door.ssh.as_user("dev=pair").run("end", options=("-s",)).status == 0


def test_the_focus_stays_where_a_card_changes_or_goes(door: Door, visitors: Callable[..., Visitor]) -> None:
    """A program ends by itself: its card has other buttons. One that is removed leaves it to its neighbour."""
    tab = visitors(door).tab().open(door.link())
    tab.new_session().prompt()
    tab.new_session().prompt()
    tab.page.click("#home")
    cards = tab.page.locator("#running:visible li")
    expect(cards).to_have_count(2)
    cards.first.get_by_role("button", name="End:").focus()
    tab.page.evaluate("() => [...sshgate.sessions.values()][0].screen.terminal.input('exit 3\\r')")
    ended = tab.page.locator("#running:visible li", has_text="Ended with status 3.")
    expect(ended).to_have_count(1)
    expect(ended.get_by_role("button", name="Show:")).to_be_focused()
    ended.get_by_role("button", name="Remove:").press("Enter")
    expect(cards).to_have_count(1)
    expect(cards.get_by_role("button", name="Open:")).to_be_focused()
