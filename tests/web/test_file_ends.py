"""What breaks off: an upload leaves nothing under its name, a script that hangs keeps no place, a change is audited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import Browser, Tab, address, browser, eventually, link, section
from webshim.files import AT_A_TIME

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]


@pytest.fixture(scope="module")
def gate(make_gateway: MakeGateway) -> Gateway:
    profiles = {"default": {"environment": {"PATH": "/tmp/programs:/usr/bin:/bin"}}}
    return make_gateway("local", web=section(upload_bytes="1000000B"), profiles=profiles)


@pytest.fixture
def user(gate: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    return user_at(gate)


@pytest.fixture
async def tab(gate: Gateway, user: Ssh) -> AsyncIterator[Tab]:
    """A shell in an empty directory."""
    async with browser(address(gate)) as page:
        await page.login(link(user))
        made = await page.new()
        tab = Tab(page, made["id"])
        await tab.open(made["ticket"])
        await tab.type(b"PS1='$ '; stty -echo; mkdir empty; cd empty; echo in''side\n")
        await tab.see(b"inside\r\n")
        yield tab
        await page.ask("DELETE", f"api/sessions/{tab.session}")


async def half_an_upload(page: Browser, session: str, content: bytes) -> asyncio.StreamWriter:
    """A PUT of unknown length whose body goes on after this."""
    _, writer = await asyncio.open_connection(*page.url.removeprefix("http://").split(":"))
    cookie = next(iter(page.http.cookie_jar))
    writer.write(
        f"PUT /api/sessions/{session}/files?path=half HTTP/1.1\r\nHost: x\r\nOrigin: {page.origin}\r\n"
        f"Cookie: {cookie.key}={cookie.value}\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"{len(content):x}\r\n".encode()
        + content
        + b"\r\n"
    )
    await writer.drain()
    return writer


async def test_an_upload_of_unknown_length_that_breaks_off_leaves_nothing(tab: Tab) -> None:
    for turn in range(4):
        writer = await half_an_upload(tab.browser, tab.session, b"x" * 300_000)
        await tab.type(b"until ls -A | grep -q upload; do sleep 0.05; done; echo be''gun%d\n" % turn)
        await tab.see(b"begun%d\r\n" % turn)
        writer.transport.abort()
        await tab.type(b"while ls -A | grep -q upload; do sleep 0.05; done; ls -A; echo n''ow%d\n" % turn)
        await tab.see(b"now%d\r\n" % turn)
    assert b"half" not in tab.text


async def test_a_logout_cuts_what_is_on_its_way_in_and_out(tab: Tab, user: Ssh) -> None:
    page = tab.browser
    files = f"{page.url}/api/sessions/{tab.session}/files"
    await tab.type(b"head -c 300000000 /dev/zero >large; echo fi''lled\n")
    await tab.see(b"filled\r\n")
    async with page.http.get(files, params={"path": "large"}) as download:
        assert download.status == 200
        await download.content.readexactly(100_000)
        writer = await half_an_upload(page, tab.session, b"x" * 300_000)
        await tab.type(b"until ls -A | grep -q upload; do sleep 0.05; done; echo be''gun\n")
        await tab.see(b"begun\r\n")
        assert (await page.ask("POST", "api/logout"))[0] == 204
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(download.content.read(), 30)
    await page.login(link(user))
    await tab.open()
    await tab.type(b"while ls -A | grep -q upload; do sleep 0.05; done; ls -A; rm large; echo n''ow\n")
    await tab.see(b"now\r\n")
    assert b"half" not in tab.text
    writer.close()


async def test_an_upload_that_is_too_large_is_refused_on_its_way_and_leaves_nothing(tab: Tab) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 100_000

    path = f"api/sessions/{tab.session}/files"
    async with tab.browser.http.put(
        f"{tab.browser.url}/{path}", params={"path": "large"}, data=endless(), headers={"Origin": tab.browser.origin}
    ) as answer:
        assert answer.status == 413
    await tab.type(b"while ls -A | grep -q upload; do sleep 0.05; done; ls -A; echo n''ow\n")
    await tab.see(b"now\r\n")
    assert b"large" not in tab.text


async def test_lists_that_hang_keep_no_place_once_the_browser_has_gone(tab: Tab) -> None:
    """A directory may be on a file system that does not answer; here it is `stat` that does not."""
    page, files = tab.browser, f"api/sessions/{tab.session}/files?list=1"
    hangs = "echo begun >>/tmp/begun; exec sleep 1000"
    await tab.type(f"mkdir /tmp/programs; echo '{hangs}' >/tmp/programs/stat; chmod +x /tmp/programs/stat\n".encode())
    await tab.type(b"touch one; echo re''ady\n")
    await tab.see(b"ready\r\n")
    hanging = [asyncio.create_task(page.ask("GET", files)) for _ in range(AT_A_TIME)]
    await tab.type(b"until [ \"$(wc -l </tmp/begun)\" = %d ]; do sleep 0.05; done; echo fu''ll\n" % AT_A_TIME)
    await tab.see(b"full\r\n")
    assert (await page.ask("GET", files))[0] == 429
    await tab.type(b"rm /tmp/programs/stat; echo mend''ed\n")
    await tab.see(b"mended\r\n")
    for each in hanging:
        each.cancel()

    async def listed() -> bool:
        return (await page.ask("GET", files))[0] == 200

    await eventually(listed)


async def test_a_change_that_breaks_off_is_audited(gate: Gateway, tab: Tab) -> None:
    """The browser goes while a tree is deleted, or `rm` fails: a part of it may be gone. A refusal changes nothing."""
    page, files = tab.browser, f"api/sessions/{tab.session}/files"
    programs = {"hangs": "echo begun >/tmp/removes; exec sleep 1000", "fails": "echo 'rm: it is busy' >&2; exit 1"}
    for name, script in programs.items():
        await tab.type(f'mkdir -p /tmp/programs {name}/full; echo "{script}" >/tmp/programs/{name}-rm\n'.encode())
    await tab.type(b"chmod +x /tmp/programs/*; ln -s hangs-rm /tmp/programs/rm; echo re''ady\n")
    await tab.see(b"ready\r\n")
    deleting = asyncio.create_task(page.ask("DELETE", files, params={"path": "hangs", "tree": "1"}))
    await tab.type(b"until [ -e /tmp/removes ]; do sleep 0.05; done; echo be''gun\n")
    await tab.see(b"begun\r\n")
    deleting.cancel()
    await tab.type(b"ln -sf fails-rm /tmp/programs/rm; echo fa''ils\n")
    await tab.see(b"fails\r\n")
    assert (await page.ask("DELETE", files, params={"path": "fails"}))[0] == 409
    status, answer = await page.ask("DELETE", files, params={"path": "fails", "tree": "1"})
    assert (status, answer["error"]["message"]) == (502, "rm: it is busy")

    async def audited() -> bool:
        lines = [json.loads(line) for line in gate.log().splitlines() if '"file.changed"' in line]
        return sorted((line["path"], line["whole"]) for line in lines) == [("fails", False), ("hangs", False)]

    await eventually(audited)
