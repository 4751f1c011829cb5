"""Whoever may not is told so before anything is done: origins, credentials, tickets, other people's sessions.

T1-T5, T7, T8 and T12 of the threat list; at the end of each no sandbox was made.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.processes import descendants
from tests.rig.ssh import Ssh, make_key
from tests.rig.web import Browser, Tab, address, browser, link, section, token

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

# Every route that needs a login, with a body it would take.
ROUTES = [
    ("GET", "api/me", None), ("GET", "api/sessions", None), ("POST", "api/sessions", {"cols": 80, "rows": 24}),
    ("POST", "api/logout", {}), ("GET", "api/sessions/ID", None), ("DELETE", "api/sessions/ID", None),
    ("POST", "api/sessions/ID/ticket", {}), ("GET", "api/sessions/ID/files?path=x", None),
    ("PUT", "api/sessions/ID/files?path=x", b"x"), ("POST", "api/sessions/ID/files?path=x", {}),
    ("PATCH", "api/sessions/ID/files?path=x", {"to": "y"}), ("DELETE", "api/sessions/ID/files?path=x", None),
    ("GET", "terminal", None),
]  # fmt: skip
CHANGING = [route for route in ROUTES if route[0] != "GET"]
FOREIGN = [
    "https://evil.example", "null", "http://a.127.0.0.1", "http://127.0.0.1", "http://127.0.0.1:1", "https://HOST", "http://HOST/",
    "http://HOST.evil.example", "http://evil.example#HOST", "http://HOST@evil.example", "HTTP://HOST", "http://HOST.",
]  # fmt: skip


@pytest.fixture(scope="module")
def gate(make_gateway: MakeGateway) -> Gateway:
    """A gateway of this file alone, so that what runs below it is this file's doing."""
    return make_gateway("local", web=section())


