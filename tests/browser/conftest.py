"""A Chromium, gateways with the browser's front door, and people at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import MakeGateway
from tests.rig.browser import ARGUMENTS, CHROMIUM, PATIENCE, Door, Tab, Visitor
from tests.rig.gateway import Gateway, free_port
from tests.rig.quiet_network import QuietNetwork
from tests.rig.relay import Relay
from tests.rig.ssh import Ssh

Enter = Callable[..., Tab]
expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietNetwork]:
    """The browser's network; what it is to reach is opened in it."""
    with QuietNetwork(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture(scope="session")
def chromium(network: QuietNetwork) -> Iterator[Browser]:
    """The browser; every test has a context of its own in it."""
    if not CHROMIUM.exists():
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=network.program(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


def web(port: int, **more: Any) -> dict[str, Any]:
    """The section of the configuration."""
    return {"listen": f"127.0.0.1:{port}", "secret": "web.secret", **more}


@pytest.fixture(scope="session")
def doors(make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]) -> Callable[[str], Door]:
    """The gateway of a provider, one for all tests that leave it as it was."""
    made: dict[str, Door] = {}

    def door(provider: str) -> Door:
        if provider not in made:
            port = free_port()
            profiles = {"other": {"extends": "default"}}
            gateway = make_gateway(provider, web=web(port), profiles=profiles)
            made[provider] = Door(gateway, f"http://127.0.0.1:{port}/", user_at(gateway))
        return made[provider]

    return door


@pytest.fixture
def door(local: None, doors: Callable[[str], Door]) -> Door:
    """The page over local sandboxes."""
    return doors("local")


@pytest.fixture
def either(provider: str, doors: Callable[[str], Door]) -> Door:
    """The page, over both providers one after the other."""
    return doors(provider)


@pytest.fixture
def visitors(chromium: Browser, network: QuietNetwork) -> Iterator[Callable[..., Visitor]]:
    """Makes people at browsers; at the end none of their tabs may have complained, and their sessions are ended."""
    made: list[Visitor] = []

    def visitor(door: Door, **options: Any) -> Visitor:
        network.open(urlsplit(door.address).port or 80)
        # System settings that a test does not choose are fixed, so that screenshots are alike.
        context = chromium.new_context(
            **{"viewport": {"width": 1100, "height": 680}, "color_scheme": "dark", **options}
        )
        context.set_default_timeout(PATIENCE * 1000)
        made.append(Visitor(context, door.address))
        return made[-1]

    yield visitor
    try:
        for one in made:
            one.verify()
    finally:
        for one in made:
            end_sessions(one)
            one.context.close()


@pytest.fixture
def enter(visitors: Callable[..., Visitor]) -> Enter:
    """A person who has come by a login link and has opened a session."""

    def enter(door: Door, **options: Any) -> Tab:
        return visitors(door, **options).tab().open(door.link()).new_session().prompt()

    return enter


def end_sessions(visitor: Visitor) -> None:
    """Those of the person, whatever began them."""
    for tab in visitor.tabs:
        if not tab.page.is_closed():
            # A test that let no list through would leave its sessions to the next one.
            tab.page.unroute_all(behavior="ignoreErrors")
            tab.page.evaluate(
                """async () => {
                  const none = {sessions: []};
                  const read = (found) => (found.ok ? found.json() : none);
                  const {sessions} = await fetch("api/sessions").then(read, () => none);
                  for (const {id} of sessions) await fetch(`api/sessions/${id}`, {method: "DELETE"});
                }"""
            )
            return


@pytest.fixture(scope="module")
def relay() -> Iterator[tuple[Relay, int]]:
    """A stretch of network before the gateway, and the port that the gateway is to have."""
    port = free_port()
    with Relay(port) as stretch:
        yield stretch, port


@pytest.fixture
def behind(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], relay: tuple[Relay, int]
) -> tuple[Relay, Door]:
    """A gateway behind that network."""
    network, port = relay
    address = f"http://127.0.0.1:{network.port}/"
    served = gateway("local", web=web(port, public_url=address))
    return network, Door(served, address, user_at(served))
