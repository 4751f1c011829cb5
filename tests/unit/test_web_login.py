"""Who gets in by the browser, and for how long it holds."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sshgate.access import ledger
from sshgate.access.authorized_keys import Keyring
from sshgate.access.identity import Certified, Identity, LoginName, Restrictions
from sshgate.access.ledger import Ledger, MemoryUserRecords
from sshgate.access.siblings import Siblings
from sshgate.config.model import Address, Tls, Web
from sshgate.errors import BadRequest, Denied, GateError, Unavailable
from sshgate.session.subsystems.registry import SubsystemRequest
from sshgate.stream.interfaces import Request, Subsystem
from sshgate.telemetry.events import Events
from webshim.credentials import OneTimeTokens, Principal, Signer
from webshim.login import Logins, Refused
from webshim.passwords import set_password
from webshim.public_endpoint import PublicEndpoint

ALICE = Principal("alice", "link", "SHA256:key", "id", 0.0, 1e12)
HERE = "192.0.2.1"
SHOWN = Certified("SHA256:ca", ("alice",), None, None)


class Keys(Keyring):
    """Alice's key, as long as it is there."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), None)
        self.allowed: Restrictions | None = Restrictions()

    def holder(self, user: str, fingerprint: str, source: str, now: float) -> Restrictions | None:
        return self.allowed if (user, fingerprint) == ("alice", "SHA256:key") else None

    def certified(self, user: str, certificate: Certified, source: str, now: float) -> Restrictions | None:
        return self.allowed if certificate == SHOWN else None


def logins(
    keys: Keys | None = None, ledger: Ledger | None = None, siblings: Siblings | None = None, **web: object
) -> Logins:
    settings = dataclasses.replace(Web(public_url="https://term.example/shell"), **web)  # type: ignore[arg-type]
    place = PublicEndpoint(settings, Address("0.0.0.0", 31000))
    return Logins(settings, keys or Keys(), Signer(b"k" * 32), place, ledger, siblings)


def identity(method: str = "publickey", login: str = "alice", **restrictions: Any) -> Identity:
    name, shown = LoginName.parse(login), SHOWN if method == "certificate" else None
    return Identity(name, method, "SHA256:key", HERE, 1, "192.0.2.9", 22, Restrictions(**restrictions), shown)


def signed(accounts: Logins, token: str) -> Principal:
    found = accounts._signer.read("token", token.splitlines()[0])
    assert found is not None
    return found


def question(who: Identity) -> SubsystemRequest:
    return SubsystemRequest(who, Request(Subsystem("web")), Events().context())


async def test_a_link_logs_in_once_and_only_for_a_minute() -> None:
    accounts = logins()
    text = await accounts.web(question(identity()))
    url, _, ticket = text.strip().partition("#login=")
    assert url == "https://term.example/shell/"
    found = await accounts.by_link(ticket, HERE)
    assert isinstance(found, Principal)
    assert (found.user, found.method) == ("alice", "link")
    assert await accounts.by_link(ticket, HERE) == Refused()
    now = 0.0
    links: OneTimeTokens[Principal] = OneTimeTokens(60.0, lambda: now)
    kept = links.issue(found)
    now = 60.0
    assert links.take(kept) is None


async def test_without_a_public_url_the_link_has_the_address_that_ssh_was_reached_at() -> None:
    text = await logins(public_url=None, tls=Tls()).web(question(identity()))
    assert text.startswith("https://192.0.2.9:31000/#login=")
    assert "web.public_url" in text


async def test_a_link_of_a_key_that_was_removed_or_bound_since_is_worth_nothing() -> None:
    keys = Keys()
    accounts = logins(keys)
    for now in (None, Restrictions(command=b"true"), Restrictions(terminal=False)):
        keys.allowed = Restrictions()
        ticket = (await accounts.web(question(identity()))).strip().partition("#login=")[2]
        keys.allowed = now
        assert await accounts.by_link(ticket, HERE) == Refused()


async def test_keys_without_terminals_and_login_names_with_more_than_a_user_get_no_link() -> None:
    with pytest.raises(Denied):
        await logins().web(question(identity(terminal=False)))
    with pytest.raises(GateError, match="plain name"):
        await logins().token(question(identity(login="alice+gpu=work")))


async def test_a_certificate_opens_the_browser_for_an_hour() -> None:
    accounts = logins()
    found = await accounts.by_link(
        (await accounts.web(question(identity("certificate")))).strip().partition("#login=")[2], HERE
    )
    assert isinstance(found, Principal)
    assert found.expires - found.issued == 3600
    ending = dataclasses.replace(SHOWN, ends=time.time() + 60)
    token = await accounts.token(question(dataclasses.replace(identity("certificate"), certificate=ending)))
    word = signed(accounts, token)
    assert 0 < word.expires - word.issued <= 60


