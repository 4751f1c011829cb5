"""The page and its parts over HTTP: what is served, what is not, and what a browser may keep."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.rig.gateway import Gateway
from tests.rig.web import Browser, address


async def test_what_the_page_names_is_kept_by_the_browser_until_it_is_another(page: Browser) -> None:
    async with page.http.get(f"{page.url}/") as answer:
        named = set(re.findall(r'(?:src|href)="([^"#/][^"#]*)', await answer.text()))
    assert len(named) > 5
    # An installed page looks for it again at the address that it had.
    named.remove("./site.webmanifest")
    async with page.http.get(f"{page.url}/site.webmanifest") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
    for path in named:
        assert re.fullmatch(r"at/\w+/.+", path), path
        async with page.http.get(f"{page.url}/{path}") as answer:
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            content = await answer.read()
        plain = path.split("/", 2)[2]
        for other in (plain, f"at/another/{plain}"):
            async with page.http.get(f"{page.url}/{other}") as answer:
                assert answer.headers["Cache-Control"] == "no-cache"
                assert await answer.read() == content


@pytest.mark.parametrize(
    "path",
    [
        "/..%2f..%2fserver.py", "/../server.py", "/%2e%2e/server.py", "/vendor/..%2f..%2fserver.py", "//etc/passwd",
        "/..%5cserver.py", "/%00", "/.git/config", "/__init__.py", "/server.py", "/vendor/", "/page.js/..%2f",
    ],
)  # fmt: skip
async def test_nothing_but_the_page_is_served(web: Gateway, path: str) -> None:
    host, port = address(web).removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert answer.split()[1] in (b"404", b"400"), answer[:200]
    assert b"root:" not in answer
    assert b"import" not in answer
