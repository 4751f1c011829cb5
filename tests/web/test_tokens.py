"""Tokens and logouts: listed, revoked, known to every gateway and after a restart, and told as events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ended, Ssh, make_key
from tests.rig.web import Tab, address, browser, eventually, link, section, token


def events_of(gate: Gateway, code: str) -> list[dict[str, Any]]:
    lines = (gate.place / "audit").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == code]


async def ask(user: Ssh, *words: str) -> Ended:
    return await asyncio.to_thread(user.run, *words, options=("-s",))


def running(user: Ssh) -> list[dict[str, Any]]:
    found = json.loads(user.run("sessions", "--json", options=("-s",)).out)
    return [one for each in found for one in each["sessions"] if not one["state"].startswith("ended")]


async def answered(gate: Gateway, word: str) -> int:
    headers = {"Authorization": f"Bearer {word}"}
    async with aiohttp.ClientSession() as http, http.get(f"{address(gate)}/api/me", headers=headers) as answer:
        return answer.status


async def test_what_is_taken_away_stays_so_everywhere_and_over_a_restart(
    gateway: MakeGateway, provider: str, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.mkdir()
    gate, other = (
        gateway(
            provider, web=section(secret=str(tmp_path / "secret")), access={"authorized_keys": str(users)},
            telemetry={"audit": "audit"},
        )
        for _ in range(2)
    )  # fmt: skip
    user, there, eve = Ssh(tmp_path / "1", gate.port), Ssh(tmp_path / "2", other.port), Ssh(tmp_path / "3", gate.port)
    for who in (user, there, eve):
        who.place.mkdir()
    (users / "dev").write_text(make_key(user.key) + "\n" + make_key(there.key) + "\n")
    (users / "eve").write_text(make_key(eve.key) + "\n")
    eve = eve.as_user("eve")

    assert (await ask(user, "tokens")).out == b"you have no tokens.\n"
    kept, gone = [await asyncio.to_thread(token, user) for _ in range(2)]
    listed = (await ask(there, "tokens")).out.decode().splitlines()
    assert listed[0].split() == ["ID", "AGE", "LEFT", "FROM", "KEY"]
    ids = [event["id"] for event in events_of(gate, "web.token_issued")]
    assert [line.split()[0] for line in listed[1:]] == ids
    assert all("127.0.0.1" in line and "SHA256:" in line for line in listed[1:])
    assert [await answered(each, word) for each in (gate, other) for word in (kept, gone)] == [200] * 4

    async with browser(address(gate)) as page:
        await page.login(await asyncio.to_thread(link, user))
        cookies = {cookie.key: cookie.value for cookie in page.http.cookie_jar}
        assert (await page.ask("POST", "api/logout"))[0] == 204
    (cookie,) = cookies.values()

    async def logged_in(at: Gateway) -> int:
        name = f"sshgate-{at.settings['web']['listen'].rpartition(':')[2]}"
        async with (
            aiohttp.ClientSession(headers={"Cookie": f"{name}={cookie}"}) as http,
            http.get(f"{address(at)}/api/me") as answer,
        ):
            return answer.status

    # Nobody ends another's, and a wrong id is told.
    for who, word in ((eve, ids[1]), (user, "nothing"), (user, "")):
        refused = await ask(who, "revoke-token", *filter(None, [word]))
        assert (refused.status, "tokens` lists yours" in refused.both) == (126, True), refused.both
    assert (await ask(user, "revoke-token", ids[1])).out.decode() == f"token {ids[1]} is revoked.\n"
    assert [await answered(gate, word) for word in (kept, gone)] == [200, 401]
    assert await logged_in(gate) == 401

    async def known_there() -> bool:
        return [await answered(other, gone), await logged_in(other)] == [401, 401]

    await eventually(known_there, 15)
    await asyncio.to_thread(gate.stop)
    await asyncio.to_thread(gate.start)
    assert [await answered(gate, word) for word in (kept, gone)] == [200, 401]
    assert await logged_in(gate) == 401
    assert [line.split()[0] for line in (await ask(user, "tokens")).out.decode().splitlines()[1:]] == ids[:1]

    assert [event["id"] for event in events_of(gate, "web.token_revoked")] == ids[1:]
    assert {event["id"] for event in events_of(gate, "web.token_used")} == set(ids)
    assert ids[1] in {event.get("id") for event in events_of(gate, "web.refused")}
    (logout,) = events_of(gate, "web.logout")
    assert logout["id"] in {event["id"] for event in events_of(gate, "web.link_issued")}
    if provider == "local":
        assert (tmp_path / "secret.issued").stat().st_mode & 0o777 == 0o600


@pytest.mark.local
@pytest.mark.usefixtures("local")
async def test_a_revoked_token_ends_the_sessions_that_it_made(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    gate = gateway("local", profiles={"default": {"hold": "named"}}, web=section(), telemetry={"audit": "audit"})
    user = user_at(gate)
    word = await asyncio.to_thread(token, user)
    headers = {"Authorization": f"Bearer {word}"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def begin(**wanted: object) -> Any:
            body = {"cols": 80, "rows": 24, **wanted}
            async with http.post(f"{address(gate)}/api/sessions", json=body) as answer:
                assert answer.status == 201
                return (await answer.json())["name"]

        await begin()
        await begin(lasting=True)
        await begin(name=await begin(lasting=True))
        await eventually(lambda: asyncio.to_thread(lambda: len(running(user)) == 3))
        (issued,) = events_of(gate, "web.token_issued")
        assert (await ask(user, "revoke-token", issued["id"])).status == 0
        await eventually(lambda: asyncio.to_thread(lambda: len(events_of(gate, "sandbox.end")) >= 2), 10)
        await eventually(lambda: asyncio.to_thread(lambda: running(user) == []), 10)


@pytest.mark.local
@pytest.mark.usefixtures("local")
async def test_a_revoked_token_closes_no_socket_and_no_transfer_that_came_by_another_login(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    gate = gateway("local", web=section(), telemetry={"audit": "audit"})
    user = user_at(gate)
    word = await asyncio.to_thread(token, user)
    async with browser(address(gate)) as page, browser(address(gate)) as program:
        await page.login(await asyncio.to_thread(link, user))
        program.headers["Authorization"] = f"Bearer {word}"
        mine, its = Tab(page, (await page.new())["id"]), Tab(program, (await program.new())["id"])
        await mine.open()
        await its.open()
        await mine.type(b"head -c 100000000 /dev/zero >large; echo fi''lled\n")
        await mine.see(b"filled\r\n")
        files = f"{page.url}/api/sessions/{mine.session}/files"
        async with page.http.get(files, params={"path": "large"}) as download:
            (issued,) = events_of(gate, "web.token_issued")
            assert (await ask(user, "revoke-token", issued["id"])).status == 0
            assert await its.closed(10) == 4401
            await eventually(lambda: asyncio.to_thread(lambda: bool(events_of(gate, "sandbox.end"))), 10)
            await mine.type(b"echo st''ill\n")
            await mine.see(b"still\r\n")
            assert len(await download.read()) == 100_000_000
        await page.ask("DELETE", f"api/sessions/{mine.session}")
