"""The row of tabs: what has one, what has none, and how a start that fails looks."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.conftest import Enter, web
from tests.conftest import MakeGateway
from tests.rig.browser import PATIENCE, Door, Visitor
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

LOOK_AGAIN = "() => window.dispatchEvent(new Event('focus'))"


def test_what_is_left_running_has_no_tab_until_it_is_opened(door: Door, enter: Enter) -> None:
    """Looking at another window and back brings no tab; the home page has it, and opens it as it was."""
    tab = enter(door)
    tab.run("echo remem''bered", "remembered")
    tab.page.keyboard.press("Control+Shift+E")
    tab.page.keyboard.press("Delete")
    tab.page.get_by_role("button", name="Leave it running").click()
    tab.page.locator("#running:visible li", has_text="not open").wait_for()
    tab.page.evaluate(LOOK_AGAIN)
    tab.page.reload()
    tab.page.locator("#running:visible li").wait_for()
    assert tab.sessions() == []
    tab.page.locator("#running").get_by_text("Open", exact=True).click()
    tab.wait_state("connected").wait_line("remembered")
    tab.page.get_by_role("button", name="Home").click()
    tab.page.locator("#welcome:visible").wait_for()
    assert tab.sessions() == ["connected"]


def test_a_session_that_ended_elsewhere_leaves_no_tab(door: Door, visitors: Callable[..., Visitor]) -> None:
    """Another window's tabs follow the list; one that has ended is not what a new window shows."""
    visitor = visitors(door)
    tab = visitor.tab().open(door.link()).new_session().prompt()
    tab.type("exit 3\n")
    tab.wait_state("ended")
    tab.new_session().prompt()
    other = visitor.tab().open()
    other.elsewhere()
    tab.new_session().prompt()
    other.page.evaluate(LOOK_AGAIN)
    until(lambda: other.page.locator("#tabs .tab").count() == 2, PATIENCE, "a second tab")
    ids = tab.page.evaluate("() => sshgate.shown.id")
    tab.page.evaluate("(id) => fetch(`api/sessions/${id}`, {method: 'DELETE'})", ids)
    tab.wait_state("ended")
    other.page.evaluate(LOOK_AGAIN)
    until(lambda: other.page.locator("#tabs .tab").count() == 1, PATIENCE, "one tab less")


def test_a_start_that_fails_says_why_and_can_be_changed(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor]
) -> None:
    """In red, with the reason outside the terminal too, and the dialog filled in."""
    port = free_port()
    served = gateway("local", web=web(port), profiles={"small": {"extends": "default"}})
    tab = visitors(Door(served, f"http://127.0.0.1:{port}/", user_at(served))).tab("403", "429")
    tab.open(Door(served, f"http://127.0.0.1:{port}/", user_at(served)).link())
    tab.new_session(profile="default", name="work").prompt()
    tab.page.click("#new-with")
    tab.page.select_option("#new-profile", "small")
    tab.page.fill("#new-name", "Bad Name!")
    tab.page.click("#new-dialog .primary")
    assert tab.page.locator("#new-name:invalid").count() == 1
    tab.page.fill("#new-name", "work")
    tab.page.click("#new-dialog .primary")
    tab.wait_state("failed")
    text = tab.page.locator(".panel:visible .state .text").text_content() or ""
    assert "work" in text
    assert "status" not in text
    tab.press("Change …")
    assert tab.page.input_value("#new-name") == "work"
    assert tab.page.input_value("#new-profile") == "small"
    tab.page.fill("#new-name", "other")
    tab.page.click("#new-dialog .primary")
    tab.wait_state("connected").run("echo started", "started")


def test_the_bar_of_a_state_covers_nothing(door: Door, enter: Enter) -> None:
    """The last lines are where the error is."""
    tab = enter(door)
    tab.type("seq 200; exit 3\n")
    tab.wait_state("ended")
    bar = tab.page.locator(".panel:visible .state").bounding_box()
    rows = tab.page.locator(".panel:visible .xterm-screen").bounding_box()
    assert bar is not None
    assert rows is not None
    assert rows["y"] + rows["height"] <= bar["y"]


def test_no_tab_is_out_of_reach(door: Door, visitors: Callable[..., Visitor]) -> None:
    """More than fit: the wheel moves the row, and one button lists them all. Labels use the room that there is."""
    tab = visitors(door, viewport={"width": 1000, "height": 600}).tab().open(door.link())
    make = """async (count) => {
      for (; count > 0; count -= 1)
        await fetch("api/sessions", {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"});
    }"""
    tab.page.evaluate(make, 2)
    tab.page.reload()
    tab.wait_state("connected")
    assert tab.page.locator("#all-tabs").is_hidden()
    cut = "() => [...document.querySelectorAll('#tabs .label')].some((one) => one.scrollWidth > one.clientWidth)"
    assert not tab.page.evaluate(cut)
    tab.page.evaluate(make, 12)
    tab.page.evaluate(LOOK_AGAIN)
    tab.page.locator("#tabs .tab").nth(13).wait_for()
    tab.page.locator("#all-tabs").wait_for()
    tab.page.hover("#tabs .tab")
    tab.page.mouse.wheel(0, 10_000)
    until(lambda: tab.page.evaluate("() => document.getElementById('tabs').scrollLeft > 0"), PATIENCE, "a moved row")
    tab.page.click("#all-tabs")
    rows = tab.page.locator("#tab-list:popover-open li")
    assert rows.count() == 14
    rows.nth(13).locator("button").first.click()
    tab.wait_state("connected")
    tab.page.locator("#tabs .tab").nth(13).locator("[aria-selected=true]").wait_for()


def test_tabs_have_names_that_tell_them_apart(door: Door, enter: Enter) -> None:
    """The program's title, the sandbox's name, and numbers for those that would be alike."""
    tab = enter(door)
    labels = tab.page.locator("#tabs .label")
    assert labels.all_text_contents() == ["default"]
    tab.new_session().prompt()
    assert labels.all_text_contents() == ["default 1", "default 2"]
    assert tab.page.title() == "default 2 · sshgate"
    tab.type(r"printf '\033]0;build\007'" + "\n")
    until(lambda: labels.all_text_contents() == ["default", "build"], PATIENCE, "a title")
    tab.new_session(profile="default", name="work").prompt()
    assert labels.all_text_contents() == ["default", "build", "work"]
    tab.type(r"printf '\033]0;vim\007'" + "\n")
    until(lambda: labels.all_text_contents() == ["default", "build", "vim · work"], PATIENCE, "a title and a name")


def test_profiles_are_described_where_they_are_chosen_and_ssh_has_its_public_port(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor]
) -> None:
    """Words from the settings; and behind another port the commands that the page shows have that one."""
    port = free_port()
    profiles = {"default": {"description": "Plain."}, "gpu": {"extends": "default", "description": "One GPU, <64> GB."}}
    served = gateway("local", web=web(port), profiles=profiles, ssh={"public_port": 30022})
    door = Door(served, f"http://127.0.0.1:{port}/", user_at(served))
    visitor = visitors(door)
    waiting = visitor.tab("401").open()
    assert waiting.page.locator("#login-command").text_content() == "ssh -p 30022 -s YOU@127.0.0.1 web"
    waiting.page.close()
    assert "Port 30022" in door.ssh.run("config", options=("-s",)).both
    tab = visitor.tab().open(door.link())
    tab.page.click("#choose-session")
    assert tab.page.locator("#new-about").text_content() == "Plain."
    tab.page.select_option("#new-profile", "gpu")
    assert tab.page.locator("#new-about").text_content() == "One GPU, <64> GB."
    tab.page.keyboard.press("Escape")
