"""Browsers at a gateway of several workers: whichever is reached, a user's sessions are found."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.lifecycle.place import Place
from tests.lifecycle.test_workers import of_worker, records, two, workers
from tests.rig.cluster import IMAGE
from tests.rig.gateway import Gateway
from tests.rig.ssh import make_key
from tests.rig.waiting import until
from tests.rig.web import Browser, Tab, eventually, link, section, token

pytestmark = pytest.mark.cluster

USERS = 4
# With two workers, each connection reaches the wrong one half of the time.
CONNECTIONS = 12


@asynccontextmanager
async def fresh(gateway: Gateway, cookies: aiohttp.CookieJar | None = None) -> AsyncIterator[Browser]:
    """A browser whose every request has a connection of its own, which reaches either worker."""
    tls = "tls" in gateway.settings["web"]
    url = f"{'https' if tls else 'http'}://{gateway.settings['web']['listen']}"
    jar = cookies or aiohttp.CookieJar(unsafe=True)
    connector = aiohttp.TCPConnector(force_close=True, ssl=False)
    async with aiohttp.ClientSession(cookie_jar=jar, connector=connector) as http:
        yield Browser(http, url, url)
    # TLS takes some turns of the loop to close a connection, and aiohttp does not wait for them.
    await asyncio.sleep(0.5 if tls else 0)


def gateway_with_web(place: Place, tmp_path: Path, tls: bool, **web: Any) -> Gateway:
    if tls:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-days", "2", "-subj", "/CN=web", "-addext", "subjectAltName=IP:127.0.0.1",
                   "-keyout", str(tmp_path / "tls.key"), "-out", str(tmp_path / "tls.crt")]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        web["tls"] = {"cert": str(tmp_path / "tls.crt"), "key": str(tmp_path / "tls.key")}
    gateway = two(place, web=section(**web), profile={"image": IMAGE, "shell": "/bin/bash"})
    line = make_key(tmp_path / "other")
    for number in range(USERS):
        (gateway.users / f"user{number}").write_text((gateway.users / "dev").read_text() + line + "\n")
    return gateway


@asynccontextmanager
async def tabs_of_all(gateway: Gateway, place: Place) -> AsyncIterator[dict[str, Tab]]:
    """A tab of each user, attached and with a prompt."""
    tabs: dict[str, Tab] = {}
    async with AsyncExitStack() as stack:
        for number in range(USERS):
            page = await stack.enter_async_context(fresh(gateway))
            await page.login(link(place.user(gateway, f"user{number}")))
            tab = tabs[f"user{number}"] = Tab(page, (await page.new())["id"])
            await tab.open()
            await tab.type(b"echo $((1 + 1))\r")
            await tab.see(b"2\r\n")
        yield tabs


def owners(gateway: Gateway) -> dict[str, set[object]]:
    """The workers in which each user's sessions have run."""
    found: dict[str, set[object]] = {}
    for one in records(gateway):
        if one["event"] == "sandbox.claim":
            found.setdefault(str(one["user"]), set()).add(one["worker"])
    return found


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_sessions_files_and_sockets_are_found_by_every_connection(
    place: Place, tmp_path: Path, tls: bool
) -> None:
    gateway = gateway_with_web(place, tmp_path, tls)
    for number in range(USERS):
        user = place.user(gateway, f"user{number}")
        async with fresh(gateway) as page:
            await page.login(link(user))
            session = await page.new()
            for _ in range(CONNECTIONS):
                _, listed = await page.ask("GET", "api/sessions")
                assert [one["id"] for one in listed["sessions"]] == [session["id"]]
            for turn in range(4):
                tab = Tab(page, session["id"])
                await tab.open()
                await tab.type(f"echo $((40 + {turn}))\r".encode())
                await tab.see(f"{40 + turn}\r\n".encode())
                await tab.leave()
            # Larger than what is given along with a connection.
            content = os.urandom(300_000)
            path = f"api/sessions/{session['id']}/files?path=/tmp/file"
            for _ in range(3):
                status, answer = await page.ask("PUT", path, content)
                assert (status, answer) == (201, {"path": "/tmp/file", "bytes": len(content)})
            for _ in range(3):
                async with page.http.get(f"{page.url}/{path}") as got:
                    assert await got.read() == content
            assert (await page.ask("DELETE", f"api/sessions/{session['id']}"))[0] == 204
        bearer = {"Authorization": f"Bearer {token(user)}"}
        async with fresh(gateway) as program:
            for _ in range(4):
                status, made = await program.ask("POST", "api/sessions", {"cols": 80, "rows": 24}, headers=bearer)
                assert status == 201, made
            _, listed = await program.ask("GET", "api/sessions", headers=bearer)
            assert len(listed["sessions"]) == 4
            for one in listed["sessions"]:
                assert (await program.ask("DELETE", f"api/sessions/{one['id']}", headers=bearer))[0] == 204
    found = owners(gateway)
    assert all(len(at) == 1 for at in found.values()), found
    assert len(found) == USERS
    assert set().union(*found.values()) == {1, 2}
    # Nothing is reported of a connection that moves.
    assert not [
        one for one in records(gateway) if one["event"] in ("web.refused", "web.malformed", "web.session.broken")
    ]


