"""How sessions and logins end: revoked, detached too long, drained, restarted; and certificates renewed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway, nothing_left
from tests.rig.processes import descendants
from tests.rig.ssh import Ssh
from tests.rig.waiting import until
from tests.rig.web import Browser, Tab, address, browser, eventually, link, section, shell

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]


@pytest.fixture
def gate(gateway: MakeGateway) -> Gateway:
    return gateway("local", web=section(), profiles={"default": {"limits": {"detached": "8s"}}})


@pytest.fixture
def user(gate: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(gate)


async def test_a_user_whose_key_is_removed_loses_the_socket_and_the_sandbox(gate: Gateway, user: Ssh) -> None:
    async with browser(address(gate)) as page:
        await page.login(link(user))
        tab = await shell(page)
        below = descendants(gate.pid)
        assert below
        (gate.users / "dev").unlink()
        assert await tab.closed(10) == 4401
        await asyncio.to_thread(nothing_left, below)
        assert (await page.ask("GET", "api/me"))[0] == 401


async def test_a_page_that_comes_back_to_a_program_that_has_ended_learns_how(gate: Gateway, user: Ssh) -> None:
    async with browser(address(gate)) as page:
        await page.login(link(user))
        tab = await shell(page)
        await tab.type(b"while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last words; exit 5\n")
        await tab.leave()
        # The program may end, and with it the transfer, as soon as the file has its name.
        put = await page.ask("PUT", f"api/sessions/{tab.session}/files", b"", params={"path": "/tmp/go"})
        assert put[0] in (201, 502)

        async def ended() -> bool:
            return bool((await page.ask("GET", f"api/sessions/{tab.session}"))[1]["state"] == "ended")

        ticket = await page.ticket(tab.session)
        await eventually(ended)
        again = Tab(page, tab.session)
        await again.open(ticket)
        assert await again.closed() == 1000
        assert b"last words\r\n" in again.text
        assert again.messages("exit")[0]["code"] == 5


async def test_pages_hear_of_the_drain_that_the_file_says_now(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    gate = gateway("local", web=section(), ssh={"drain": "60s"})
    async with browser(address(gate)) as page:
        await page.login(link(user_at(gate)))
        made = await page.new()
        tab = Tab(page, made["id"])
        await tab.open(made["ticket"])
        file = gate.place / "sshgate.yaml"
        file.write_text(file.read_text().replace("drain: 60s", "drain: 2s"))
        await asyncio.to_thread(until, lambda: "config.reread" in gate.log(), 20, "the new settings")
        os.kill(gate.pid, signal.SIGTERM)
        await tab.until(lambda: tab.messages("drain"), "the drain")
        assert tab.messages("drain")[0]["seconds"] == 2.0
    await asyncio.to_thread(gate.stop)


async def test_a_drain_does_not_wait_for_sessions_that_nobody_is_at(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    gate = gateway("local", web=section(), ssh={"drain": "60s"})
    async with browser(address(gate)) as page:
        await page.login(link(user_at(gate)))
        left, stays = await shell(page), await shell(page)
        await left.leave()
        os.kill(gate.pid, signal.SIGTERM)
        await stays.until(lambda: stays.messages("drain"), "the drain")
        await stays.type(b"echo st''ill\n")
        await stays.see(b"still\r\n")
        await stays.leave()
    # Well before the drain is over: `stop` would not wait so long.
    await asyncio.to_thread(gate.stop)


async def test_twenty_reloads_leave_one_session_and_one_sandbox(gate: Gateway, user: Ssh) -> None:
    async with browser(address(gate)) as page:
        await page.login(link(user))
        tab = await shell(page)
        before = len(descendants(gate.pid))
        for _ in range(20):
            await tab.leave()
            tab = Tab(page, tab.session, tab=tab.tab)
            await tab.open()
            await tab.see(b"ready\r\n")
        assert len((await page.ask("GET", "api/sessions"))[1]["sessions"]) == 1
        assert len(descendants(gate.pid)) == before


async def test_a_page_hears_of_the_shutdown_and_its_login_is_good_for_the_next_gateway(
    gate: Gateway, user: Ssh
) -> None:
    async with browser(address(gate)) as page:
        await page.login(link(user))
        tab = await shell(page)
        os.kill(gate.pid, signal.SIGTERM)
        await tab.until(lambda: tab.messages("drain"), "the drain")
        assert tab.messages("drain")[0]["seconds"] == 3.0
        assert await tab.closed() == 1012
        assert not tab.messages("exit")
        await asyncio.to_thread(gate.stop)
        await asyncio.to_thread(gate.start)
        assert (await page.ask("GET", "api/me"))[0] == 200
        status, _ = await page.ask("POST", f"api/sessions/{tab.session}/ticket")
        assert status == 404
        await shell(page)


async def test_a_password_opens_and_loses_its_sessions_when_it_is_taken_away(gateway: MakeGateway) -> None:
    gate = gateway("local", web=section(users_file="passwords"))
    config = str(gate.place / "sshgate.yaml")

    def passwd(*more: str, text: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "sshgate", "passwd", "alice", "-c", config, *more]
        return subprocess.run(argv, input=text, capture_output=True, text=True, check=False)

    assert (await asyncio.to_thread(passwd, text="short\n")).returncode == 2
    done = await asyncio.to_thread(passwd, text="correct horse battery\n")
    assert done.returncode == 0, done.stderr
    async with browser(address(gate)) as page:
        status, answer = await page.ask("POST", "api/login", {"user": "alice", "password": "wrong"})
        assert (status, answer["login"]) == (401, ["link", "password"])
        status, who = await page.ask("POST", "api/login", {"user": "alice", "password": "correct horse battery"})
        assert (status, who["user"], who["method"]) == (200, "alice", "password")
        tab = await shell(page)
        below = descendants(gate.pid)
        removed = await asyncio.to_thread(passwd, "--remove")
        assert removed.returncode == 0, removed.stderr
        assert await tab.closed(10) == 4401
        await asyncio.to_thread(nothing_left, below)


def _certificate(place: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", place / "new.key",
         "-out", place / "new.crt"], check=True, capture_output=True,
    )  # fmt: skip
    (place / "new.key").rename(place / "tls.key")
    (place / "new.crt").rename(place / "tls.crt")


async def test_over_tls_the_cookie_is_secure_and_a_renewed_certificate_is_taken_up(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    _certificate(tmp_path, "first")
    files = {"cert": str(tmp_path / "tls.crt"), "key": str(tmp_path / "tls.key")}
    gate = gateway("local", web=section(tls=files))
    url = address(gate).replace("http:", "https:")
    trust = ssl.create_default_context(cafile=tmp_path / "tls.crt")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust), cookie_jar=aiohttp.DummyCookieJar()
    ) as http:
        page = Browser(http, url, url)
        found = link(user_at(gate))
        assert found.startswith(url)
        body = {"link": found.partition("#login=")[2]}
        async with http.post(f"{url}/api/login", json=body, headers={"Origin": url}) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
            assert answer.headers["Strict-Transport-Security"]
        assert cookie.startswith("__Host-sshgate=")
        for word in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/"):
            assert word in cookie
        assert "Domain" not in cookie
        page.headers["Cookie"] = cookie.partition(";")[0]
        tab = await shell(page)
        _certificate(tmp_path, "second")
        host, port = url.removeprefix("https://").split(":")

        async def renewed() -> bool:
            text = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
            return text.strip() in (tmp_path / "tls.crt").read_text()

        await eventually(renewed)
        await tab.type(b"echo st''ill\n")
        await tab.see(b"still\r\n")
