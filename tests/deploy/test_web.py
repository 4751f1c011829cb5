"""The browser's front door of the deployed gateway, by the node's port 31000, as Traefik calls it."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.rig.deployed import PUBLIC_URL, WEB_PORT, Deployed
from tests.rig.ssh import Ssh
from tests.rig.waiting import until
from tests.rig.web import Browser, Tab

pytestmark = pytest.mark.cluster

# What Traefik adds; the browser's own Host and Origin are those of the public name.
FORWARDED = {"Host": PUBLIC_URL.removeprefix("https://"), "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"}


@pytest.fixture(autouse=True)
def answering(deployed: Deployed) -> None:
    """The node's port leads to a gateway; kube-proxy learns of a ready one some moments after everybody else."""

    def there() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", WEB_PORT), 1):
                return True
        except OSError:
            return False

    until(there, 60, f"the node's port {WEB_PORT} answering")


def address() -> str:
    """Node ports answer on loopback too, in this cluster as in kind."""
    return f"http://127.0.0.1:{WEB_PORT}"


@asynccontextmanager
async def behind_traefik() -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Browser(http, address(), PUBLIC_URL, dict(FORWARDED))


async def test_the_page_and_all_that_it_names_are_in_the_image(deployed: Deployed) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{address()}/") as answer:
            page = await answer.text()
            assert answer.status == 200
        parts = set(re.findall(r'(?:src|href)="([^"/][^"]*)"', page))
        assert {"page.js", "page.css", "vendor/xterm.js"} <= {re.sub(r"^at/\w+/", "", part) for part in parts}
        for part in parts:
            async with http.get(f"{address()}/{part}") as answer:
                assert answer.status == 200, part


async def test_a_user_logs_in_by_link_and_works_in_a_sandbox(deployed: Deployed, dev: Ssh) -> None:
    link = dev.run("web", options=("-s",)).out.decode().strip()
    assert link.startswith(f"{PUBLIC_URL}/")
    async with behind_traefik() as browser:
        body = {"link": link.partition("#login=")[2]}
        headers = {"Origin": PUBLIC_URL, **FORWARDED}
        async with browser.http.post(f"{address()}/api/login", json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            cookie = answer.headers["Set-Cookie"]
        # By TLS as far as a browser knows, so it would not go over plain HTTP.
        assert "Secure" in cookie
        browser.headers["Cookie"] = cookie.partition(";")[0]
        session = await browser.new()
        tab = Tab(browser, session["id"])
        await tab.open(session["ticket"])
        await tab.type(b"echo $((6 * 7)) in $(cat /etc/hostname)\n")
        await tab.see(b"42 in sandbox")
        await tab.type(b"exit 0\n")
        await tab.until(lambda: tab.said("exit"), "exit")
        await tab.leave()


async def test_a_page_of_another_origin_is_refused(deployed: Deployed) -> None:
    async with behind_traefik() as browser:
        browser.origin = address()
        status, answer = await browser.ask("POST", "api/login", {"link": "guess"})
        assert (status, answer["error"]["code"]) == (403, "origin")
