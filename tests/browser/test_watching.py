"""Watching a session by a link: the page that a stranger has, and what its owner's page says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import web
from tests.browser.test_links import _point
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
