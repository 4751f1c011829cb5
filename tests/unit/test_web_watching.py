"""Sockets of people who watch: how many there may be, and what ends them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import pytest

from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Record
from tests.unit.test_web_shares import Desk
from webshim.protocol import Broken, Close
from webshim.shares import EXPIRED, Share
from webshim.watching import MOST, MOST_BY_USER, MOST_OPENED, RESTARTS, Watchers, WatcherSocket


class Gate:
    """A gateway whose sockets have no far end."""

    def __init__(self, workers: int = 1) -> None:
        self.desk = Desk()
        self.events: list[Record] = []
        self.watchers = Watchers(self.desk.shares, cast(Any, None), Events(self.events.append), workers)

    async def share(self) -> Share:
        return await self.desk.shares.opened(await self.desk.link(), "198.51.100.9")

    def socket(self, source: str = "198.51.100.9") -> WatcherSocket:
        return self.watchers.socket(cast(Any, None), source)

    @property
    def refusals(self) -> list[tuple[object, object]]:
        found = [one.fields for one in self.events if one.code is Code.WEB_REFUSED]
        return [(one.get("user"), one.get("id")) for one in found]


@pytest.mark.parametrize(("workers", "most"), [(1, 8), (2, 4), (99, 1)])
async def test_each_worker_admits_its_part_and_reports_who_finds_no_place(workers: int, most: int) -> None:
    gate = Gate(workers)
    share = await gate.share()
    with ExitStack() as there:
        for _ in range(most if workers < MOST_OPENED else 1):
            there.enter_context(gate.watchers.watching(gate.socket(), share))
        with pytest.raises(Broken, match="as many people watch as may") as refused:
            there.enter_context(gate.watchers.watching(gate.socket(), share))
    assert refused.value.close == Close.FULL
    assert gate.refusals == [("alice", share.id)]


async def test_a_user_and_a_gateway_have_so_many_who_watch_whatever_the_links() -> None:
    gate = Gate()
    share = await gate.share()
    with ExitStack() as there:

        def come(number: int, user: str) -> None:
            link = replace(share, principal=replace(share.principal, id=f"link-{number}", user=user))
            there.enter_context(gate.watchers.watching(gate.socket(), link))

        for number in range(MOST_BY_USER):
            come(number, "alice")
        with pytest.raises(Broken, match="as many people watch as may"):
            come(MOST, "alice")
        for number in range(MOST_BY_USER, MOST):
            come(number, f"user-{number}")
        with pytest.raises(Broken, match="as many people watch as may"):
            come(MOST, "bob")
    assert gate.refusals[0] == ("alice", f"link-{MOST}")
    assert not gate.watchers.sockets


async def test_a_link_is_opened_so_often_in_a_minute_and_more_is_reported() -> None:
    gate = Gate(workers=2)
    share = await gate.share()
    for _ in range(MOST_OPENED // 2):
        with gate.watchers.watching(gate.socket(), share):
            pass
    with pytest.raises(Broken, match="opened too often"), gate.watchers.watching(gate.socket(), share):
        pass
    assert gate.refusals == [("alice", share.id)]


async def test_a_link_that_is_looked_up_while_the_gateway_restarts_finds_the_next_one() -> None:
    gate = Gate()
    share = await gate.share()
    here = gate.socket()
    with gate.watchers.watching(here, share):
        gate.watchers.restart()
        assert (await here._wait_ended())[:2] == (Close.RESTART, RESTARTS)
        with pytest.raises(Broken) as refused, gate.watchers.watching(gate.socket(), share):
            pass
    assert refused.value.close == Close.RESTART
    assert gate.refusals == []


async def test_a_socket_that_is_open_at_the_end_of_its_link_is_closed_with_the_reason() -> None:
    gate = Gate()
    share = await gate.share()
    over = replace(share, principal=replace(share.principal, expires=time.time() - 1))
    goes_on, ends = gate.socket(), gate.socket()
    with gate.watchers.watching(goes_on, share), gate.watchers.watching(ends, over):
        list(gate.watchers.recheck())
        assert await ends._wait_ended() == (Close.LOGIN, EXPIRED, "ended")
        assert not goes_on._ended.done()