async def test_a_certificate_of_more_than_a_cookie_holds_opens_no_browser() -> None:
    # Addresses that do not compress.
    many = dataclasses.replace(SHOWN, sources=tuple(f"2001:db8:{os.urandom(8).hex(':', 2)}::/112" for _ in range(200)))
    with pytest.raises(BadRequest, match="too many addresses"):
        await logins().token(question(dataclasses.replace(identity("certificate"), certificate=many)))


async def test_a_key_for_one_sandbox_or_command_opens_no_browser() -> None:
    for limits in ({"command": b"x"}, {"environment": {"SSHGATE_NAME": b"work"}}):
        with pytest.raises(Denied):
            await logins().web(question(identity(**limits)))


async def test_a_token_is_no_cookie_and_a_cookie_no_token() -> None:
    accounts = logins()
    token = (await accounts.token(question(identity()))).splitlines()[0]
    found = await accounts.by_token(token, HERE)
    assert found is not None
    assert (found.user, found.method) == ("alice", "token")
    assert accounts.by_cookie(token, HERE) is None
    assert await accounts.by_token(accounts.cookie(found), HERE) is None


class Records(MemoryUserRecords):
    """Counts how often it is read, and can be out of reach."""

    reads = 0
    fails: Exception | None = None

    async def all(self) -> Mapping[str, str]:
        self.reads += 1
        if self.fails is not None:
            raise self.fails
        await asyncio.sleep(0)
        return await super().all()


async def test_a_token_that_another_gateway_has_just_issued_is_known_here_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "LOOKUP_SECONDS", 0.01)
    records = Records()
    here, there = (logins(ledger=Ledger(records)) for _ in range(2))
    for _ in range(2):
        token = (await there.token(question(identity()))).splitlines()[0]
        assert all(await asyncio.gather(*(here.by_token(token, HERE) for _ in range(20))))
    assert records.reads == 2
    assert await here.by_token(token, HERE)
    assert records.reads == 2


async def test_a_token_that_nobody_knows_is_refused_and_costs_a_bounded_number_of_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "LOOKUP_SECONDS", 0.2)
    records, forgetful = Records(), Ledger(Records())
    here, there = logins(ledger=Ledger(records)), logins(ledger=forgetful)
    token = (await there.token(question(identity()))).splitlines()[0]
    began = time.monotonic()
    for _ in range(3):
        assert await asyncio.gather(*(here.by_token(token, HERE) for _ in range(20))) == [None] * 20
    assert records.reads <= 1 + (time.monotonic() - began) / 0.2
    # Nor does one that was known hold when the records have lost it.
    found = await there.by_token(token, HERE)
    assert found is not None
    forgetful._records = MemoryUserRecords()
    await forgetful.refresh()
    assert not there.alive(found, HERE)
    assert not there.stands(found, HERE)


