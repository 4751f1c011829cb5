"""Held sessions on the page: those of ssh are listed, opened and ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import web
from tests.conftest import MakeGateway
from tests.rig.browser import PATIENCE, Door, Tab, Visitor
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

HELD: dict[str, Any] = {"default": {"hold": "named"}}


@pytest.fixture
def door(local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]) -> Door:
    """A page whose named sandboxes hold sessions."""
    port = free_port()
    made = gateway("local", web=web(port), profiles=HELD)
    return Door(made, f"http://127.0.0.1:{port}/", user_at(made))


def held_row(tab: Tab, text: str) -> Any:
    return tab.page.locator("#held-list li", has_text=text)


def test_home_lists_what_ssh_has_begun_and_opens_it(door: Door, visitors: Callable[..., Visitor]) -> None:
    work = door.ssh.as_user("dev=work=build")
    with OnTerminal(work.argv(options=("-tt",))) as terminal:
        terminal.enter("PS1='$ '; mark=ssh; seq -f line-%g 1 100; echo be''gun")
        terminal.expect(b"begun\r\n")
    tab = visitors(door).tab().open(door.link())
    row = held_row(tab, "work=build: ")
    row.get_by_role("button", name="Open").click()
    tab.wait_state("connected").wait_line("begun")
    lines = tab.lines()
    assert [line for line in lines if line.startswith("line-")] == [f"line-{number}" for number in range(1, 101)]
    assert lines[0] != "", "nothing was moved away on an empty terminal"
    tab.run("echo it is $mark", "it is ssh")
    # It has a tab now.
    tab.page.click("#home")
    tab.page.locator("#welcome:visible").wait_for()
    until(lambda: held_row(tab, "work=build").count() == 0, PATIENCE, "the list without it")
    tab.page.locator("#tabs .tab button").first.click()
    before = tab.screen()
    tab.page.reload()
    tab.wait_state("connected")
    until(lambda: tab.screen() == before, PATIENCE, "the same screen")
    assert work.as_user("dev=work").run("end", options=("-s",)).status == 0


def test_home_ends_what_it_lists(door: Door, visitors: Callable[..., Visitor]) -> None:
    with OnTerminal(door.ssh.as_user("dev=work=build").argv(options=("-tt",))) as terminal:
        terminal.enter("echo be''gun")
        terminal.expect(b"begun\r\n")
    tab = visitors(door).tab().open(door.link())
    held_row(tab, "work=build: ").get_by_role("button", name="End").click()
    until(lambda: held_row(tab, "work=build").get_by_role("button").count() == 0, PATIENCE, "its end")
    assert door.ssh.as_user("dev=work").run("end", options=("-s",)).status == 0
