"""The browser's front door as the k3s overlay ships it: as Traefik calls it, and by the node's port 31000 past that."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.rig.deployed import SSH_PORT, WEB_PORT, Deployed
from tests.rig.ssh import Ssh
from tests.rig.waiting import until
from tests.rig.web import Browser, Tab

pytestmark = pytest.mark.cluster

# A name that leads to Traefik, of which no setting knows.
BY_NAME = "https://terminal.test"
# What Traefik adds; Host and Origin are the browser's own.
FORWARDED = {"Host": BY_NAME.removeprefix("https://"), "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"}


@pytest.fixture(autouse=True)
def answering(deployed: Deployed) -> None:
    """Both services lead to a gateway; kube-proxy learns of a ready one some moments after everybody else."""

    def there(host: str, port: int) -> bool:
        try:
            with socket.create_connection((host, port), 1):
                return True
        except OSError:
            return False

    for host, port in (("127.0.0.1", WEB_PORT), (deployed.host, SSH_PORT)):
        until(lambda: there(host, port), 60, f"port {port} of the node answering")  # noqa: B023


def address() -> str:
    """Node ports answer on loopback too, in this cluster as in kind."""
    return f"http://127.0.0.1:{WEB_PORT}"


@asynccontextmanager
async def behind_traefik() -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Browser(http, address(), BY_NAME, dict(FORWARDED))


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


def asked_for(dev: Ssh) -> str:
    """The link that the gateway gives a user."""
    output = dev.run("web", options=("-s",))
    assert output.status == 0, output.both
    return output.out.decode().split()[0]


async def logged_in(browser: Browser, link: str) -> str:
    """Follow the link; the cookie that came of it."""
    body = {"link": link.partition("#login=")[2]}
    headers = {"Origin": browser.origin, **browser.headers}
    async with browser.http.post(f"{address()}/api/login", json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        cookie = answer.headers["Set-Cookie"]
    browser.headers["Cookie"] = cookie.partition(";")[0]
    return cookie


async def works(browser: Browser) -> None:
    """A terminal of this browser is one in a sandbox."""
    session = await browser.new()
    if "X-Forwarded-Proto" in browser.headers:
        # So Traefik says of a WebSocket.
        browser.headers["X-Forwarded-Proto"] = "wss"
    tab = Tab(browser, session["id"])
    await tab.open(session["ticket"])
    await tab.type(b"echo $((6 * 7)) in $(cat /etc/hostname)\n")
    await tab.see(b"42 in sandbox")
    await tab.type(b"exit 0\n")
    await tab.until(lambda: tab.messages("exit"), "exit")
    await tab.leave()


async def test_a_user_logs_in_by_link_and_works_in_a_sandbox(deployed: Deployed, dev: Ssh) -> None:
    link = asked_for(dev)
    (node,) = {pod["status"]["hostIP"] for pod in deployed.gateway.pods()}
    assert link.startswith(f"https://{node}/#login=")
    async with behind_traefik() as browser:
        cookie = await logged_in(browser, link)
        # By TLS as far as a browser knows, so it would not go over plain HTTP.
        assert cookie.startswith("__Host-")
        assert "Secure" in cookie
        await works(browser)


async def test_a_user_works_by_the_nodes_port_past_traefik(deployed: Deployed, dev: Ssh) -> None:
    link = asked_for(dev)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        browser = Browser(http, address(), address())
        cookie = await logged_in(browser, link)
        assert cookie.startswith(f"sshgate-{WEB_PORT}=")
        assert "Secure" not in cookie
        await works(browser)


@pytest.mark.parametrize("origin", ["http://terminal.test", "https://evil.test", f"https://terminal.test:{WEB_PORT}"])
async def test_a_page_of_another_origin_is_refused(deployed: Deployed, origin: str) -> None:
    async with behind_traefik() as browser:
        browser.origin = origin
        status, answer = await browser.ask("POST", "api/login", {"link": "guess"})
        assert (status, answer["error"]["code"]) == (403, "origin")
