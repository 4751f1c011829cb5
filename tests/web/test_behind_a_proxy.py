"""Behind a real nginx that does what Traefik does: a base path, stripped or not, its headers, users it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh
from tests.rig.waiting import until
from tests.rig.web import Tab, address, browser, link, section

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

SECRET = "a-secret-of-the-proxy"
# Traefik sends these with every request; X-Forwarded-Prefix where its StripPrefix has taken something away.
NGINX = """
daemon off; worker_processes 1; error_log stderr; pid {place}/pid;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  map $request_uri $prefix {{ default ''; ~^/term /term; }}
  map $request_uri $user {{ default ''; ~^/named/ carol; }}
  map $request_uri $secret {{ default ''; ~^/named/ {secret}; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    proxy_set_header Host $http_host; proxy_set_header X-Real-Ip $remote_addr;
    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Port {port}; proxy_set_header X-Forwarded-Proto http;
    proxy_set_header X-Forwarded-Server here;
    # What a client says of itself does not come through.
    proxy_set_header X-Forwarded-User $user; proxy_set_header X-Sshgate-Secret $secret;
    proxy_set_header X-Forwarded-Prefix $prefix;
    location /term {{
      rewrite ^/term/?(.*)$ /$1 break;
      proxy_pass http://{gate};
    }}
    location /whole {{ proxy_pass http://{whole}; }}
    location /named/ {{ proxy_pass http://{named}/; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gates(make_gateway: MakeGateway, port: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gateway]:
    secret = tmp_path_factory.mktemp("proxy") / "secret"
    secret.write_text(SECRET + "\n")
    trusted = {"addresses": ["127.0.0.1"]}

    def made(base: str, **more: str) -> Gateway:
        public = f"http://127.0.0.1:{port}/{base}"
        return make_gateway("local", web=section(public_url=public, proxy={**trusted, **more}))

    return {"term": made("term"), "whole": made("whole/"), "named": made("named", secret_file=str(secret))}


@pytest.fixture(scope="module")
def proxy(gates: dict[str, Gateway], port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("no nginx on this machine")
    place: Path = tmp_path_factory.mktemp("nginx")
    words = {name: address(gate).removeprefix("http://") for name, gate in gates.items()}
    (place / "conf").write_text(
        NGINX.format(
            place=place, port=port, gate=words["term"], whole=words["whole"], named=words["named"], secret=SECRET
        )
    )
    with (place / "log").open("wb") as log:
        running = subprocess.Popen([nginx, "-p", place, "-c", place / "conf"], stdout=log, stderr=log)
    try:
        until(lambda: (place / "pid").exists() or running.poll() is not None, 20, "nginx")
        assert running.poll() is None, (place / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


@pytest.mark.parametrize("base", ["term", "whole"])
async def test_a_base_path_works_stripped_or_not_with_and_without_its_slash(
    gates: dict[str, Gateway], proxy: str, base: str, user_at: Callable[[Gateway], Ssh]
) -> None:
    async with browser(f"{proxy}/{base}") as page:
        for path in (f"/{base}", f"/{base}/"):
            async with page.http.get(proxy + path, allow_redirects=False) as answer:
                assert answer.status == 200
                text = await answer.text()
            assert re.findall(r"<base [^>]*>", text) == [f'<base href="/{base}/">']
        async with page.http.get(f"{page.url}/page.js") as answer:
            assert answer.status == 200
        found = link(user_at(gates[base]))
        assert found.startswith(f"{page.url}/#login=")
        await page.login(found)
        made = await page.new()
        tab = Tab(page, made["id"])
        await tab.open(made["ticket"])
        await tab.type(b"echo th''rough\n")
        await tab.see(b"through\r\n")
        files = f"api/sessions/{made['id']}/files"
        assert (await page.ask("PUT", files, b"x" * 500_000, params={"path": "up"}))[0] == 201
        async with page.http.get(f"{page.url}/{files}", params={"path": "up"}) as got:
            assert await got.read() == b"x" * 500_000
        page.origin = address(gates[base])
        assert (await page.ask("POST", "api/sessions", {}))[0] == 403
        page.origin = proxy
        await page.ask("DELETE", f"api/sessions/{made['id']}")


async def test_the_clients_own_address_is_logged_and_counted(gates: dict[str, Gateway], proxy: str) -> None:
    async with browser(f"{proxy}/term") as page:
        headers = {"X-Forwarded-For": "203.0.113.50"}
        assert (await page.ask("POST", "api/login", {"link": "x"}, headers=headers))[0] == 401
        assert "203.0.113.50" not in gates["term"].log()
        # nginx itself is trusted: what stands there when it asks is believed.
        headers = {**headers, "Origin": proxy}
        async with page.http.post(f"{address(gates['term'])}/api/login", json={"link": "x"}, headers=headers) as answer:
            assert answer.status == 401
        assert "203.0.113.50" in gates["term"].log()


async def test_a_proxy_with_the_secret_names_the_user(gates: dict[str, Gateway], proxy: str) -> None:
    async with browser(f"{proxy}/named") as page:
        status, who = await page.ask("GET", "api/me", headers={"X-Forwarded-User": "root"})
        assert (status, who["user"], who["method"]) == (200, "carol", "proxy")
        made = await page.new()
        tab = Tab(page, made["id"])
        await tab.open(made["ticket"])
        await tab.type(b"echo [$SSHGATE_USER]\n")
        await tab.see(b"[carol]\r\n")
        # Nothing here could be revoked: the proxy would log in the next request as well.
        status, refused = await page.ask("POST", "api/logout")
        assert (status, refused["error"]["code"]) == (409, "conflict")
        assert "log out there" in refused["error"]["message"]
        await tab.type(b"echo st''ill\n")
        await tab.see(b"still\r\n")
        await page.ask("DELETE", f"api/sessions/{made['id']}")
    for name in ("term", "whole"):
        async with aiohttp.ClientSession() as stranger:
            headers = {"X-Forwarded-User": "carol", "X-Sshgate-Secret": SECRET}
            async with stranger.get(f"{address(gates[name])}/api/me", headers=headers) as answer:
                assert answer.status == 401
