"""Watching a held session by a link: live, for that session alone, no login, and over when its owner says so."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.scrape import events
from tests.rig.ssh import Ended, Ssh, make_key
from tests.rig.terminal import OnTerminal
from tests.rig.web import Browser, Tab, address, browser, eventually, section

Pair = tuple[Gateway, Gateway]
# What a provider has no part in.
LOCAL = pytest.mark.parametrize("provider", ["local"], indirect=True, scope="session")


@pytest.fixture(scope="module")
def served(make_gateway: MakeGateway, provider: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two gateways with one secret. Local sandboxes are of one gateway, so there both are the same."""
    secret = tmp_path_factory.mktemp("secret") / "web"

    def made() -> Gateway:
        return make_gateway(provider, web=section(secret=str(secret)), telemetry={"audit": "audit.jsonl"})

    one = made()
    return one, one if provider == "local" else made()


@pytest.fixture(scope="module")
def dev(served: Pair, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    user = user_at(served[0])
    if served[1] is not served[0]:
        (served[1].users / "dev").write_text((served[0].users / "dev").read_text())
    return user


@pytest.fixture(autouse=True)
def ended(dev: Ssh) -> Iterator[None]:
    yield
    dev.end_named()


@pytest.fixture
async def stranger(served: Pair) -> AsyncIterator[Browser]:
    """A browser that nobody has logged in."""
    async with browser(address(served[0])) as fresh:
        yield fresh


@pytest.fixture
async def elsewhere(served: Pair) -> AsyncIterator[Browser]:
    async with browser(address(served[1])) as fresh:
        yield fresh


async def verb(user: Ssh, *words: str) -> Ended:
    return await asyncio.to_thread(user.run, *words, options=("-s",))


async def share(user: Ssh, *words: str) -> str:
    done = await verb(user, "share", *words)
    found = re.match(r"http://\S+/watch#watch=(\S+)\n# Who has it can ", done.out.decode())
    assert found, done.both
    return found[1]


def shown(tab: Tab) -> bytes:
    assert tab.snapshot is not None
    return base64.b64decode(tab.snapshot.get("screen", "")) + bytes(tab.text)


async def sees(tab: Tab, text: bytes) -> None:
    await tab.until(lambda: tab.snapshot is not None and text in shown(tab), repr(text))


def sentence(tab: Tab) -> str:
    found: str = tab.messages("error")[-1]["message"]
    return found


class Session:
    """A held session with its owner at it, by ssh."""

    def __init__(self, dev: Ssh, name: str = "build", columns: int = 100) -> None:
        self.user = dev.as_user(f"dev=work={name}")
        self.terminal = OnTerminal(self.user.argv(options=("-tt",)), columns=columns, rows=30)

    async def run(self, command: str, pattern: bytes) -> bytes:
        def both() -> bytes:
            self.terminal.enter(command)
            return self.terminal.expect(pattern).string

        return await asyncio.to_thread(both)


@pytest.fixture
async def session(dev: Ssh) -> AsyncIterator[Session]:
    made = Session(dev)
    with made.terminal:
        await made.run("PS1='$ '; stty -echo; echo be''gun", b"begun\r\n")
        yield made


async def test_a_link_shows_a_session_live_at_any_gateway_until_it_is_revoked(
    served: Pair, dev: Ssh, session: Session, stranger: Browser, elsewhere: Browser
) -> None:
    secret = await share(session.user, "--for", "10m")
    tabs = [Tab(stranger, ""), Tab(elsewhere, "")]
    for tab in tabs:
        await tab.watch(secret)
        await sees(tab, b"begun\r\n")
        about = tab.messages("watching")[0]
        assert (about["owner"], about["name"], about["session"], about["types"]) == ("dev", "work", "build", False)
        await tab.until(lambda tab=tab: tab.messages("size") or tab.hello["cols"] == 100, "the size")
    await session.run("echo li''ve", b"live\r\n")
    for tab in tabs:
        await sees(tab, b"live\r\n")

    (listed,) = json.loads((await verb(dev, "sessions", "--json")).out)[0]["sessions"]
    assert listed["watchers"] == ["127.0.0.1", "127.0.0.1"]
    assert (listed["columns"], listed["rows"]) == (100, 30)
    assert b"attached from 127.0.0.1; watched from 127.0.0.1, 127.0.0.1" in (await verb(dev, "sessions")).out

    # Its server refuses what its page would not send.
    await tabs[0].type(b"echo ty''ped\n")
    assert await tabs[0].closed() == 1008
    assert "watching only" in sentence(tabs[0])
    resizing = Tab(stranger, "")
    await resizing.watch(secret)
    await resizing.send("resize", cols=20, rows=5)
    assert await resizing.closed() == 1008
    assert b"typed" not in await session.run("stty size", b"30 100\r\n")

    (link,) = json.loads((await verb(dev, "shares", "--json")).out)
    assert (link["sandbox"], link["session"], link["types"]) == ("work", "build", False)
    assert link["id"].encode() in (await verb(dev, "shares")).out
    assert (await verb(dev, "unshare", link["id"])).out == f"link {link['id']} is revoked.\n".encode()
    assert await tabs[1].closed() == 4401
    assert sentence(tabs[1]) == "this link was revoked by its owner."
    late = Tab(stranger, "")
    await late.watch(secret)
    assert (late.code, sentence(late)) == (4401, "this link was revoked by its owner.")
    assert (await verb(dev, "shares")).out == b"you have no links to sessions.\n"
    await session.run("echo go''es on", b"goes on\r\n")

    record = [one for place in {gate.place for gate in served} for one in events(place / "audit.jsonl")]
    mine = [one for one in record if one.get("id") == link["id"]]
    assert {one["user"] for one in mine} == {"dev"}
    codes = [one["event"] for one in mine]
    assert {one: codes.count(one) for one in codes} == {
        "share.created": 1, "share.opened": 3, "share.closed": 3, "share.revoked": 1, "web.refused": 1,
    }  # fmt: skip
    assert secret not in (served[0].place / "audit.jsonl").read_text()


@LOCAL
async def test_with_type_who_has_the_link_types_and_answers_no_queries(session: Session, stranger: Browser) -> None:
    secret = await share(session.user, "--type")
    tab = Tab(stranger, "")
    await tab.watch(secret)
    await sees(tab, b"begun\r\n")
    await tab.type(b"\x1b[?62;4cecho ty''ped; stty size\n")
    await sees(tab, b"typed\r\n30 100\r\n")
    await tab.type(b"exit 3\n")
    assert await tab.closed() == 1000
    assert tab.messages("exit")[0]["code"] == 3


@LOCAL
async def test_a_link_is_good_for_its_session_alone_and_is_no_login(
    dev: Ssh, session: Session, stranger: Browser
) -> None:
    secret = await share(session.user)
    for headers in (
        {"Authorization": f"Bearer {secret}"},
        {"Cookie": f"sshgate-{stranger.url.split(':')[-1]}={secret}"},
    ):
        for method, path in (("GET", "api/me"), ("GET", "api/sessions"), ("POST", "api/sessions")):
            status, _ = await stranger.ask(method, path, headers=headers)
            assert status == 401, (path, headers)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await stranger.socket(Authorization=f"Bearer {secret}")
    assert refused.value.status == 401
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await stranger.socket("/watch/socket", Origin="https://evil.example")
    assert refused.value.status == 403

    forged = secret[:-9] + ("A" if secret[-9] != "A" else "B") + secret[-8:]
    for wrong in (forged, secret.replace(".", ""), "x", "." * 2048):
        tab = Tab(stranger, "")
        await tab.watch(wrong)
        assert tab.code == 4401, wrong
        assert "never one of this gateway" in sentence(tab)
    for first in ("attach", "ack"):
        tab = Tab(stranger, "")
        tab.socket = await stranger.socket("/watch/socket")
        await tab.send(first, session="x", ticket="x", tab="x", cols=80, rows=24, offset=0)
        await tab.socket.receive()
        assert (await tab.socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert tab.socket.close_code == 1008

    # Another session of the same name is another session.
    assert (await verb(session.user, "end-session")).status == 0
    again = Session(dev)
    with again.terminal:
        await again.run("echo an''other", b"another\r\n")
        tab = Tab(stranger, "")
        await tab.watch(secret)
        assert await tab.closed() == 1000
        assert tab.messages("exit")[0]["reason"] == "the session has ended, and this link with it."
        assert b"another" not in shown(tab)
    # A cookie was never set.
    assert not list(stranger.http.cookie_jar)


@LOCAL
async def test_many_and_slow_ones_do_not_hold_up_the_owner(session: Session, stranger: Browser) -> None:
    secret = await share(session.user)
    tabs = [Tab(stranger, "", acking=False) for _ in range(8)]
    for tab in tabs:
        await tab.watch(secret)
    late = Tab(stranger, "")
    await late.watch(secret)
    assert late.code == 4429
    await session.run("seq 1 2000000; echo ov''er", b"over\r\n")
    assert max(tab.received for tab in tabs) <= 1 << 20
    # One that goes on has the end, and not all that was between.
    tabs[0].acking = True
    await tabs[0].send("ack", offset=tabs[0].offset)
    await sees(tabs[0], b"over\r\n")
    assert tabs[0].received < 10 << 20
    for tab in tabs:
        await tab.leave()


@LOCAL
async def test_what_the_owner_may_not_share_is_refused_in_a_sentence(
    served: Pair, dev: Ssh, session: Session, tmp_path: Path
) -> None:
    for words, sentence_of in (
        (("--for", "25h"), "a link lasts from 1m to 24h00m here"),
        (("--for", "soon"), "is no duration"),
        (("--write",), "share [--type] [--for 1h]"),
    ):
        done = await verb(session.user, "share", *words)
        assert (done.status != 0, sentence_of in done.both) == (True, True), done.both
    assert "say which session" in (await verb(dev, "share")).both
    assert "you have no session 'none'" in (await verb(dev.as_user("dev=work=none"), "share")).both
    # Nobody else has it.
    eve = Ssh(tmp_path, dev.port, "eve=work=build")
    (served[0].users / "eve").write_text(make_key(eve.key) + "\n")
    assert (await verb(eve, "share")).status != 0
    assert "no such link" in (await verb(eve, "unshare")).both


@LOCAL
async def test_a_link_ends_with_the_key_that_made_it(
    served: Pair, dev: Ssh, session: Session, stranger: Browser
) -> None:
    secret = await share(session.user)
    tab = Tab(stranger, "")
    await tab.watch(secret)
    keys = served[0].users / "dev"
    before = keys.read_text()
    keys.write_text("")
    try:
        assert await tab.closed() == 4401
        assert "key is not accepted" in sentence(tab)
    finally:
        keys.write_text(before)

    async def logs_in() -> bool:
        return (await verb(dev, "shares")).status == 0

    await eventually(logs_in)
