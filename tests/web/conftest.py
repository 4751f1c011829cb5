"""Gateways with a browser's front door, and browsers that have logged in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import Browser, address, browser, link, section


@pytest.fixture(scope="session")
def web(make_gateway: MakeGateway, provider: str) -> Gateway:
    """One gateway for all the tests that leave it as it was."""
    return make_gateway(provider, web=section(sessions_per_user=100))


@pytest.fixture(scope="session")
def web_user(web: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    """A user of it who has a key."""
    return user_at(web)


@pytest.fixture
async def page(web: Gateway, web_user: Ssh) -> AsyncIterator[Browser]:
    """A browser that has followed a link; what it leaves running is ended."""
    async with browser(address(web)) as fresh:
        await fresh.login(link(web_user))
        yield fresh
        _, answer = await fresh.ask("GET", "api/sessions")
        for session in answer["sessions"]:
            await fresh.ask("DELETE", f"api/sessions/{session['id']}")
