"""Held sessions on the page: those of ssh are listed, opened and ended; another gateway goes on with its own."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import web
from tests.conftest import MakeGateway
from tests.rig.balancer import Balancer
from tests.rig.browser import PATIENCE, Door, Tab, Visitor
from tests.rig.gateway import Gateway, free_port, nothing_left
from tests.rig.messages import ANSWER, fake_api
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
    tab.page.locator("#end-title", has_text="End work=build?").wait_for()
    tab.page.get_by_role("button", name="End it").click()
    until(lambda: held_row(tab, "work=build").get_by_role("button").count() == 0, PATIENCE, "its end")
    assert door.ssh.as_user("dev=work").run("end", options=("-s",)).status == 0


def test_tabs_come_back_although_sandbox_and_gateway_do_not_answer_and_a_typed_name_counts(
    door: Door, visitors: Callable[..., Visitor]
) -> None:
    with OnTerminal(door.ssh.as_user("dev=work=build").argv(options=("-tt",))) as terminal:
        terminal.enter("mark=ssh; echo be''gun")
        terminal.expect(b"begun\r\n")
    tab = visitors(door).tab("Failed to load resource")
    place = {"id": None, "profile": "default", "name": "work", "held": {"name": "build", "id": ""}, "title": ""}
    kept = json.dumps(json.dumps({"user": "dev", "kept": [place]}))
    tab.page.add_init_script(f"sessionStorage.setItem('sshgate.places', {kept})")
    tab.page.route("**/api/held-sessions", lambda route: None)
    refused: list[str] = []

    def refuse_once(route: Any) -> None:
        if route.request.method != "POST" or refused:
            route.continue_()
            return
        refused.append(route.request.url)
        route.fulfill(status=503, json={"error": {"message": "the gateway is starting."}})

    tab.page.route("**/api/sessions", refuse_once)
    tab.open(door.link()).wait_state("connected").run("echo it is $mark", "it is ssh")
    assert refused
    tab.new_session(name="web-0123456789").prompt()
    assert b"web-0123456789" in door.ssh.run("sandboxes", options=("-s",)).out
    for name in ("work", "web-0123456789"):
        assert door.ssh.as_user(f"dev={name}").run("end", options=("-s",)).status == 0


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_the_page_finds_another_gateway_when_its_own_is_killed(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor], tmp_path: Path
) -> None:
    """One address, as a Service has it; the terminal goes on where it was, within 5 s, and after a reload."""
    ports = free_port(), free_port()
    with Balancer([ports[0]]) as service:
        section = {"public_url": f"http://127.0.0.1:{service.port}/", "secret": str(tmp_path / "web.secret")}
        one = gateway("kubernetes", profiles=HELD, web=web(ports[0], **section))
        two = gateway("kubernetes", profiles=HELD, web=web(ports[1], **section))
        door = Door(one, section["public_url"], user_at(one))
        # The page's login stands at both, by the key that made it.
        (two.users / "dev").write_text((one.users / "dev").read_text())
        # Requests fail while nobody is there, and the browser says so.
        tab = visitors(door).tab("Failed to load resource", "WebSocket connection").open(door.link())
        tab.new_session().prompt()
        tab.type("for i in $(seq 1 500); do echo n-$i-; sleep 0.02; done; echo ov''er\n")
        tab.wait_line("n-50-")
        # Loaded again, by the other gateway.
        tab.page.goto("about:blank")
        service.cut()
        service.ports = [ports[1]]
        tab.open().wait_state("connected")
        tab.wait_line("n-50-")
        service.ports = [ports[0]]
        began = time.monotonic()
        nothing_left(two.kill())
        tab.wait_state("reconnecting")
        tab.wait_state("connected")
        took = time.monotonic() - began
        tab.wait_line("over")
        shown = [int(found[1]) for line in tab.lines() if (found := re.fullmatch(r"n-(\d+)-", line))]
        assert shown == list(range(1, 501))
        assert took < 5
        tab.run("echo on we go", "on we go")
        assert tab.sessions() == ["connected"]
        assert b"web-" in door.ssh.run("sandboxes", options=("-s",)).out
        tab.type("exit\n")
        tab.wait_state("ended")
        until(lambda: b"web-" not in door.ssh.run("sandboxes", options=("-s",)).out, PATIENCE, "the end of its sandbox")


@pytest.mark.cluster  # Claude Code is in the image
@pytest.mark.usefixtures("cluster")
def test_claude_code_is_begun_by_ssh_goes_on_in_the_browser_and_is_ended_by_ssh(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor], tmp_path: Path
) -> None:
    """The real one, against a provider on this machine; and one in the background, which nobody is attached to."""
    port = free_port()
    (tmp_path / "key").write_text("sk-ant-api03-canary")
    with fake_api() as api:
        models = {"anthropic": {"upstream": api.url, "keys": str(tmp_path / "key")}}
        agents = {"default": {"models": ["anthropic"], "resources": {"limits": {"memory": "2Gi"}}}}
        made = gateway("kubernetes", web=web(port), models=models, profiles=agents)
        door = Door(made, f"http://127.0.0.1:{port}/", user_at(made))
        work = door.ssh.as_user("dev=work=agent")

        def asked(words: str) -> bool:
            return any(words.encode() in one.body for one in api.asked())

        with OnTerminal(work.argv(options=("-tt",)), columns=100, rows=40) as terminal:
            terminal.enter("mkdir -p work; cd work; PS1='$ '; claude --bg 'work alone'; claude")
            terminal.expect(b"shortcuts", limit=60)
            terminal.type("asked by ssh")
            terminal.expect(b"ssh")
            time.sleep(0.5)  # else Enter counts as pasted
            terminal.type("\r")
            terminal.expect(ANSWER.split()[-1].encode(), limit=60)
        tab = visitors(door).tab().open(door.link())
        held_row(tab, "work=agent: ").get_by_role("button", name="Open").click()
        tab.wait_state("connected")

        def answers() -> int:
            return sum(ANSWER in line for line in tab.lines())

        until(lambda: answers() == 1, PATIENCE, "what ssh had seen")
        tab.type("asked by the page")
        until(lambda: any("asked by the page" in line for line in tab.lines()), PATIENCE, "what was typed")
        tab.page.wait_for_timeout(500)
        tab.type("\n")
        until(lambda: answers() == 2, 60, "another answer")
        assert asked("asked by ssh")
        assert asked("asked by the page")
        until(lambda: asked("work alone"), 60, "the one in the background")
        tab.page.close()
        with OnTerminal(work.argv(options=("-tt",)), columns=100, rows=40) as terminal:
            terminal.expect(b"page.*" + ANSWER.split()[-1].encode())
            terminal.type("/exit")
            time.sleep(0.5)
            terminal.type("\r")
            terminal.expect(rb"\$ ")
            terminal.enter("until grep -qi 'all is well' ~/.claude/jobs/*/state.json; do sleep 0.2; done; exit 6")
            assert terminal.until_end(60) == 6
        assert work.as_user("dev=work").run("end", options=("-s",)).status == 0
