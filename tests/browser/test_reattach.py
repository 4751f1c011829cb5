"""A session outlives its tab: reload, another tab, another gateway."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.browser.conftest import Enter, web
from tests.conftest import MakeGateway
from tests.rig.browser import PATIENCE, Door, Tab, Visitor
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, free_port
from tests.rig.processes import children_named
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

RELOADS = 20
COLOURS = r"clear; for c in 31 32 44 1; do printf '\033[%smcolour %s\033[0m grün 日本\n' $c $c; done; echo DO''NE"
# Asks the terminal who it is, where its cursor is, whether a mode is set, which colour it has.
QUESTIONS = (
    r"clear; printf '\033[c\033[6n\033[?2004$p\033]11;?\007'; "
    "read -t 2 -n 10000 -s -d '' answers; echo; echo ASK''ED"
)


@pytest.fixture
def sandboxes(request: pytest.FixtureRequest) -> Callable[[Door], int]:
    """Counts what a gateway has made and not removed."""

    def count(door: Door) -> int:
        if door.gateway.settings["sandbox"]["provider"] == "local":
            return len(children_named(door.gateway.pid, "bwrap"))
        space: Namespace = request.getfixturevalue("namespace")
        mine = f"test-{door.gateway.port}"
        return sum(
            "deletionTimestamp" not in pod["metadata"] and mine in pod["metadata"].get("labels", {}).values()
            for pod in space.pods()
        )

    return count


def _reload(tab: Tab) -> None:
    tab.page.reload()
    tab.wait_state("connected")


def test_a_reload_brings_the_same_screen(either: Door, enter: Enter) -> None:
    """Every cell, its colours, the cursor, the modes; and what is typed goes on where it was."""
    tab = enter(either)
    tab.run(COLOURS, "DONE")
    tab.prompt().type("echo half")
    until(lambda: tab.lines()[-1].endswith("echo half"), PATIENCE, "the echo")
    before = tab.screen()
    _reload(tab)
    until(lambda: tab.screen() == before, PATIENCE, "the same screen")
    tab.type(" whole\n")
    tab.wait_line("half whole")


def test_a_reload_after_a_flood_brings_the_last_screen(door: Door, enter: Enter) -> None:
    """More output than the gateway keeps: the snapshot and what came after it."""
    tab = enter(door)
    tab.type("seq 1000000 1300000; echo DO''NE\n")
    tab.wait_line("DONE", 60)
    tab.prompt()
    before, tail = tab.screen(), tab.lines()[-400:]
    _reload(tab)
    until(lambda: tab.screen() == before, PATIENCE, "the same screen")
    assert tab.lines()[-400:] == tail


def test_vim_goes_on_after_a_reload(either: Door, enter: Enter) -> None:
    """The alternate screen, its modes, and the shell's screen below it."""
    tab = enter(either)
    vim = "vi" if either.gateway.settings["sandbox"]["provider"] == "local" else "vim"
    tab.run("clear; echo below", "below")
    tab.prompt().type(f"{vim} -u NONE -N /etc/passwd\n")

    def drawn() -> bool:
        screen = tab.screen()
        # The line with the file's name is the last that is drawn; then the cursor goes home.
        return screen["type"] == "alternate" and screen["cursor"] == [0, 0] and "/etc/passwd" in tab.lines()[-1]

    until(drawn, PATIENCE, "vim")
    before = tab.screen()
    _reload(tab)
    until(lambda: tab.screen() == before, PATIENCE, "the same screen")
    tab.type(":q\n")
    until(lambda: tab.screen()["type"] == "normal", PATIENCE, "the shell's screen")
    assert "below" in tab.lines()


def test_replay_types_nothing(door: Door, enter: Enter) -> None:
    """Questions that a program asked long ago are not answered into the shell."""
    tab = enter(door)
    tab.run(QUESTIONS, "ASKED")
    tab.prompt()
    before = tab.screen()
    _reload(tab)
    until(lambda: tab.screen() == before, PATIENCE, "the same screen")
    tab.run("echo clean", "clean")
    assert not any("rgb:" in line or "[?" in line for line in tab.lines() if "printf" not in line)


