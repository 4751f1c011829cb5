"""Whether a link to a session is good: signed here, for this purpose, in time, not revoked."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, cast

import pytest

from sshgate.access.issued import MOST_TOKENS, Shared, Token
from sshgate.access.ledger import Ledger, MemoryUserRecords
from sshgate.config.model import Address, Web
from sshgate.errors import LimitReached
from tests.unit.test_web_login import HERE, Keys, identity, question
from webshim.credentials import Principal, Purpose, Signer
from webshim.login import Logins
from webshim.public_endpoint import PublicEndpoint
from webshim.shares import EXPIRED, REVOKED, TAKEN_AWAY, WRONG, BadShare, Shares

SIGNER = Signer(b"k" * 32)
SHARED = Shared("work", "build", "0123456789abcdef", False, "SHA256:key")


class Held:
    """A sandbox with one session."""

    async def named(self, user: str, sandbox: str, name: str) -> Any:
        return dataclasses.replace(SHARED, session=name)


class Desk:
    """Shares over a ledger in memory, and links that are made past `share`."""

    def __init__(self, **settings: Any) -> None:
        web = Web(public_url="https://term.example", **settings)
        place = PublicEndpoint(web, Address("0.0.0.0", 31000))
        self.keys = Keys()
        self.ledger = Ledger(MemoryUserRecords())
        self.logins = Logins(web, self.keys, SIGNER, place, self.ledger)
        self.shares = Shares(web, self.logins, SIGNER, self.ledger, place, cast(Any, Held()))

    async def link(self, seconds: float = 600.0, purpose: Purpose = "share", shared: Shared | None = SHARED) -> str:
        now = time.time()
        made = Principal("alice", "share", "", f"id-{now}", now, now + seconds)
        await self.ledger.issue("alice", Token(made.id, now, now + 600, HERE, "SHA256:key", shared=shared))
        return SIGNER.sign(purpose, made)

    async def refusal(self, word: str, source: str = "198.51.100.9") -> str:
        with pytest.raises(BadShare) as refused:
            await self.shares.opened(word, source)
        assert refused.value.principal == SIGNER.read("share", word)  # for the operator
        return str(refused.value)


async def test_a_link_is_good_until_its_end_its_revocation_or_the_end_of_its_key() -> None:
    desk = Desk()
    word = await desk.link()
    share = await desk.shares.opened(word, "198.51.100.9")
    assert (share.principal.user, share.shared, desk.shares.over(share)) == ("alice", SHARED, "")
    assert await desk.refusal(await desk.link(seconds=-1)) == EXPIRED
    desk.keys.allowed = None
    assert desk.shares.over(share) == TAKEN_AWAY
    assert await desk.refusal(word) == TAKEN_AWAY
    await desk.ledger.revoke("alice", share.id)
    assert desk.shares.over(share) == REVOKED
    assert await desk.refusal(word) == REVOKED


@pytest.mark.parametrize("method", ["publickey", "certificate"])
async def test_a_link_rests_on_the_key_that_made_it_and_does_not_show_it(method: str) -> None:
    desk = Desk()
    printed = await desk.shares.share(question(identity(method, "alice=work=build")))
    word = printed.splitlines()[0].partition("#watch=")[2]
    readable = SIGNER.read("share", word)  # but for the signature, anybody can
    assert readable is not None
    assert (readable.proof, readable.certificate) == ("", None)
    owner = (await desk.shares.opened(word, "198.51.100.9")).principal
    assert owner.proof == ("cert SHA256:key" if method == "certificate" else "SHA256:key")
    assert (owner.certificate is not None) == (method == "certificate")
    desk.keys.allowed = None
    assert await desk.refusal(word) == TAKEN_AWAY


async def test_a_shorter_longest_time_ends_links_that_were_made_before() -> None:
    for most, left in ((0.0, 0), (60.0, 60)):
        desk = Desk(share_lifetime=most)
        word = await desk.link()
        if left:
            share = await desk.shares.opened(word, "198.51.100.9")
            assert share.principal.expires == share.principal.issued + left
            assert (await desk.shares.listed(question(identity()))).splitlines()[1].split()[4] != "10m"
        else:
            assert await desk.refusal(word) == EXPIRED
            assert await desk.shares.listed(question(identity())) == "you have no links to sessions.\n"


async def test_what_was_signed_for_something_else_is_no_link_and_a_link_is_nothing_else() -> None:
    desk = Desk()
    purposes: tuple[Purpose, ...] = ("cookie", "token")
    for purpose in purposes:
        assert await desk.refusal(await desk.link(purpose=purpose)) == WRONG
    # Of a token for programs that the ledger knows, there is nothing to show.
    assert await desk.refusal(await desk.link(shared=None)) == REVOKED
    word = await desk.link()
    assert desk.logins.by_cookie(word, HERE) is None
    assert await desk.logins.by_token(word, HERE) is None
    assert (
        await desk.refusal(Signer(b"other" * 8).sign("share", SIGNER.read("share", word) or cast(Any, None))) == WRONG
    )


async def test_who_tries_wrong_links_has_to_wait_and_a_good_one_works() -> None:
    desk = Desk()
    for _ in range(10):
        assert await desk.refusal("wrong") == WRONG
    assert (await desk.refusal("wrong")).startswith("too many wrong links; try again in ")
    assert await desk.refusal("wrong", "192.0.2.200") == WRONG
    assert await desk.shares.opened(await desk.link(), "198.51.100.9")


async def test_a_user_has_so_many_links_and_all_of_them_can_be_ended() -> None:
    desk = Desk()
    asked = question(identity(login="alice=work=build"))
    for _ in range(MOST_TOKENS - 1):
        await desk.link()
    await desk.shares.share(asked)
    with pytest.raises(LimitReached, match=rf"you have {MOST_TOKENS} tokens and links: revoke one"):
        await desk.shares.share(asked)
    assert (await desk.shares.unshare(asked)).count("is revoked") == MOST_TOKENS
    assert "# Who has it can watch" in await desk.shares.share(asked)


async def test_a_token_for_programs_and_a_link_are_listed_apart() -> None:
    desk = Desk()
    await desk.link()
    asked = question(identity())
    assert (await desk.shares.listed(asked)).splitlines()[1].split()[1:3] == ["work=build", "watches"]
    (one,) = desk.ledger.of("alice").tokens.values()
    assert await desk.shares.unshare(dataclasses.replace(asked, word=one.id)) == f"link {one.id} is revoked.\n"
    assert await desk.shares.listed(asked) == "you have no links to sessions.\n"
