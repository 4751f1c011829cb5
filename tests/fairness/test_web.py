"""What a browser sends, as fast as it can be sent: nobody else notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import MakeGateway
from tests.fairness.attack import attack, check
from tests.fairness.flood_web import KINDS
from tests.fairness.typist import Typist
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import address, link, section

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]


@pytest.fixture(scope="module")
def user(make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh]) -> tuple[Gateway, Ssh]:
    gateway = make_gateway("local", web=section(sessions_per_user=100))
    return gateway, user_at(gateway)


@pytest.fixture(scope="module")
def typist(user: tuple[Gateway, Ssh]) -> Iterator[Typist]:
    with Typist(*user) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_a_browsers_flood_of(kind: str, typist: Typist, user: tuple[Gateway, Ssh]) -> None:
    gateway, ssh = user
    check(attack(typist, kind, address(gateway), link(ssh), 3, 3, module="tests.fairness.flood_web"))