def test_twenty_reloads_leave_one_sandbox(either: Door, enter: Enter, sandboxes: Callable[[Door], int]) -> None:
    """A reload is not a new session, however often."""
    tab = enter(either)
    before = sandboxes(either)
    tab.run("mark=still; echo set", "set")
    for _ in range(RELOADS):
        _reload(tab)
    tab.run("echo $mark here", "still here")
    assert sandboxes(either) == before
    assert tab.sessions() == ["connected"]


def test_another_tab_takes_over_only_when_asked(either: Door, enter: Enter, visitors: object) -> None:
    """The second one is told; after it has taken over the first one is told, and can take it back."""
    first = enter(either)
    first.run("mark=mine; echo set", "set")
    second = Tab(first.page.context.new_page(), first.address).open().elsewhere()
    first.run("echo undisturbed", "undisturbed")
    second.press("Take over")
    second.wait_state("connected").run("echo $mark second", "mine second")
    first.says("taken over")
    first.press("Take it back")
    first.wait_state("connected").run("echo $mark first", "mine first")
    second.says("taken over")
    second.verify()


def test_a_new_window_shows_by_itself_nothing_that_another_one_shows(
    door: Door, visitors: Callable[..., Visitor]
) -> None:
    """It begins at home, where what runs there is described, as in the bar of who asks for it; nothing is taken."""
    visitor = visitors(door)
    first = visitor.tab().open(door.link()).new_session(profile="default", name="there")
    first.run(r"printf '\033]0;bu%s\007' ild; echo the last li''ne; exec sleep 1000", "the last line")
    first.page.locator("#tabs .tab", has_text="build · there").wait_for()
    second = visitor.tab().open()
    card = second.page.locator("#running:visible li")
    expect(card).to_contain_text("default, running, open in another window, from 127.0.0.1")
    expect(card.locator("strong")).to_have_text("build · there")
    expect(card.locator("code")).to_have_text("the last line")
    expect(second.page.locator("#tabs .word")).to_have_text("elsewhere")
    card.get_by_role("button", name="Open:").click()
    second.says("build · there, default: open in another window, from 127.0.0.1. Its last line: the last line")
    second.new_session().type("exit\n")
    second.wait_state("ended").press("Close")
    second.page.locator("#welcome:visible").wait_for()
    assert first.sessions()[0] == "connected"
    assert door.ssh.as_user("dev=there").run("end", options=("-s",)).status == 0


def test_what_is_typed_before_the_session_is_there_reaches_it(door: Door, visitors: Callable[..., Visitor]) -> None:
    """A new one, and one that is taken back: nothing that a person types is lost on the way."""
    first = visitors(door).tab().open(door.link())
    first.page.click("#first-session")
    first.type("echo ty''ped ahead\n")
    first.wait_line("typed ahead")
    first.prompt()
    second = Tab(first.page.context.new_page(), first.address).open().elsewhere()
    second.press("Take over")
    second.type("echo ta''ken\n")
    second.wait_line("taken")
    first.says("taken over")
    first.press("Take it back")
    first.type("echo ba''ck\n")
    first.wait_line("back")
    second.verify()


def _first_socket_is_lost(tab: Tab) -> None:
    lost: list[WebSocketRoute] = []

    def answer(route: WebSocketRoute) -> None:
        if lost:
            route.connect_to_server()
        else:
            lost.append(route)
            route.close(code=1012)

    tab.page.route_web_socket("**/terminal", answer)


