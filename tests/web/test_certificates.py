"""Logins and tokens that began with a certificate: what limits it, limits them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import MakeGateway
from tests.e2e.test_authorized_keys import sign
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh, make_key
from tests.rig.web import address, section, token

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

ELSEWHERE = "127.0.0.5"


@pytest.fixture(scope="module")
def gate(make_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    place = tmp_path_factory.mktemp("authority")
    make_key(place / "ca")
    return make_gateway("local", web=section(), access={"user_ca": str(place / "ca.pub")})


@pytest.fixture
def carol(gate: Gateway, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    """A user without a key of her own there."""
    user = user_at(gate)
    (gate.users / "dev").unlink()
    return user


def authority(gate: Gateway) -> Path:
    return Path(gate.settings["access"]["user_ca"]).with_suffix("")


async def answered(gate: Gateway, word: str, source: str = "127.0.0.1") -> int:
    """What a program gets that shows this token from there."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    async with aiohttp.ClientSession(connector=connector) as http:
        headers = {"Authorization": f"Bearer {word}"}
        async with http.get(f"{address(gate)}/api/me", headers=headers) as answer:
            return answer.status


async def test_a_certificates_addresses_hold_for_its_token(gate: Gateway, carol: Ssh) -> None:
    sign(authority(gate), carol.key, "-O", "source-address=127.0.0.1/32")
    word = await asyncio.to_thread(token, carol)
    assert await answered(gate, word) == 200
    assert await answered(gate, word, ELSEWHERE) == 401


async def test_a_token_ends_with_its_certificate(gate: Gateway, carol: Ssh) -> None:
    sign(authority(gate), carol.key, "-V", "-1m:+6s")
    word = await asyncio.to_thread(token, carol)
    assert await answered(gate, word) == 200
    deadline = time.monotonic() + 10
    while await answered(gate, word) == 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)


async def test_what_the_authoritys_line_says_now_holds_for_its_tokens(
    gate: Gateway, carol: Ssh, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    public = make_key(own)
    line = gate.users / "dev"
    line.write_text(f'cert-authority,principals="dev,ops" {public}\n')
    sign(own, carol.key, principals="ops")
    word = await asyncio.to_thread(token, carol)
    assert await answered(gate, word) == 200
    for options in (
        'principals="dev"', 'principals="ops",from="10.0.0.0/8"', 'principals="ops",expiry-time="20200101"',
        'principals="ops",command="true"', 'principals="ops",no-pty',
    ):  # fmt: skip
        line.write_text(f"cert-authority,{options} {public}\n")
        assert await answered(gate, word) == 401, options
    # An authority for all is another one.
    line.write_text("")
    assert await answered(gate, word) == 401
    line.write_text(f'cert-authority,principals="ops" {public}\n')
    assert await answered(gate, word) == 200