@pytest.fixture(scope="module")
def alice(gate: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(gate)


@pytest.fixture(scope="module")
def bob(gate: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Ssh:
    place = tmp_path_factory.mktemp("bob")
    (gate.users / "bob").write_text(make_key(place / "id") + "\n")
    return Ssh(place, gate.port, "bob")


@pytest.fixture
async def page(gate: Gateway, alice: Ssh) -> AsyncIterator[Browser]:
    async with browser(address(gate)) as fresh:
        await fresh.login(link(alice))
        yield fresh


@pytest.fixture
def untouched(gate: Gateway) -> Iterator[None]:
    """No program was started below the gateway, and none was asked for."""
    before = descendants(gate.pid), gate.log().count("session.start")
    yield
    assert (descendants(gate.pid), gate.log().count("session.start")) == before


def cookie_name(gate: Gateway) -> str:
    return "sshgate-" + address(gate).rpartition(":")[2]


async def upgraded(page: Browser, **headers: str) -> int:
    """The status of a WebSocket's upgrade: 101, or a refusal's."""
    try:
        socket = await page.socket(**headers)
    except aiohttp.WSServerHandshakeError as error:
        return error.status
    await socket.close()
    return 101


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_page_of_another_origin_gets_nothing_with_the_users_cookie(
    page: Browser, origin: str, untouched: None
) -> None:
    page.origin = origin.replace("HOST", page.url.removeprefix("http://"))
    for method, path, body in CHANGING:
        status, answer = await page.ask(method, path, body)
        assert (status, answer["error"]["code"]) == (403, "origin"), (method, path)
    assert await upgraded(page) == 403
    status, answer = await page.ask("POST", "api/login", {"link": "x"})
    assert (status, answer["error"]["code"]) == (403, "origin")


async def test_without_an_origin_a_cookie_is_worth_nothing(page: Browser, untouched: None) -> None:
    for method, path, body in CHANGING:
        async with page.http.request(method, f"{page.url}/{path}", json=body if body != b"x" else None) as answer:
            assert answer.status == 403
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await page.http.ws_connect(page.url + "/terminal", protocols=("sshgate.v1",))
    assert raised.value.status == 403


@pytest.mark.parametrize("cookie", [None, "", "x", "e30.AAAA", "A" * 4000])
async def test_without_a_login_every_route_is_401_before_the_upgrade(
    gate: Gateway, cookie: str | None, untouched: None
) -> None:
    async with browser(address(gate)) as stranger:
        if cookie is not None:
            stranger.headers["Cookie"] = f"{cookie_name(gate)}={cookie}"
        for method, path, body in ROUTES:
            status, answer = await stranger.ask(method, path, body)
            assert (status, answer["error"]["code"], answer["login"]) == (401, "login", ["link"]), (method, path)
        assert await upgraded(stranger) == 401
        for wrong in ({"Authorization": "Bearer x"}, {"Authorization": "Bearer "}, {"Authorization": "Basic YTpi"}):
            assert (await stranger.ask("GET", "api/me", headers=wrong))[0] == 401


async def test_a_proxy_that_is_not_configured_is_not_believed(gate: Gateway, untouched: None) -> None:
    async with browser(address(gate)) as stranger:
        output = {"X-Forwarded-User": "dev", "X-Sshgate-Secret": "", "X-Forwarded-Host": "evil.example"}
        assert (await stranger.ask("GET", "api/me", headers=output))[0] == 401
        stranger.origin = "http://evil.example"
        assert (await stranger.ask("POST", "api/sessions", {}, headers=output))[0] == 403


async def test_tickets_and_links_are_good_once(page: Browser, gate: Gateway, alice: Ssh) -> None:
    made = await page.new()
    first, second = Tab(page, made["id"]), Tab(page, made["id"])
    await first.open(made["ticket"])
    await second.open(made["ticket"], take_over=True)
    assert await second.closed() == 4404
    other = await page.new()
    await second.open(other["ticket"], take_over=True)  # of another session
    assert await second.closed() == 4404
    used = link(alice)
    async with browser(address(gate)) as one, browser(address(gate)) as two:
        await one.login(used)
        status, answer = await two.ask("POST", "api/login", {"link": used.partition("#login=")[2]})
        assert (status, answer["error"]["code"]) == (401, "login")
    for session in (made, other):
        await page.ask("DELETE", f"api/sessions/{session['id']}")


async def test_a_link_of_somebody_else_asks_first_and_stays_good(page: Browser, bob: Ssh, untouched: None) -> None:
    ticket = link(bob).partition("#login=")[2]
    for _ in range(2):
        status, answer = await page.ask("POST", "api/login", {"link": ticket})
        assert (status, answer["error"]["code"]) == (409, "other_user")
        assert (await page.ask("GET", "api/me"))[1]["user"] == "dev"
    origin, page.origin = page.origin, "http://evil.example"
    assert (await page.ask("POST", "api/login", {"link": ticket, "switch": True}))[0] == 403
    page.origin = origin
    assert (await page.ask("POST", "api/login", {"link": ticket, "switch": True}))[1]["user"] == "bob"
    assert (await page.ask("GET", "api/me"))[1]["user"] == "bob"
    assert (await page.ask("POST", "api/login", {"link": ticket, "switch": True}))[0] == 401


async def test_another_user_finds_nothing_under_my_sessions_id(page: Browser, gate: Gateway, bob: Ssh) -> None:
    made = await page.new()
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    mine = await page.ticket(made["id"])
    async with browser(address(gate)) as other:
        await other.login(link(bob))
        assert (await other.ask("GET", "api/sessions"))[1] == {"sessions": []}
        for method, path, body in ROUTES:
            # There is nothing to end, and that is no error.
            if "ID" in path and (method, path[-2:]) != ("DELETE", "ID"):
                status, answer = await other.ask(method, path.replace("ID", made["id"]), body)
                assert (status, answer["error"]["code"]) == (404, "not_found"), (method, path)
        assert (await other.ask("DELETE", f"api/sessions/{made['id']}"))[0] == 204
        thief = Tab(other, made["id"])
        await thief.open(mine, take_over=True)
        assert await thief.closed() == 4404
    assert (await page.ask("GET", f"api/sessions/{made['id']}"))[1]["attached"]
    await page.ask("DELETE", f"api/sessions/{made['id']}")


async def test_a_new_login_is_a_new_cookie_and_a_logout_ends_the_old_one(
    page: Browser, gate: Gateway, alice: Ssh
) -> None:
    (old,) = page.http.cookie_jar
    assert (old.key, old["httponly"], old["samesite"], old["path"]) == (cookie_name(gate), True, "Strict", "/")
    before = old.value
    await page.login(link(alice))
    (new,) = page.http.cookie_jar
    assert new.value != before
    socket = await page.socket()
    made = await page.new()
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    word = new.value
    assert (await page.ask("POST", "api/logout"))[0] == 204
    assert await tab.closed() == 4401
    async with browser(address(gate)) as thief:
        thief.headers["Cookie"] = f"{cookie_name(gate)}={word}"
        assert (await thief.ask("GET", "api/me"))[0] == 401
    await socket.close()
    await page.login(link(alice))
    assert (await page.ask("GET", f"api/sessions/{made['id']}"))[0] == 200
    await page.ask("DELETE", f"api/sessions/{made['id']}")


async def test_a_program_with_a_token_needs_no_page_but_may_not_come_from_a_foreign_one(
    gate: Gateway, alice: Ssh
) -> None:
    async with browser(address(gate)) as program:
        headers = {"Authorization": f"Bearer {token(alice)}"}
        async with program.http.post(f"{program.url}/api/sessions", json={}, headers=headers) as answer:
            assert answer.status == 201
            made = await answer.json()
        async with program.http.delete(f"{program.url}/api/sessions/{made['id']}", headers=headers) as answer:
            assert answer.status == 204
        program.origin = "http://evil.example"
        assert (await program.ask("POST", "api/sessions", {}, headers=headers))[0] == 403
        assert await upgraded(program, **headers) == 403


async def test_profiles_and_names_that_are_not_there_or_malformed_bodies_are_refused(
    page: Browser, untouched: None
) -> None:
    for body, status, code in (
        ({"profile": "gpu"}, 403, "denied"), ({"profile": 7}, 400, "request"), ({"cols": 80}, 400, "request"),
        ({"cols": 0, "rows": 24}, 400, "request"), ({"name": "../x"}, 403, "denied"), ([], 400, "request"),
        ({"cols": 1e9, "rows": 24}, 400, "request"),
    ):  # fmt: skip
        got, answer = await page.ask("POST", "api/sessions", body)
        assert (got, answer["error"]["code"]) == (status, code), body
    for data, kind, status in (
        (b"{", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"x" * 70_000, "application/json", 413),
    ):
        assert (await page.ask("POST", "api/sessions", data, headers={"Content-Type": kind}))[0] == status
    assert (await page.ask("PATCH", "api/sessions", b""))[0] in (404, 405)
    assert (await page.ask("GET", "api/nothing"))[0] == 404


STRANGER = {"type": "attach", "session": "x", "ticket": "y", "tab": "z", "cols": 1, "rows": 1}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('{"type":"resize","cols":80,"rows":24}', 1008), ("{", 1008), (b"bytes first", 1008), ("x" * 3_000_000, 1009),
        (json.dumps(STRANGER), 4404), (json.dumps({**STRANGER, "cols": 0}), 1008),
    ],
)  # fmt: skip
async def test_a_first_frame_that_is_wrong_ends_the_socket(
    page: Browser, frame: str | bytes, code: int, untouched: None
) -> None:
    socket = await page.socket()
    await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))
    async with asyncio.timeout(20):
        async for _ in socket:
            pass
    assert socket.close_code == code


