"""What users were given: how long it is remembered, by whom, and what is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sshgate.access.issued import MOST_LOGOUTS, MOST_TOKENS, Issued, Logout, Token
from sshgate.access.ledger import FileUserRecords, Ledger, MemoryUserRecords
from sshgate.errors import GateError, LimitReached, Unavailable
from tests.hostile.polling import until


def token(name: str, made: float = 0.0, ends: float = 100.0) -> Token:
    return Token(name, made, ends, "192.0.2.1", "SHA256:key")


def test_a_revoked_token_is_lost_until_it_would_have_ended() -> None:
    issued = Issued().with_token(token("a"), 0.0).with_token(token("b"), 0.0)
    issued = issued.revoked("a", 1.0)
    assert issued.lost("a", 0.0, token=True)
    assert not issued.lost("b", 0.0, token=True)
    assert issued.revoked("nobody's", 1.0) == issued
    assert issued.with_token(token("c", 99.0, 200.0), 99.0).lost("a", 0.0, token=True)
    assert set(issued.with_token(token("c", 100.0, 200.0), 100.0).tokens) == {"c"}


def test_only_good_tokens_count_and_a_revoked_one_stays_lost_when_it_makes_room() -> None:
    issued = Issued()
    for number in range(MOST_TOKENS):
        issued = issued.with_token(token(str(number), ends=7200.0 + number), 0.0)
    with pytest.raises(LimitReached, match="revoke one, or wait 2 h"):
        issued.with_token(token("more"), 0.0)
    issued = issued.revoked("5", 0.0).revoked("3", 0.0).with_token(token("more", ends=9000.0), 0.0)
    assert len(issued.tokens) == MOST_TOKENS
    assert [issued.lost(one, 0.0, token=True) for one in ("3", "5", "4", "more")] == [True, True, False, False]
    issued = issued.with_token(token("last", ends=9000.0), 0.0)
    with pytest.raises(LimitReached):
        issued.with_token(token("none"), 0.0)
    assert issued.lost("5", 0.0, token=True)
    assert issued.with_token(token("late", ends=9999.0), 9000.0).tokens.keys() == {"late"}


def test_logouts_that_are_forgotten_take_older_logins_along() -> None:
    issued = Issued()
    for number in range(MOST_LOGOUTS + 5):
        issued = issued.logged_out(str(number), Logout(float(number), 1000.0), 0.0)
    assert len(issued.logouts) == MOST_LOGOUTS
    for number in range(MOST_LOGOUTS + 5):
        assert issued.lost(str(number), float(number), token=False)
    assert issued.lost("another", 4.0, token=False)
    assert not issued.lost("another", 4.5, token=False)
    # A token that was never issued is none.
    assert issued.lost("0", 0.0, token=True)


class Away(MemoryUserRecords):
    """A store that can be out of reach."""

    away = False

    async def all(self) -> Mapping[str, str]:
        self._reach()
        return await super().all()

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        self._reach()
        return await super().change(user, change)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("away")


async def test_a_logout_holds_here_at_once_and_everywhere_when_it_can_be_saved() -> None:
    store = Away()
    here, there = Ledger(store, lambda: 0.0), Ledger(store, lambda: 0.0)
    store.away = True
    await here.logout("alice", "login", Logout(0.5, 100.0))
    assert here.of("alice").lost("login", 0.5, token=False)
    with pytest.raises(GateError):
        await here.issue("alice", token("a"))
    store.away = False
    # What is read, or written by another, does not undo it meanwhile.
    await here.refresh()
    await here.issue("alice", token("b"))
    assert here.of("alice").lost("login", 0.5, token=False)
    await here.logout("bob", "login", Logout(0.5, 100.0))
    await there.refresh()
    assert there.of("alice").lost("login", 0.5, token=False)
    assert there.of("bob").lost("login", 0.5, token=False)
    assert set(there.of("alice").tokens) == {"b"}


async def test_gateways_that_write_to_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "web.issued"
    ledgers = [Ledger(FileUserRecords(path), lambda: 0.0) for _ in range(4)]
    await asyncio.gather(
        *(ledger.issue("alice", token(f"{which}-{n}")) for which, ledger in enumerate(ledgers) for n in range(10))
    )
    assert path.stat().st_mode & 0o777 == 0o600
    fresh = Ledger(FileUserRecords(path), lambda: 0.0)
    await fresh.refresh()
    assert len(fresh.of("alice").tokens) == 40
    assert await fresh.revoke("alice", "0-0") is not None
    assert await fresh.revoke("bob", "0-1") is None
    await ledgers[0].refresh()
    assert ledgers[0].of("alice").lost("0-0", 0.0, token=True)
    assert not path.with_name(".web.issued.new").exists()
    path.write_text("{")
    with pytest.raises(Unavailable, match="damaged"):
        await fresh.refresh()


async def test_a_damaged_record_of_one_user_hides_no_revocation_of_others() -> None:
    records = MemoryUserRecords()
    here, there = Ledger(records, lambda: 9.0), Ledger(records, lambda: 9.0)
    for user in ("alice", "bob"):
        await there.issue(user, token("a"))
    await here.refresh()
    await records.change("bob", lambda _: '{"tokens": 5}')
    await there.revoke("alice", "a")
    await here.refresh()
    assert here.of("alice").lost("a", 0.0, token=True)
    # What was known of it counts; where nothing was, no earlier login does.
    assert not here.of("bob").lost("a", 0.0, token=True)
    fresh = Ledger(records, lambda: 9.0)
    await fresh.refresh()
    assert fresh.of("bob").lost("a", 0.0, token=True)
    assert fresh.of("bob").lost("login", 9.0, token=False)
    assert not fresh.of("bob").lost("login", 9.5, token=False)


async def test_a_logout_that_cannot_be_saved_holds_up_no_other_and_no_revocation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sshgate.access.ledger.REFRESH_SECONDS", 0.01)
    records = Away()
    here, there = Ledger(records, lambda: 0.0), Ledger(records, lambda: 0.0)
    await there.issue("alice", token("a"))
    await records.change("bob", lambda _: '{"tokens": 5}')
    records.away = True
    for user in ("bob", "alice"):
        await here.logout(user, "login", Logout(0.5, 100.0))
    records.away = False
    await there.revoke("alice", "a")
    running = asyncio.create_task(here.run())
    await until(lambda: here.of("alice").lost("a", 0.0, token=True) and "login" in records._texts["alice"])
    assert here.of("bob").lost("login", 0.5, token=False)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_whatever_fails_in_one_look_ends_none_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshgate.access.ledger.REFRESH_SECONDS", 0.01)
    third = asyncio.Event()

    class Damaged(MemoryUserRecords):
        looks = 0

        async def all(self) -> Mapping[str, str]:
            self.looks += 1
            if self.looks == 3:
                third.set()
            raise ValueError("not what is expected")

    running = asyncio.create_task(Ledger(Damaged()).run())
    async with asyncio.timeout(5):
        await third.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