@pytest.mark.parametrize("error", [Unavailable("away"), OSError("whatever")])
async def test_records_that_cannot_be_read_end_no_known_token_and_admit_no_other(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(ledger, "LOOKUP_SECONDS", 0.01)
    records = Records()
    here, there = (logins(ledger=Ledger(records)) for _ in range(2))
    known, other = [(await accounts.token(question(identity()))).splitlines()[0] for accounts in (here, there)]
    records.fails = error
    assert await here.by_token(known, HERE)
    with pytest.raises(Unavailable, match="try again"):
        await here.by_token(other, HERE)
    records.fails = None
    assert await here.by_token(other, HERE)


async def test_cookies_are_refused_when_altered_foreign_old_or_logged_out() -> None:
    keys = Keys()
    accounts = logins(keys)
    word = accounts.cookie(ALICE)
    assert accounts.by_cookie(word, HERE) == ALICE
    for wrong in ("", ".", "ä", word[:-1], word + "A", word.replace(".", "", 1), "x" * 5000, word.upper()):
        assert accounts.by_cookie(wrong, HERE) is None, wrong
    assert accounts.by_cookie(Signer(b"o" * 32).sign("cookie", ALICE), HERE) is None
    assert accounts.by_cookie(accounts.cookie(dataclasses.replace(ALICE, expires=1.0)), HERE) is None
    keys.allowed = None
    assert accounts.by_cookie(word, HERE) is None
    keys.allowed = Restrictions()
    await accounts.logout(ALICE)
    assert accounts.by_cookie(word, HERE) is None


async def test_passwords_open_and_a_changed_one_ends_what_the_old_one_opened(tmp_path: Path) -> None:
    users = tmp_path / "users"
    set_password(users, "alice", "correct horse")
    set_password(users, "bob", "battery staple")
    assert users.stat().st_mode & 0o777 == 0o600
    accounts = logins(users_file=users)
    found = await accounts.by_password("alice", "correct horse", HERE)
    assert isinstance(found, Principal)
    assert accounts.alive(found, HERE)
    for user, password in (
        ("alice", "battery staple"),
        ("alice", ""),
        ("nobody", "x"),
        ("../x", "x"),
        ("alice", "\ud800"),
    ):
        assert await accounts.by_password(user, password, HERE) == Refused()
    set_password(users, "alice", "another one")
    assert not accounts.alive(found, HERE)
    set_password(users, "alice", None)
    assert "alice" not in users.read_text()
    assert await accounts.by_password("alice", "another one", HERE) == Refused()


async def test_a_users_file_that_cannot_be_read_ends_no_login(tmp_path: Path) -> None:
    users = tmp_path / "users"
    set_password(users, "alice", "correct horse")
    accounts = logins(users_file=users)
    found = await accounts.by_password("alice", "correct horse", HERE)
    assert isinstance(found, Principal)
    users.unlink()
    for target in ("users", "/proc/self/mem"):  # ELOOP when it is opened, EIO when it is read
        users.symlink_to(target)
        assert accounts.alive(found, HERE)
        users.unlink()
    assert not accounts.alive(found, HERE)


def test_a_users_file_keeps_its_mode_and_its_owner_when_a_password_is_set(tmp_path: Path) -> None:
    users = tmp_path / "users"
    set_password(users, "alice", "correct horse")
    users.chmod(0o640)
    if os.geteuid() == 0:
        # An operator sets it as root; the gateway must still be able to read it.
        os.chown(users, 12_345, 12_346)
    before = users.stat()
    set_password(users, "bob", "battery staple")
    after = users.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


async def test_too_many_wrong_passwords_make_that_user_wait_there_and_nowhere_else(tmp_path: Path) -> None:
    users = tmp_path / "users"
    set_password(users, "alice", "correct horse")
    set_password(users, "bob", "battery staple")
    accounts = logins(users_file=users, login_attempts=2)
    for _ in range(2):
        assert await accounts.by_password("alice", "wrong", HERE) == Refused()
    refused = await accounts.by_password("alice", "correct horse", HERE)
    assert isinstance(refused, Refused)
    assert 0 < refused.wait <= 61
    # A stranger's guesses lock neither her out where she is, nor others out where they come from.
    assert isinstance(await accounts.by_password("alice", "correct horse", "192.0.2.99"), Principal)
    assert isinstance(await accounts.by_password("bob", "battery staple", HERE), Principal)


async def test_who_guesses_at_many_users_waits_as_an_address(tmp_path: Path) -> None:
    users = tmp_path / "users"
    set_password(users, "bob", "battery staple")
    accounts = logins(users_file=users, login_attempts=1)
    tried = [await accounts.by_password(f"user{number}", "spring2026", HERE) for number in range(5)]
    assert tried == [Refused()] * 5
    refused = await accounts.by_password("bob", "battery staple", HERE)
    assert isinstance(refused, Refused)
    assert refused.wait > 0
    assert isinstance(await accounts.by_password("bob", "battery staple", "192.0.2.99"), Principal)


async def test_wrong_passwords_tried_side_by_side_are_counted_like_those_one_by_one(tmp_path: Path) -> None:
    users = tmp_path / "users"
    set_password(users, "alice", "correct horse")
    accounts = logins(users_file=users, login_attempts=2)
    tried = await asyncio.gather(*(accounts.by_password("alice", f"guess {n}", HERE) for n in range(12)))
    # Two are looked at, and at most one that was under way beside the last of them.
    assert len([one for one in tried if one == Refused()]) <= 3


async def test_all_addresses_of_one_ipv6_network_are_one_guesser() -> None:
    accounts = logins(login_attempts=2)
    assert [await accounts.by_link("wrong", f"2001:db8::{n}") for n in range(2)] == [Refused(), Refused()]
    assert await accounts.by_link("wrong", "2001:db8::ffff") != Refused()
    assert await accounts.by_link("wrong", "2001:db8:0:1::1") == Refused()


async def test_who_guesses_at_links_shuts_out_no_valid_one_from_the_same_address() -> None:
    accounts = logins(login_attempts=2)
    ticket = accounts.login_link(identity()).partition("#login=")[2]
    assert [await accounts.by_link("wrong", HERE) for _ in range(2)] == [Refused()] * 2
    waiting = await accounts.by_link("wrong", HERE)
    assert isinstance(waiting, Refused)
    assert waiting.wait > 0
    assert isinstance(await accounts.by_link(ticket, HERE), Principal)