async def test_a_link_works_once_whichever_worker_is_reached(place: Place, tmp_path: Path) -> None:
    gateway = gateway_with_web(place, tmp_path, False, login_attempts=100)
    user = place.user(gateway, "user0")
    for _ in range(4):
        found = link(user)
        tries = []
        async with fresh(gateway) as page:
            body = {"link": found.partition("#login=")[2]}
            tries = await asyncio.gather(*(page.ask("POST", "api/login", body) for _ in range(4)))
        assert sorted(status for status, _ in tries) == [200, 401, 401, 401]


async def test_failed_logins_count_at_all_workers(place: Place, tmp_path: Path) -> None:
    gateway = gateway_with_web(place, tmp_path, False)
    async with fresh(gateway) as page:
        tried = [(await page.ask("POST", "api/login", {"link": "wrong"}))[0] for _ in range(24)]
    assert tried == [401] * 10 + [429] * 14


async def test_a_killed_worker_takes_its_users_sessions_and_begins_them_anew(place: Place, tmp_path: Path) -> None:
    gateway = gateway_with_web(place, tmp_path, True)
    async with tabs_of_all(gateway, place) as tabs:
        found = {user: at for user, (at,) in owners(gateway).items()}
        assert set(found.values()) == {1, 2}
        first = workers(gateway)[1]
        os.kill(first, signal.SIGKILL)
        for user, tab in tabs.items():
            if found[user] == 1:
                await tab.closed()
        await asyncio.to_thread(until, lambda: workers(gateway).get(1, first) != first, 30, "another first worker")
        for user, tab in tabs.items():
            if found[user] == 1:

                async def lists(page: Browser = tab.browser) -> bool:
                    return await page.ask("GET", "api/sessions") == (200, {"sessions": []})

                await eventually(lists)
                assert (await tab.browser.new())["state"]
            else:
                _, listed = await tab.browser.ask("GET", "api/sessions")
                assert [one["id"] for one in listed["sessions"]] == [tab.session]


async def test_a_drain_waits_for_sessions_whose_bytes_another_worker_decrypts(place: Place, tmp_path: Path) -> None:
    gateway = gateway_with_web(place, tmp_path, True)
    async with tabs_of_all(gateway, place) as tabs:
        os.kill(gateway.pid, signal.SIGTERM)
        await asyncio.to_thread(until, lambda: set(of_worker(gateway, "draining")) == {1, 2}, 10, "a drain")
        for tab in tabs.values():
            await tab.type(b"echo $((6 * 7)); exit\r")
        for tab in tabs.values():
            await tab.see(b"42\r\n")
            await tab.until(lambda: tab.messages("exit"), "exit")  # noqa: B023
            await tab.closed()
            await tab.leave()
        assert gateway.process is not None
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0
