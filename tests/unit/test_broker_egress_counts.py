"""Counts of what sandboxes connected to and what they were refused, and the events."""

from __future__ import annotations

import asyncio

from sshgate.broker import egress_counts
from sshgate.broker.caller import Caller
from sshgate.broker.egress import Attempt
from sshgate.broker.egress_counts import MOST_DESTINATIONS, OTHERS, EgressCounts
from sshgate.config.model import Egress
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Record
from tests.unit.outside_world import CALLER


def counts(log: bool = True) -> tuple[EgressCounts, list[Record]]:
    records: list[Record] = []
    return EgressCounts(Events(records.append), lambda caller: Egress(log=log), lambda: 1000.0), records


async def test_attempts_are_counted_by_destination_and_reason() -> None:
    counted, records = counts()
    for _ in range(3):
        counted.report(CALLER, Attempt("a.example", 443, None))
        counted.report(CALLER, Attempt("a.example", 443, None, 10, 200, ended=True))
    counted.report(CALLER, Attempt("a.example", 443, "other TLS name"))
    counted.report(CALLER, Attempt("evil.example", 443, "not listed"))
    (rows,) = counted.of("ada", "work").values()
    assert [(one.host, one.refused, one.count, one.bytes_up, one.bytes_down, one.last) for one in rows] == [
        ("a.example", None, 3, 30, 600, 1000.0),
        ("a.example", "other TLS name", 1, 0, 0, 1000.0),
        ("evil.example", "not listed", 1, 0, 0, 1000.0),
    ]
    assert [record.code for record in records] == [Code.EGRESS_ALLOWED] * 3 + [Code.EGRESS_REFUSED] * 2
    assert records[-1].fields == {
        "user": "ada", "sandbox": "sandbox-1", "profile": "default", "name": "work", "host": "evil.example",
        "port": 443, "reason": "not listed",
    }  # fmt: skip


async def test_nobody_sees_the_sandboxes_of_others() -> None:
    counted, _ = counts()
    counted.report(CALLER, Attempt("a.example", 443, None))
    assert counted.of("eve") == {}
    assert counted.of("ada", "other") == {}
    assert list(counted.of("ada")) == ["work"]


async def test_made_up_names_fill_neither_memory_nor_the_log() -> None:
    counted, records = counts()
    for number in range(5000):
        counted.report(CALLER, Attempt(f"{number}.evil.example", 443, "not listed"))
    counted.report(CALLER, Attempt("a.example", 443, None))
    (rows,) = counted.of("ada").values()
    assert len(rows) == MOST_DESTINATIONS + 2
    assert rows[0].host == "a.example", "refused names do not hide the allowed ones"
    (others,) = [one for one in rows if one.host == OTHERS]
    assert others.count == 5000 - MOST_DESTINATIONS
    assert len(records) <= 31
    await asyncio.sleep(0)


async def test_all_sandboxes_together_have_a_bound() -> None:
    counted, _ = counts()
    for number in range(egress_counts.MOST_IN_ALL // 50 + 5):
        caller = Caller("ada", (), "default", f"s{number}", f"u{number}", None)
        for host in range(50):
            counted.report(caller, Attempt(f"{host}.example", 443, None))
    assert counted._size <= egress_counts.MOST_IN_ALL
    assert "s0" not in counted.of("ada")
    listed = counted.of("ada")
    assert sum(map(len, listed.values())) == egress_counts.MOST_LISTED
    assert "s1004" in listed


async def test_a_sandbox_that_was_quiet_for_a_day_is_forgotten() -> None:
    now = 1000.0
    counted = EgressCounts(Events(), lambda caller: Egress(), lambda: now)
    counted.report(CALLER, Attempt("a.example", 443, None))
    now += egress_counts.QUIET_SECONDS
    other = Caller("ada", (), "default", "s2", "u2", None)
    counted.report(other, Attempt("a.example", 443, None))
    assert set(counted.of("ada")) == {"work", "s2"}
    now += 1
    counted.report(other, Attempt("a.example", 443, None))
    assert set(counted.of("ada")) == {"s2"}
    assert counted._size == 1


async def test_allowed_connections_have_no_event_where_the_log_is_off() -> None:
    counted, records = counts(log=False)
    counted.report(CALLER, Attempt("a.example", 443, None))
    counted.report(CALLER, Attempt("b.example", 443, "not listed"))
    assert [record.code for record in records] == [Code.EGRESS_REFUSED]
