"""Messages between the workers of one gateway: in order, bounded, and the last value of each key for late ones too."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from sshgate.access.limits import Starts
from sshgate.access.siblings import PAGE_BYTES, PARENT, REPORTS, Inboxes, SharedPage, Siblings, receive, send
from sshgate.broker.egress import LONGEST_REPORT
from sshgate.broker.egress_counts import MOST_LISTED, Destination
from sshgate.server.sharing import SharedReport, share_events, share_starts
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EACH, Events, Record, Stranger
from sshgate.telemetry.metrics import Metrics
from sshgate.telemetry.readiness import Readiness
from tests.unit.test_web_login import identity, logins, question
from webshim.credentials import Principal
from webshim.passwords import set_password

LIMIT = 20.0


@asynccontextmanager
async def workers(boxes: Inboxes, *indexes: int) -> AsyncIterator[list[Siblings]]:
    """These workers, each of which knows of the others."""
    made = [Siblings(boxes, index) for index in indexes]
    for one in made:
        one.open()
    await eventually([{*indexes} - {index} for index in indexes], lambda: [one.alive for one in made])
    try:
        yield made
    finally:
        for one in made:
            one.close()
        boxes.close()


async def eventually(wanted: Any, found: Any) -> None:
    async with asyncio.timeout(LIMIT):
        while found() != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Observed(dict[Any, Any]):
    """What one worker has learnt of the others: the values by key, and the reports in order."""

    def __init__(self, siblings: Siblings) -> None:
        super().__init__()
        self.reports: list[Any] = []
        siblings.handle("value", lambda sender, value: self.update({(sender, value[0]): value[1]}))
        siblings.handle("report", lambda _, value: self.reports.append(value))
        siblings.when_gone(self._forget)

    def _forget(self, gone: int) -> None:
        for key in [key for key in self if key[0] == gone]:
            del self[key]


def test_a_value_reaches_all_also_those_that_start_later() -> None:
    async def work() -> None:
        boxes = Inboxes(3)
        async with workers(boxes, 0, 1) as (first, second):
            there = Observed(second)
            first.publish("value", "a", 1)
            first.publish("value", "b", 2)
            first.publish("value", "a", 3)
            await eventually({(0, "a"): 3, (0, "b"): 2}, lambda: there)
            first.publish("value", "b", 0)
            await eventually({(0, "a"): 3, (0, "b"): 0}, lambda: there)
            third = Siblings(boxes, 2)
            late = Observed(third)
            third.open()
            await eventually({(0, "a"): 3}, lambda: late)
            third.close()

    uvloop.run(work())


def test_a_worker_that_does_not_read_costs_the_others_a_bounded_memory_and_learns_the_last_values() -> None:
    async def work() -> None:
        boxes = Inboxes(2)
        async with workers(boxes, 0, 1) as (first, second):
            there, loop = Observed(second), asyncio.get_running_loop()
            loop.remove_reader(second._inbox.fileno())
            for number in range(200):
                for key in range(100):
                    first.publish("value", key, (number, "x" * 100))
                    first.report("report", number)
                await asyncio.sleep(0)
            assert len(first._pending[1]) <= 100
            assert len(first._reports[1]) <= REPORTS
            loop.add_reader(second._inbox.fileno(), second._readable)
            await eventually([199] * 100, lambda: [there.get((0, key), [0])[0] for key in range(100)])
            await eventually([199] * 100, lambda: there.reports[-100:])
            assert there.reports == sorted(there.reports)

    uvloop.run(work())


def test_workers_find_each_other_although_a_message_was_lost() -> None:
    async def work() -> None:
        boxes = Inboxes(2)
        first, second = (Siblings(boxes, index) for index in range(2))
        first.open()
        loop = asyncio.get_running_loop()
        loop.remove_reader(first._inbox.fileno())
        while send(boxes.to_workers[0], PARENT, "batch", []):
            pass
        second.open()
        loop.add_reader(first._inbox.fileno(), first._readable)
        await eventually(({1}, {0}), lambda: (first.alive, second.alive))
        first.close()
        second.close()
        boxes.close()

    uvloop.run(work())


def test_what_a_dead_worker_had_published_is_void_and_its_connections_are_closed() -> None:
    async def work() -> None:
        boxes = Inboxes(2)
        ours, theirs = socket.socketpair()
        async with workers(boxes, 0, 1) as (first, second):
            here = Observed(first)
            second.take_connections(lambda value, connection: None)
            second.publish("value", "a", 1)
            await eventually({(1, "a"): 1}, lambda: here)
            second.close()
            assert first.hand_over(1, "to nobody", theirs.fileno())
            theirs.close()
            boxes.worker_gone(1)
            boxes.clear(1)
            await eventually({}, lambda: here)
            assert ours.recv(1) == b""
            assert not first.hand_over(1, "", ours.fileno())
            ours.close()
            assert await first.ask("anything") == {}

    uvloop.run(work())


def test_a_connection_is_handed_over_with_what_was_read_of_it() -> None:
    async def work() -> None:
        boxes = Inboxes(2)
        async with workers(boxes, 0, 1) as (first, second):
            taken: asyncio.Queue[tuple[Any, socket.socket]] = asyncio.Queue()
            second.take_connections(lambda value, connection: taken.put_nowait((value, connection)))
            ours, theirs = socket.socketpair()
            await eventually({1}, lambda: first._takers)
            assert first.hand_over(1, ["peer", b"\x00bytes"], theirs.fileno())
            theirs.close()
            async with asyncio.timeout(LIMIT):
                value, connection = await taken.get()
            assert value == ["peer", b"\x00bytes"]
            assert not os.get_inheritable(connection.fileno())
            connection.send(b"hello")
            assert ours.recv(5) == b"hello"
            connection.close()
            ours.close()

    uvloop.run(work())


def test_questions_are_answered_by_those_that_can_within_the_time() -> None:
    async def work() -> None:
        async def doubled(value: int) -> int:
            return 2 * value

        async def never(_: object) -> None:
            await asyncio.Event().wait()

        async with workers(Inboxes(3), 0, 1, 2) as (first, second, third):
            second.answers("double", doubled)
            third.answers("double", never)
            assert await first.ask("double", 21, seconds=0.5) == {1: 42}
            assert not first._asked

    uvloop.run(work())


def test_the_longest_list_of_destinations_arrives_whole() -> None:
    """Programs in sandboxes make up the names; what a worker cannot send, their user does not get to see."""
    one = asdict(Destination("a" * LONGEST_REPORT, 65_535, "other TLS name", 1 << 40, 1 << 50, 1 << 50, 1.5e9))
    found = {f"sandbox-{number}": [one] * (MOST_LISTED // 5) for number in range(5)}

    async def work() -> None:
        async def listed(_: object) -> Any:
            return found

        async with workers(Inboxes(2), 0, 1) as (first, second):
            second.answers("egress", listed)
            assert await first.ask("egress", ["ada", None], seconds=0.5) == {1: found}

    uvloop.run(work())


def test_a_message_that_cannot_be_read_is_passed_over_and_its_connection_closed() -> None:
    boxes = Inboxes(1)
    ours, theirs = socket.socketpair()
    socket.send_fds(boxes.to_workers[0], [b"\xc1"], [theirs.fileno()])
    theirs.close()
    assert send(boxes.to_workers[0], PARENT, "gone", 7)
    assert receive(boxes.inboxes[0]) == (PARENT, "gone", None, 7)
    assert ours.recv(1) == b""
    ours.close()
    boxes.close()


def test_a_worker_that_still_starts_is_not_ready_and_has_no_metrics() -> None:
    async def work() -> None:
        async def fine() -> None: ...

        async with workers(Inboxes(2), 0, 1) as (first, second):
            mine, theirs = Readiness(fine), Readiness(fine)
            theirs.serving = True
            report = SharedReport(mine, Metrics(), first, 0)
            assert "starting" in str(await report.why_not())
            SharedReport(theirs, Metrics(), second, 0)
            assert await report.why_not() is None
            assert b"\nsshgate_workers 2.0\n" in await report.metrics()
            theirs.draining = True
            assert "starting" in str(await report.why_not())

    uvloop.run(work())


def test_failed_logins_of_the_longest_names_reach_all_and_wrong_links_are_not_asked_about() -> None:
    async def work() -> None:
        boxes = Inboxes(2)
        async with workers(boxes, 0, 1) as (first, second):
            here = logins(siblings=first)
            there = Observed(second)
            second.handle("web login failed", lambda _, value: there.reports.append(value))
            # All greetings are read then: a greeting drops the reports that were kept for its sender.
            await first.ask("anything")
            for number in range(400):
                await here.by_password("\N{GRINNING FACE}" * 300, "", f"192.0.{number // 250}.{number % 250}")
            await eventually(800, lambda: len(there.reports))
            asked: list[str] = []

            async def take(ticket: str) -> None:
                asked.append(ticket)

            second.answers("web link taken", take)
            tickets = [letter * 32 for letter in "abcdefgh"]
            for ticket in (*tickets, "x" * 33, "x" * 60_000, "\N{GRINNING FACE}" * 32):
                await here.by_link(ticket, "192.0.2.1")
            # The others can only be of this worker.
            assert asked == [ticket for ticket in tickets if first.owner(ticket) == second.index]
            assert len(asked) < len(tickets)

    uvloop.run(work())


def test_only_the_worker_of_a_link_is_asked_about_it() -> None:
    """One that is busy does not delay who logs in by another's."""

    async def work() -> None:
        async with workers(Inboxes(3), 0, 1, 2) as three:
            accounts = [logins(siblings=one) for one in three]
            asked: list[str] = []

            async def take(ticket: str) -> None:
                asked.append(ticket)

            three[2].answers("web link taken", take)
            for _ in range(10):
                ticket = (await accounts[0].web(question(identity()))).partition("#login=")[2].strip()
                assert isinstance(await accounts[1].by_link(ticket, "192.0.2.1"), Principal)
                assert not isinstance(await accounts[1].by_link(ticket, "192.0.2.1"), Principal)
            assert asked == []

    uvloop.run(work())


