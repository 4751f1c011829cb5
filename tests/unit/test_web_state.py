"""What is looked at again while the web server runs: logins whose key may be gone."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from sshgate.access.authorized_keys import Keyring
from sshgate.access.identity import Restrictions
from sshgate.access.key_line import fingerprint_of
from sshgate.access.ledger import Ledger, MemoryUserRecords
from sshgate.access.limits import Admission
from sshgate.config.model import Address, Limits, Profile, SandboxPlace, Web
from sshgate.providers.local.provider import LocalProvider
from sshgate.session.gateway import Gateway
from sshgate.telemetry.events import Events
from tests.rig.ssh import make_key
from webshim.credentials import Principal, Signer
from webshim.login import Logins
from webshim.public_endpoint import PublicEndpoint
from webshim.shares import Shares
from webshim.state import WebState
from webshim.watching import Watchers


async def test_each_login_is_looked_at_once_and_all_that_it_began_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look reads the state of files: one for each session would keep the event loop busy."""
    looks: list[str] = []
    holder = Keyring.holder

    def counted(keyring: Keyring, user: str, fingerprint: str, source: str, now: float) -> Restrictions | None:
        looks.append(user)
        return holder(keyring, user, fingerprint, source, now)

    monkeypatch.setattr(Keyring, "holder", counted)
    users = tmp_path / "users"
    users.mkdir()
    proofs = {}
    for user in ("ann", "bob"):
        line = make_key(tmp_path / user)
        (users / user).write_text(line + "\n")
        proofs[user] = fingerprint_of(base64.b64decode(line.split()[1]))
    web, signer, now = Web(), Signer(b"k" * 32), time.time()
    place = PublicEndpoint(web, Address("127.0.0.1", 1))
    gateway = Gateway(LocalProvider(SandboxPlace(provider="local")), {"default": Profile()}, Admission(Limits()))
    logins = Logins(web, Keyring(users, None), signer, place)
    shares = Shares(web, logins, signer, Ledger(MemoryUserRecords()), place, gateway.held)
    state = WebState(web, gateway, logins, place, Events(), Watchers(shares, gateway.held, Events()))
    for user, proof in proofs.items():
        for _ in range(5):
            state.sessions.create(Principal(user, "link", proof, "id", now, now + 60), "::1", None, None, None)
    await state.recheck()
    assert sorted(looks) == ["ann", "bob"]
    (users / "ann").unlink()
    await state.recheck()
    assert {session.user for session in state.sessions.all()} == {"bob"}
    assert len(state.sessions.all()) == 5
