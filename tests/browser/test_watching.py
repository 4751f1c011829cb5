"""Watching a session by a link: the page that a stranger has, and what its owner's page says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import web
from tests.browser.test_hands import PHONE
from tests.browser.test_links import _point
from tests.browser.test_touch import Fingers
from tests.conftest import MakeGateway
from tests.rig.browser import PATIENCE, Door, Visitor
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh
from tests.rig.waiting import until


@pytest.fixture
def door(local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]) -> Door:
    port = free_port()
    made = gateway("local", web=web(port))
    return Door(made, f"http://127.0.0.1:{port}/", user_at(made))


def test_a_stranger_watches_and_the_owner_knows_it(door: Door, visitors: Callable[..., Visitor]) -> None:
    owner = visitors(door).tab().open(door.link())
    owner.new_session(name="work").run("echo be''gun", "begun")
    user = door.ssh.as_user("dev=work=1")
    output = user.run("share", options=("-s",))
    found = re.match(r"http\S+#watch=(\S+)", output.both)
    assert found, output.both
    stranger = visitors(door).tab("WebSocket connection").open(found[0])
    stranger.wait_line("begun")
    assert found[1] not in stranger.page.url
    assert "dev shows you work=1, read-only" in stranger.page.locator("#about").inner_text()
    assert stranger.page.title() == "work=1 of dev (read-only)"
    assert stranger.size() == owner.size()
    owner.page.locator(".watchers", has_text="Watched from 127.0.0.1").wait_for()
    stranger.page.locator(".xterm").click()
    stranger.type("echo st''range\n")
    owner.run("echo on''ly", "only")
    stranger.wait_line("only")
    assert not any("strange" in line for line in owner.lines())
    owner.run("clear; echo http://local''host:8080/", "http://localhost:8080/")
    stranger.wait_line("http://localhost:8080/")
    stranger.page.keyboard.down("Control")
    stranger.page.mouse.click(*_point(stranger))
    stranger.page.keyboard.up("Control")
    stranger.says("only its owner can open it")
    stranger.press("OK")
    stranger.page.locator(".state").wait_for(state="hidden")
    owner.run("echo on''ly", "only")
    stranger.page.keyboard.press("Control+Shift+E")
    assert stranger.page.evaluate("() => document.activeElement.id") == "about"
    owner.search("")
    search = owner.page.locator(".search").bounding_box()
    watchers = owner.page.locator(".watchers").bounding_box()
    assert search
    assert watchers
    assert watchers["y"] > search["y"] + search["height"]
    owner.page.keyboard.press("Escape")
    # A reload goes on; another address of the gateway is no login.
    stranger.page.reload()
    stranger.page.locator(".panel:visible").wait_for()
    stranger.wait_line("only")
    owner.page.set_viewport_size({"width": 700, "height": 500})
    until(lambda: stranger.size() == owner.size(), PATIENCE, "the owner's size")
    assert user.run("unshare", options=("-s",)).status == 0
    stranger.says("This link was revoked by its owner.")
    owner.page.locator(".watchers").wait_for(state="hidden")
    cookies: list[Any] = stranger.page.context.cookies()
    assert cookies == []
    assert door.ssh.as_user("dev=work").run("end", options=("-s",)).status == 0


def test_all_that_a_wide_terminal_has_is_in_reach_of_a_phone(door: Door, visitors: Callable[..., Visitor]) -> None:
    """Letters are as small as all columns want, or legible; fingers go in both directions, and make them others."""
    owner = visitors(door, viewport={"width": 1280, "height": 800}).tab().open(door.link())
    owner.new_session(profile="default", name="wide").run("clear; printf '%149s' ri''ght", "right".rjust(149))
    user = door.ssh.as_user("dev=wide=1")
    found = re.search(r"http\S+#watch=\S+", user.run("share", options=("-s",)).both)
    assert found
    phone = {**PHONE, "viewport": {"width": 360, "height": 740}}
    stranger = visitors(door, **phone).tab().open(found[0])
    until(lambda: stranger.size() == owner.size(), PATIENCE, "the owner's size")

    def letters() -> int:
        return int(stranger.page.evaluate("() => sshgate.shown.screen.terminal.options.fontSize"))

    def hidden() -> list[int]:
        """How much of the screen is beyond the right and the left edge."""
        beyond: list[int] = stranger.page.evaluate(
            """() => {
                 const screen = document.querySelector(".xterm-screen").getBoundingClientRect();
                 const box = document.querySelector(".panel > .terminal").getBoundingClientRect();
                 const beyond = [screen.right - box.right, box.left - screen.left];
                 return beyond.map((pixels) => Math.max(0, Math.round(pixels)));
               }"""
        )
        return beyond

    until(lambda: letters() == 8, PATIENCE, "the smallest that are legible")
    right, left = hidden()
    assert right > 200
    assert left == 0
    fingers = Fingers(stranger)
    for _ in range(4):
        fingers.swipe(0, across=-300, rest=0.2)
    assert hidden()[0] == 0
    fingers.pinch(300, 60)
    until(lambda: hidden() == [0, 0], PATIENCE, "all columns")
    fingers.pinch(60, 300)
    until(lambda: letters() > 12, PATIENCE, "larger letters")
    assert hidden()[0] > 0
    assert hidden()[1] > 0, "what was in the middle has stayed there"
    assert stranger.page.evaluate("() => [visualViewport.scale, document.documentElement.scrollWidth]") == [1, 360]
    stranger.page.reload()
    stranger.page.set_viewport_size({"width": 820, "height": 1100})
    until(lambda: letters() >= 8 and hidden() == [0, 0], PATIENCE, "all columns on a tablet")
    assert door.ssh.as_user("dev=wide").run("end", options=("-s",)).status == 0
