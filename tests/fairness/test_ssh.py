"""What SSH clients send, before and after login, as fast as it can be sent: nobody else notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import MakeGateway
from tests.fairness.attack import attack, check
from tests.fairness.flood import KINDS
from tests.fairness.typist import Typist
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]


@pytest.fixture(scope="module")
def user(make_gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], local: None) -> tuple[Gateway, Ssh]:
    gateway = make_gateway("local")
    return gateway, user_at(gateway)


@pytest.fixture(scope="module")
def typist(user: tuple[Gateway, Ssh]) -> Iterator[Typist]:
    with Typist(*user) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_of(kind: str, typist: Typist, user: tuple[Gateway, Ssh]) -> None:
    gateway, ssh = user
    check(attack(typist, kind, gateway.port, ssh.key, 3, 3))


@pytest.mark.parametrize("kind", ["ignore", "bytes", "keepalives", "refused opens"])
def test_floods_of_twenty_connections_do_not_add_up(kind: str, typist: Typist, user: tuple[Gateway, Ssh]) -> None:
    gateway, ssh = user
    check(attack(typist, kind, gateway.port, ssh.key, 20, 0.5))