async def test_a_peer_in_the_middle_of_a_message_that_is_too_big_reads_why_it_is_ended(
    page: Browser, untouched: None
) -> None:
    host, port = page.url.removeprefix("http://").split(":")
    (cookie,) = page.http.cookie_jar
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /terminal HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {page.origin}\r\n"
        f"Cookie: {cookie.key}={cookie.value}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sshgate.v1\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    async with asyncio.timeout(20):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        # A text frame of 16 MiB, masked by zeros; all that has been sent comes too late to be read.
        writer.write(b"\x81\xff" + (16 << 20).to_bytes(8, "big") + bytes(4))
        for _ in range(64):
            writer.write(b"x" * 65_536)
            await writer.drain()
        assert await reader.read() == b"\x88\x02" + (1009).to_bytes(2, "big")
    writer.close()


async def test_who_says_nothing_after_the_upgrade_is_cut(page: Browser, untouched: None) -> None:
    socket = await page.socket()
    async with asyncio.timeout(20):
        async for _ in socket:
            pass
    assert socket.close_code == 4408


async def test_a_socket_that_was_logged_out_before_its_first_frame_attaches_to_nothing(
    page: Browser, alice: Ssh, untouched: None
) -> None:
    status, made = await page.ask("POST", "api/sessions", {})
    assert (status, made["state"]) == (201, "new")
    socket = await page.socket()
    assert (await page.ask("POST", "api/logout"))[0] == 204
    await socket.send_json(
        {"type": "attach", "session": made["id"], "ticket": made["ticket"], "tab": "t", "cols": 80, "rows": 24}
    )
    async with asyncio.timeout(20):
        async for _ in socket:
            pass
    assert socket.close_code == 4401
    await page.login(link(alice))
    assert (await page.ask("GET", f"api/sessions/{made['id']}"))[1]["state"] == "new"
    await page.ask("DELETE", f"api/sessions/{made['id']}")