def test_what_is_typed_before_the_gateway_answers_is_for_that_session_only(
    door: Door, visitors: Callable[..., Visitor]
) -> None:
    """The first socket is lost: the next one brings it. Who finds the session open elsewhere begins with nothing."""
    visitor = visitors(door)
    first = visitor.tab()
    _first_socket_is_lost(first)
    first.open(door.link()).page.click("#first-session")
    first.wait_state("reconnecting")
    first.type("echo ty''ped ahead\n")
    first.wait_line("typed ahead")
    second = visitor.tab()
    _first_socket_is_lost(second)
    second.open().page.locator("#tabs .tab button").click()
    second.wait_state("reconnecting")
    second.type("echo lo''st\n")
    second.says("open in another window")
    second.press("Take over")
    second.wait_state("connected").run("echo ne''xt", "next")
    assert "lost" not in second.lines()


def test_what_is_free_again_is_attached_again(door: Door, visitors: Callable[..., Visitor]) -> None:
    """The other window goes; nobody presses a button."""
    visitor = visitors(door)
    first = visitor.tab().open(door.link()).new_session()
    first.run("mark=mine; echo set", "set")
    second = visitor.tab().open().elsewhere()
    first.page.close()
    second.wait_state("connected").run("echo $mark here", "mine here")


def test_several_sessions_are_tabs_and_are_listed_again(door: Door, enter: Enter) -> None:
    """Two sessions, told apart; after a reload both are there, and the shown one is the one that was."""
    tab = enter(door)
    tab.run("mark=one; echo set", "set")
    tab.new_session(profile="other").run("mark=two; echo set", "set")
    _reload(tab)
    assert len(tab.sessions()) == 2
    tab.run("echo $mark here", "two here")
    tab.page.keyboard.press("Control+Shift+BracketLeft")
    tab.wait_state("connected").run("echo $mark here", "one here")


def test_a_program_that_ended_is_shown_as_ended_and_started_again(door: Door, enter: Enter) -> None:
    """The status stands on the page; Enter is a new session in the same place."""
    tab = enter(door)
    tab.type("exit 7\n")
    tab.wait_state("ended").says("Ended with status 7.")
    tab.page.keyboard.press("Enter")
    tab.wait_state("connected").prompt()
    assert tab.sessions() == ["connected"]


def test_closing_a_tab_ends_or_leaves_the_session(door: Door, enter: Enter, sandboxes: Callable[[Door], int]) -> None:
    """A person is asked; what is left is listed after a reload, what is ended leaves no sandbox."""
    tab = enter(door)
    before = sandboxes(door)
    tab.page.locator("#tabs [role=tab]").press("Delete")
    tab.page.get_by_role("button", name="Leave it running").click()
    tab.page.locator("#welcome").wait_for()
    tab.page.reload()
    tab.page.locator("#running").get_by_text("Open", exact=True).click()
    tab.wait_state("connected")
    assert sandboxes(door) == before
    tab.page.locator("#tabs [role=tab]").press("Delete")
    tab.page.get_by_role("button", name="End it").click()
    tab.page.locator("#welcome").wait_for()
    until(lambda: sandboxes(door) == before - 1, PATIENCE, "the end of the sandbox")


def test_a_restarted_gateway_is_found_again(
    namespace: Namespace, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor]
) -> None:
    """The page says that the gateway goes, comes back to the next one on the same port, and joins the named sandbox."""
    port = free_port()
    served = gateway("kubernetes", web=web(port))
    door = Door(served, f"http://127.0.0.1:{port}/", user_at(served))
    # While there is no gateway every request fails, and the browser says so.
    tab = visitors(door).tab("Failed to load resource", "WebSocket connection").open(door.link())
    tab.new_session(name="work").run("echo kept > /tmp/kept; echo set", "set")
    work = door.ssh.as_user("dev=work")
    assert work.run("cat /tmp/kept").out == b"kept\n"
    assert served.process is not None
    served.process.terminate()
    tab.says("The gateway is restarting")
    served.stop()
    tab.wait_state("reconnecting")
    served.start()
    tab.wait_state("connected").run("cat /tmp/kept", "kept")
    assert work.run("end", options=("-s",)).status == 0