def test_a_user_starts_no_more_sandboxes_than_at_one_process() -> None:
    async def work() -> None:
        async with workers(Inboxes(2), 0, 1) as both:
            counts = [Starts(6), Starts(6)]
            for starts, one in zip(counts, both, strict=True):
                share_starts(starts, one)
            for one in both:
                await one.ask("anything")  # what is reported while they greet each other may be lost
            started = 0
            for number in range(20):
                started += not counts[number % 2].take("eve", time.monotonic())
                await both[number % 2].ask("anything")  # a worker that answers has read what came before
            assert started == 6
            assert counts[1].take("ada", time.monotonic()) == 0.0

    uvloop.run(work())


def test_events_of_strangers_are_no_more_than_those_of_one_process() -> None:
    async def work() -> None:
        records: list[Record] = []
        async with workers(Inboxes(2), 0, 1) as both:
            emitters = [Events(records.append), Events(records.append)]
            for events, one in zip(emitters, both, strict=True):
                share_events(events, one)
            for number in range(4 * EACH):
                emitters[number % 2].emit(Code.CONNECTION_LIMIT, stranger=Stranger("192.0.2.1"))
                await asyncio.sleep(0.002)
            assert EACH <= len(records) <= EACH + 2
            before = len(records)
            emitters[0].emit(Code.CONNECTION_LIMIT, stranger=Stranger("192.0.2.2"))
            assert len(records) == before + 1

    uvloop.run(work())


