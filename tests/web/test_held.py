"""Held sessions in a browser: begun there and joined by ssh, begun by ssh and joined there, left and ended."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.scrape import events
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.web import Browser, Tab, address, browser, eventually, link, section

PROFILES: dict[str, Any] = {"default": {"hold": "named"}, "unheld": {"extends": "default", "hold": "never"}}


@pytest.fixture(scope="module")
def served(make_gateway: MakeGateway, provider: str) -> Gateway:
    return make_gateway(provider, profiles=PROFILES, web=section(), telemetry={"audit": "audit.jsonl"})


@pytest.fixture(scope="module")
def dev(served: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(served)


@pytest.fixture(autouse=True)
def ended(dev: Ssh) -> Iterator[None]:
    """What a test has made is ended after it."""
    yield
    dev.end_named()


@pytest.fixture
async def page(served: Gateway, dev: Ssh) -> AsyncIterator[Browser]:
    async with browser(address(served)) as fresh:
        await fresh.login(await asyncio.to_thread(link, dev))
        yield fresh
        _, answer = await fresh.ask("GET", "api/sessions")
        for session in answer["sessions"]:
            await fresh.ask("DELETE", f"api/sessions/{session['id']}")


async def shell(page: Browser, **wanted: object) -> Tab:
    made = await page.new(name="work", **wanted)
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.until(lambda: held_of(tab), "held session")
    return tab


def held_of(tab: Tab) -> dict[str, str] | None:
    """The held session, as the page had it last."""
    found: list[dict[str, str] | None] = [frame["held"] for frame in tab.frames if "held" in frame]
    return found[-1] if found else None


def screen(tab: Tab) -> bytes:
    """All that the terminal was written since it was empty."""
    assert tab.snapshot is not None
    return base64.b64decode(tab.snapshot.get("screen", "")) + bytes(tab.text)


async def sees(tab: Tab, text: bytes) -> None:
    await tab.until(lambda: text in screen(tab), repr(text))


def on(ssh: Ssh, *command: str) -> OnTerminal:
    return OnTerminal(ssh.argv(*command, options=("-tt",)))


def joined_by_ssh(work: Ssh, typed: str, pattern: bytes) -> bytes:
    with on(work) as terminal:
        terminal.enter(typed)
        return terminal.expect(pattern).string


async def listed(dev: Ssh) -> list[dict[str, Any]]:
    found = json.loads((await asyncio.to_thread(dev.run, "sessions", "--json", options=("-s",))).out)
    return [session for one in found for session in one["sessions"]]


async def test_a_session_begun_in_the_browser_is_listed_and_joined_by_ssh_and_back(page: Browser, dev: Ssh) -> None:
    tab = await shell(page)
    held = held_of(tab)
    assert held is not None
    await tab.type(b"mark=browser; echo be''gun\n")
    await tab.see(b"begun\r\n")
    (one,) = await listed(dev)
    assert (one["name"], one["program"], one["state"]) == (held["name"], "shell", "attached from 127.0.0.1")
    work = dev.as_user(f"dev=work={held['name']}")
    shown = await asyncio.to_thread(joined_by_ssh, work, "echo it is $mark; mark=ssh", b"it is browser\r\n")
    assert b"begun\r\n" in shown
    # Both are there: the page has shown it too.
    await tab.see(b"it is browser\r\n")
    await tab.type(b"echo now $mark\n")
    await tab.see(b"now ssh\r\n")


def sandboxes(dev: Ssh) -> bytes:
    return dev.run("sandboxes", options=("-s",)).out


async def test_a_session_without_a_name_is_held_and_its_sandbox_ends_with_it(page: Browser, dev: Ssh) -> None:
    made, other = await page.new(lasting=True), await page.new(lasting=True)
    name = made["name"]
    assert re.fullmatch("web-[0-9a-f]{10}", name)
    tab, second = Tab(page, made["id"]), Tab(page, other["id"])
    await tab.open(made["ticket"])
    await second.open(other["ticket"])
    await tab.until(lambda: held_of(tab), "held session")
    held = held_of(tab)
    assert held is not None
    await tab.type(b"mark=browser; echo be''gun\n")
    await tab.see(b"begun\r\n")
    await asyncio.to_thread(
        joined_by_ssh, dev.as_user(f"dev={name}={held['name']}"), "echo it is $mark", b"is browser\r"
    )
    # Ended by its user, and by its program.
    await second.until(lambda: held_of(second), "held session")
    assert (await page.ask("DELETE", f"api/sessions/{second.session}"))[0] == 204
    assert other["name"].encode() not in await asyncio.to_thread(sandboxes, dev)
    await tab.type(b"exit 6\n")
    assert await tab.closed() == 1000
    assert tab.messages("exit")[0]["code"] == 6

    async def gone() -> bool:
        return name.encode() not in await asyncio.to_thread(sandboxes, dev)

    await eventually(gone)
    wanted = {"name": name, "session": held["name"], "held": held["id"]}
    status, answer = await page.ask("POST", "api/sessions", wanted)
    assert (status, answer["error"]["message"]) == (404, "this session has ended, and its sandbox with it.")
    assert (await page.new(profile="unheld", lasting=True))["name"] is None


async def test_who_ends_a_tab_ends_no_other_session_in_its_sandbox(page: Browser, dev: Ssh) -> None:
    made = await page.new(lasting=True)
    name, tab = made["name"], Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.until(lambda: held_of(tab), "held session")
    await asyncio.to_thread(joined_by_ssh, dev.as_user(f"dev={name}=build"), "echo be''gun", b"begun\r")
    # One that begins in it, and is given up during the start.
    late = await page.new(name=name, cols=80, rows=24)
    assert (await page.ask("DELETE", f"api/sessions/{late['id']}"))[0] == 204
    assert (await page.ask("DELETE", f"api/sessions/{tab.session}"))[0] == 204
    assert [one["name"] for one in await listed(dev) if not one["state"].startswith("ended")] == ["build"]
    assert (await page.ask("DELETE", f"api/held-sessions/{name}/build"))[0] == 204
    assert name.encode() not in await asyncio.to_thread(sandboxes, dev)


async def test_a_second_shell_that_is_ended_leaves_the_first_and_its_sandbox(page: Browser, dev: Ssh) -> None:
    """Also one that is ended while it starts; the last one that is ended takes the sandbox with it."""
    made = await page.new(lasting=True)
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.until(lambda: held_of(tab), "held session")
    beside = await page.new(beside=made["id"])
    assert (await page.ask("DELETE", f"api/sessions/{beside['id']}"))[0] == 204
    await tab.type(b"mark=first; echo st''ill\n")
    await tab.see(b"still\r\n")

    async def another(**wanted: object) -> Tab:
        begun = await page.new(**wanted)
        opened = Tab(page, begun["id"])
        await opened.open(begun["ticket"])
        await opened.until(lambda: held_of(opened), "held session")
        return opened

    # By a login of its own, as a page that was away for long comes back.
    name = (held_of(await another(beside=made["id"])) or {})["name"]
    again = await another(name=made["name"], session=name)
    assert (await page.ask("DELETE", f"api/sessions/{again.session}"))[0] == 204
    await tab.type(b"echo not ov''er\n")
    await tab.see(b"not over\r\n")
    second = await another(beside=made["id"])
    assert (await page.ask("DELETE", f"api/sessions/{made['id']}"))[0] == 204
    await second.type(b"echo al''one\n")
    await second.see(b"alone\r\n")
    assert (await page.ask("DELETE", f"api/sessions/{second.session}"))[0] == 204
    assert made["name"].encode() not in await asyncio.to_thread(sandboxes, dev)


async def test_a_session_begun_by_ssh_goes_on_in_the_browser(page: Browser, dev: Ssh) -> None:
    work = dev.as_user("dev=work=build")
    await asyncio.to_thread(joined_by_ssh, work, "mark=ssh; seq -f line-%g 1 300; echo ou''t", b"out\r\n")

    async def detached() -> bool:
        status, answer = await page.ask("GET", "api/held-sessions")
        assert status == 200
        found: list[tuple[str, ...]] = [(one["sandbox"], one["name"], one["state"]) for one in answer["sessions"]]
        return found == [("work", "build", "detached")]

    await eventually(detached)
    tab = await shell(page, session="build")
    await sees(tab, b"out\r\n")
    numbers = [int(one) for one in re.findall(rb"line-(\d+)\r\n", screen(tab))]
    assert numbers == list(range(1, 301))
    await tab.type(b"echo it is $mark; exit 5\n")
    assert await tab.closed() == 1000
    assert b"it is ssh\r\n" in tab.text
    assert tab.messages("exit")[0]["code"] == 5
    assert await listed(dev) == []


async def test_a_screen_of_a_program_is_drawn_again(page: Browser, dev: Ssh) -> None:
    script = "trap 'printf \"drawn-again\"' WINCH; printf '\\033[?1049h\\033[?1002hfirst'; while :; do sleep 0.1; done"
    with on(dev.as_user("dev=work=full"), script) as terminal:
        await asyncio.to_thread(terminal.expect, b"first")
    tab = await shell(page, session="full")
    await sees(tab, b"drawn-again")
    assert b"\x1b[?1049h" in screen(tab)
    assert b"\x1b[?1002h" in screen(tab)


async def test_without_a_page_it_is_left_and_joined_by_the_next_login(page: Browser, dev: Ssh) -> None:
    tab = await shell(page)
    await tab.type(b"mark=there; echo be''gun\n")
    await tab.see(b"begun\r\n")
    held, offset = held_of(tab), tab.offset
    await tab.leave()
    # It was left as soon as somebody else has come for it, which is before the page would be given up.
    await asyncio.to_thread(joined_by_ssh, dev.as_user("dev=work"), "echo still $mark", b"still there\r\n")

    async def left() -> bool:
        return bool((await page.ask("GET", "api/sessions"))[1] == {"sessions": []})

    await eventually(left)
    assert held is not None
    # The page comes back by the session's name and its offset.
    made = await page.ask("POST", "api/sessions", {"name": "work", "session": held["name"], "held": held["id"]})
    again = Tab(page, made[1]["id"], offset=offset)
    await again.open()
    assert (again.hello["start"], again.hello["offset"]) == ("resume", offset)
    await again.see(b"still there\r\n")
    assert b"begun\r\n" not in again.text
    # Queries in what it has missed must not be answered late.
    (replay,) = again.messages("replay")
    assert offset is not None
    assert replay["until"] > offset + len(b"still there\r\n")


async def test_what_the_resident_has_lost_meanwhile_is_shown_as_a_screen(page: Browser, dev: Ssh) -> None:
    tab = await shell(page)
    held, offset = held_of(tab), tab.offset
    assert held is not None
    await tab.leave()
    flood = "seq 1 400000; echo al''l"
    await asyncio.to_thread(joined_by_ssh, dev.as_user(f"dev=work={held['name']}"), flood, b"all\r\n")
    made = await page.ask("POST", "api/sessions", {"name": "work", "session": held["name"], "held": held["id"]})
    again = Tab(page, made[1]["id"], offset=offset)
    await again.open()
    await again.until(lambda: again.snapshot is not None, "a screen")
    await sees(again, b"\r\n400000\r\nall\r\n")
    assert again.offset is not None
    assert again.offset > 2_000_000
    await again.type(b"echo go''ing\n")
    await again.see(b"going\r\n")


async def test_a_session_that_is_gone_is_a_sentence(page: Browser) -> None:
    tab = await shell(page)
    made = await page.ask("POST", "api/sessions", {"name": "work", "session": "other", "held": "f" * 16})
    lost = Tab(page, made[1]["id"], offset=5)
    await lost.open()
    await lost.closed()
    (exit_,) = lost.messages("exit")
    assert exit_["reason"] == "the session is gone: what kept it in the sandbox was ended."
    assert exit_["start"]
    await tab.type(b"echo un''harmed\n")
    await tab.see(b"unharmed\r\n")


async def test_deleting_it_ends_the_program(page: Browser, served: Gateway, dev: Ssh) -> None:
    tab = await shell(page, session="build")
    assert (await page.ask("DELETE", f"api/sessions/{tab.session}"))[0] == 204
    ends = [each for each in await listed(dev) if each["name"] == "build"]
    assert [each["state"] for each in ends] in ([], ["ended: signal HUP"])
    found = [one for one in events(served.place / "audit.jsonl") if one["event"] == "session.held_end"]
    assert (found[-1]["name"], found[-1]["by"]) == ("build", "user")
    tab = await shell(page, session="again")
    assert (await page.ask("DELETE", "api/held-sessions/work/again"))[0] == 204
    assert await tab.closed() == 1000
    assert (await page.ask("DELETE", "api/held-sessions/work/again"))[0] == 204
    assert (await page.ask("DELETE", "api/held-sessions/none/again"))[0] == 404


async def test_a_program_that_a_hang_up_does_not_end_is_not_reported_as_ended(
    page: Browser, served: Gateway, dev: Ssh
) -> None:
    tab = await shell(page, session="stays")
    await tab.type(b"trap '' HUP; echo tra''pped\n")
    await tab.see(b"trapped\r\n")

    def ends() -> list[dict[str, Any]]:
        found = [one for one in events(served.place / "audit.jsonl") if one["event"] == "session.held_end"]
        return [one for one in found if one["name"] == "stays"]

    assert (await page.ask("DELETE", f"api/sessions/{tab.session}"))[0] != 204
    assert ends() == []
    assert [one["name"] for one in await listed(dev)] == ["stays"]


async def test_names_are_checked_and_unheld_profiles_hold_none(page: Browser) -> None:
    for wanted in ({"session": "build"}, {"name": "work", "session": "Not A Name"}, {"name": "work", "held": "x" * 99}):
        status, answer = await page.ask("POST", "api/sessions", wanted)
        assert (status, answer["error"]["code"]) == (400, "request"), wanted
    status, answer = await page.ask("POST", "api/sessions", {"profile": "unheld", "name": "other", "session": "build"})
    assert (status, "sessions are not held here" in answer["error"]["message"]) == (400, True)
    made = await page.new(profile="unheld", name="other")
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.type(b"echo pla''in\n")
    await tab.see(b"plain\r\n")
    assert held_of(tab) is None
    assert (await page.ask("GET", "api/held-sessions"))[1] == {"sessions": [], "errors": {}}
