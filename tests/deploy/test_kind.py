"""The overlay for kind, applied over the other one: both doors by the node ports that kind's configuration maps."""

from __future__ import annotations

import asyncio
import base64
import ssl

import aiohttp
import pytest

from tests.rig.deployed import WEB_PORT, Deployed
from tests.rig.manifests import mapped_ports, write_overlay
from tests.rig.ssh import Ssh
from tests.rig.waiting import until
from tests.rig.web import Browser, Tab

pytestmark = pytest.mark.cluster

# What kind's node forwards to, by the port of the machine that it runs on.
NODE_PORTS = mapped_ports("manifests/overlays/kind/cluster.yaml")


@pytest.fixture(scope="module")
def certificate(deployed: Deployed) -> str:
    """The one that ``manifests/keys`` has made."""
    words = ("get", "secret", "sshgate-keys", r"--output=jsonpath={.data.web\.crt}")
    return base64.b64decode(deployed.gateway.kubectl(*words)).decode()


@pytest.fixture(scope="module")
def kind(deployed: Deployed, dev: Ssh, tmp_path_factory: pytest.TempPathFactory) -> Ssh:
    """The user at the node port of a gateway with the settings of kind. It stays so: conftest has these tests last."""
    place = tmp_path_factory.mktemp("kind")
    write_overlay(place, "kind")
    deployed.apply(place)
    deployed.restart()
    user = Ssh(dev.place, NODE_PORTS[2222], dev.user)
    until(lambda: user.run("true").status == 0, 60, "the node port of ssh")
    return user


def shown(port: int) -> str | None:
    """The certificate that a port of this machine answers with; ``None``: that is no TLS."""
    try:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
    except OSError:
        return None


def test_a_user_logs_in_by_the_node_port_that_kind_maps(kind: Ssh) -> None:
    ended = kind.run("id -un; exit 7")
    assert (ended.status, ended.out) == (7, b"dev\n"), ended.both


async def test_a_browser_that_trusts_the_certificate_works_by_the_node_port_that_kind_maps(
    kind: Ssh, certificate: str
) -> None:
    trusting = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=certificate))
    port = NODE_PORTS[WEB_PORT]
    address = f"https://127.0.0.1:{port}"
    # Until kube-proxy has forgotten the gateway before, a client stays with it.
    await asyncio.to_thread(until, lambda: shown(port) == certificate, 60, "the certificate at the web's node port")
    async with aiohttp.ClientSession(connector=trusting, cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        browser = Browser(http, address, address)
        link = kind.run("web", options=("-s",)).out.decode()
        await browser.login(link.split()[0])
        session = await browser.new()
        tab = Tab(browser, session["id"])
        await tab.open(session["ticket"])
        await tab.type(b"echo $((6 * 7)) in $(cat /etc/hostname)\n")
        await tab.see(b"42 in sandbox")
        # Not `leave`: aiohttp does not wait for the end of TLS, and the test's loop would be gone by then.
        tab.lose()
        await tab.closed()
        await browser.ask("DELETE", f"api/sessions/{session['id']}")
