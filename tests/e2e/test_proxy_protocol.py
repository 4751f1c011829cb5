"""Behind a real haproxy that speaks the PROXY protocol: clients are seen as they are, by nobody else's word."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway, free_port
from tests.rig.ssh import Ssh, make_key
from tests.rig.waiting import until
from tests.rig.web import address, section

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

BALANCER, CLIENT, OTHER = "127.0.0.9", "127.0.0.5", "127.0.0.6"
HAPROXY = """
global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen ssh1
  bind 127.0.0.1:{v1}
  server gateway {ssh} send-proxy source {balancer}
listen ssh2
  bind 127.0.0.1:{v2}
  server gateway {ssh} send-proxy-v2 source {balancer}
listen web
  bind 127.0.0.1:{web_in}
  server gateway {web} send-proxy-v2 source {balancer} check check-send-proxy inter 200ms
"""


@pytest.fixture(scope="module")
def gate(make_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    place = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", place / "key", "-out", place / "cert"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = {"cert": str(place / "cert"), "key": str(place / "key")}
    listed = {"proxy_protocol": [f"{BALANCER}/32"]}
    return make_gateway("local", ssh=listed, web=section(tls=tls, **listed), limits={"penalty_exempt": []})


@pytest.fixture(scope="module")
def ports(gate: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if haproxy is None:
        pytest.skip("no haproxy on this machine")
    place: Path = tmp_path_factory.mktemp("haproxy")
    found = {name: free_port() for name in ("v1", "v2", "web_in")}
    words = {"ssh": f"127.0.0.1:{gate.port}", "web": address(gate).removeprefix("http://"), "balancer": BALANCER}
    (place / "conf").write_text(HAPROXY.format(**found, **words))
    with (place / "log").open("wb") as log:
        running = subprocess.Popen([haproxy, "-db", "-f", place / "conf"], stdout=log, stderr=log)

    def listens() -> bool:
        assert running.poll() is None, (place / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", found["web_in"])) == 0

    try:
        until(listens, 20, "haproxy")
        yield found
    finally:
        running.terminate()
        running.wait()


def logged(gate: Gateway, event: str, *words: str) -> list[str]:
    return [line for line in gate.log().splitlines() if f'"{event}"' in line and all(word in line for word in words)]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_balancers_clients_are_seen_as_they_are(
    gate: Gateway, ports: dict[str, int], user_at: Callable[[Gateway], Ssh], version: str
) -> None:
    user = user_at(gate)
    through = Ssh(user.place, ports[version])
    line = (gate.users / "dev").read_text()
    (gate.users / "dev").write_text(f'from="{CLIENT}" {line}')
    ended = through.run("echo $SSH_CLIENT; echo $SSH_CONNECTION", options=("-b", CLIENT))
    assert ended.status == 0, ended.both
    client, connection = ended.out.decode().splitlines()
    assert client.split()[0] == CLIENT
    assert connection.split()[2:] == ["127.0.0.1", str(ports[version])]
    assert logged(gate, "connection.login", f'"source": "{CLIENT}"')
    assert through.run("true", options=("-b", OTHER)).status == 255


def test_each_client_behind_a_balancer_pays_for_itself(
    gate: Gateway, ports: dict[str, int], user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    user = user_at(gate)
    make_key(tmp_path / "id")
    stranger = Ssh(tmp_path, ports["v2"])
    until(
        lambda: not stranger.run("true", options=("-b", "127.0.0.7")).both.count("Permission denied"), 60, "a refusal"
    )
    assert logged(gate, "connection.limit", "127.0.0.7")
    assert Ssh(user.place, ports["v2"]).run("true", options=("-b", CLIENT)).status == 0


async def test_the_browsers_door_sees_them_through_tls(gate: Gateway, ports: dict[str, int]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"https://127.0.0.1:{ports['web_in']}"
    connector = aiohttp.TCPConnector(local_addr=(OTHER, 0), ssl=context)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(f"{url}/api/me", headers={"Authorization": "Bearer x"}) as answer,
    ):
        assert answer.status == 401
    assert logged(gate, "web.refused", "token not accepted", f'"source": "{OTHER}"')
    # The balancer's own look says LOCAL: no client of that time is counted, and none is logged.
    assert not logged(gate, "connection.refused")


async def reply(gate: Gateway, source: str, words: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port, local_addr=(source, 0))
    writer.write(words)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


HEADER = b"PROXY TCP4 203.0.113.9 127.0.0.1 1000 22\r\nSSH-2.0-x\r\n"


async def test_from_others_a_header_ends_the_connection(gate: Gateway) -> None:
    assert b"203.0.113.9" not in await reply(gate, OTHER, HEADER)
    await asyncio.to_thread(until, lambda: logged(gate, "connection.unauthenticated", "PROXY header", OTHER), 10, "it")
    assert "203.0.113.9" not in gate.log()


@pytest.mark.parametrize("words", [b"SSH-2.0-OpenSSH_9.9\r\n", b"PROXY TCP4 nonsense\r\nSSH-2.0-x\r\n", b""])
async def test_from_a_balancer_a_header_must_come(gate: Gateway, words: bytes) -> None:
    before = len(logged(gate, "connection.login"))
    assert await reply(gate, BALANCER, words) == b""
    await asyncio.to_thread(
        until, lambda: logged(gate, "connection.refused", "PROXY header", BALANCER), 10, "the event"
    )
    assert len(logged(gate, "connection.login")) == before
    # Once a minute, however often.
    assert len(logged(gate, "connection.refused", BALANCER)) == 1