async def test_a_socket_without_the_subprotocol_or_with_a_rule_broken_later_is_refused(page: Browser) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await page.http.ws_connect(page.url + "/terminal", headers={"Origin": page.origin})
    assert raised.value.status == 400
    made = await page.new()
    tab = Tab(page, made["id"])
    for frame, code in (
        ('{"type":"resize","cols":-1,"rows":24}', 1008), ('{"type":"resize","cols":1e9,"rows":24}', 1008),
        ('{"type":"resize","cols":"80","rows":24}', 1008), ('{"type":"ack","offset":99999999}', 1008),
        ("nonsense", 1008), (b"x" * 70_000, 1009),
    ):  # fmt: skip
        await tab.open()
        assert tab.socket is not None
        await (tab.socket.send_bytes(frame) if isinstance(frame, bytes) else tab.socket.send_str(frame))
        assert await tab.closed() == code, frame
        assert tab.messages("error"), frame
    await tab.open()
    for number in range(10_000):
        await tab.send("ping", id=number)
        await tab.type(b"")
    await tab.until(lambda: len(tab.messages("pong")) >= 10_000, "the pongs")
    await page.ask("DELETE", f"api/sessions/{made['id']}")


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    varying = {"date", "etag", "content-length", "location", "sec-websocket-accept"}
    found = {name: text for name, text in sorted(headers.items()) if name.lower() not in varying}
    # The script within the page is known by its hash, which changes with it.
    return {name: re.sub(r"'sha256-[^']+'", "'sha256-...'", text) for name, text in found.items()}


KEPT = Path(__file__).with_name("headers.json")


async def test_the_headers_of_every_kind_of_answer_are_the_kept_ones(page: Browser) -> None:
    found: dict[str, dict[str, str]] = {}
    made = await page.new()
    for name, method, path, body in (
        ("page", "GET", "", None), ("script", "GET", "page.js", None), ("me", "GET", "api/me", None),
        ("created", "POST", "api/sessions", {}), ("unknown", "GET", "nothing", None),
        ("method", "DELETE", "api/me", None), ("refused", "GET", "api/sessions/x", None),
        ("openapi", "GET", "api/openapi.json", None), ("healthz", "GET", "healthz", None),
        ("login", "POST", "api/login", {"link": "x"}), ("deleted", "DELETE", f"api/sessions/{made['id']}", None),
    ):  # fmt: skip
        async with page.http.request(method, f"{page.url}/{path}", headers={"Origin": page.origin}, json=body) as got:
            found[name] = {"status": str(got.status), **_kept(got.headers)}
    socket = await page.socket()
    found["upgrade"] = _kept(socket._response.headers)
    await socket.close()
    if not KEPT.exists():  # to renew it: remove it, run this once, and read the difference
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail("the headers were not kept yet; they are now")
    assert found == json.loads(KEPT.read_text())


async def test_no_secret_is_in_the_log(gate: Gateway, page: Browser, alice: Ssh) -> None:
    (cookie,) = page.http.cookie_jar
    bearer, ticket = token(alice), link(alice).partition("#login=")[2]
    await page.ask("GET", "api/me", headers={"Authorization": f"Bearer {bearer}"})
    await page.ask("POST", "api/login", {"user": "dev", "password": "a-secret-password"})
    await page.ask("POST", "api/login", {"link": ticket})
    log = gate.log()
    assert "web.login" in log
    for secret in (cookie.value, bearer, ticket, "a-secret-password"):
        assert secret not in log
