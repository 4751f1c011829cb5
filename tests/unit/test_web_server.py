"""The description of the REST routes is valid, and says what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openapi_spec_validator import validate

from sshgate.access.authorized_keys import Keyring
from sshgate.access.ledger import Ledger, MemoryUserRecords
from sshgate.access.limits import Admission
from sshgate.config.model import Address, Limits, Profile, SandboxPlace, Web
from sshgate.providers.local.provider import LocalProvider
from sshgate.session.gateway import Gateway
from sshgate.telemetry.events import Events
from webshim.credentials import Signer
from webshim.login import Logins
from webshim.pages import Pages
from webshim.public_endpoint import PublicEndpoint
from webshim.server import OPENAPI, build
from webshim.shares import Shares
from webshim.state import WebState
from webshim.watching import Watchers


def document() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(OPENAPI.read_text())
    return read


def test_the_file_is_valid_openapi() -> None:
    validate(document())
    assert document()["openapi"].startswith("3.1")


async def test_every_route_is_described_and_every_description_has_its_route(tmp_path: Path) -> None:
    web = Web()
    place = PublicEndpoint(web, Address("127.0.0.1", 1))
    gateway = Gateway(LocalProvider(SandboxPlace(provider="local")), {"default": Profile()}, Admission(Limits()))
    logins = Logins(web, Keyring(tmp_path, None), Signer(b"k" * 32), place)
    shares = Shares(web, logins, Signer(b"k" * 32), Ledger(MemoryUserRecords()), place, gateway.held)
    watchers = Watchers(shares, gateway.held, Events())
    app = build(WebState(web, gateway, logins, place, Events(), watchers), Pages(tmp_path))
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    } - {("get", "/"), ("get", "/terminal"), ("get", "/watch"), ("get", "/watch/socket")}
    described = {
        (method, path) for path, item in document()["paths"].items() for method in item if method != "parameters"
    }
    assert served == described