def test_passwords_are_checked_two_at_a_time_in_all_workers(tmp_path: Path) -> None:
    set_password(tmp_path / "users", "alice", "correct horse")

    async def work() -> None:
        async with workers(Inboxes(2), 0, 1) as (first, second):
            accounts = logins(siblings=first, users_file=tmp_path / "users")
            others = second.password_places()
            async with others:
                # One is left.
                assert isinstance(await accounts.by_password("alice", "correct horse", "192.0.2.1"), Principal)
                async with others:
                    third = asyncio.create_task(accounts.by_password("alice", "correct horse", "192.0.2.1"))
                    await asyncio.wait([third], timeout=0.3)
                    assert not third.done()
                async with asyncio.timeout(LIMIT):
                    assert isinstance(await third, Principal)

    uvloop.run(work())


def test_all_workers_agree_who_owns_a_key() -> None:
    boxes = Inboxes(4)
    owners = [[Siblings(boxes, index).owner(f"user{key}") for key in range(100)] for index in range(4)]
    boxes.close()
    assert owners.count(owners[0]) == 4
    assert {*owners[0]} == {0, 1, 2, 3}


def test_a_page_is_read_whole_or_not_at_all() -> None:
    page = SharedPage()
    assert page.read() == b""
    page.write(b"one")
    assert page.read() == b"one"
    # Its writer has died over it.
    page._memory[8:9] = b"O"
    assert page.read() is None
    page.write(bytes(PAGE_BYTES))
    assert page.read() == b""
