"""Budgets: checked before, charged after, over several gateways, restarts and failures of what they write to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sshgate.access.ledger import FileUserRecords, MemoryUserRecords
from sshgate.broker import budget
from sshgate.broker.budget import Accounts, KeptRecords, Metering
from sshgate.broker.caller import Caller, ModelRequest, Refused
from sshgate.broker.prices import NANO, Prices
from sshgate.broker.usage import Limit, Record
from sshgate.errors import Unavailable
from tests.unit.test_broker_meter import ANTHROPIC, sse

NOON = 1_796_126_400.0  # 2026-12-01 12:00 UTC
ADA = Caller("ada", (), "default", "sandbox-1", "uid-1", "work")
SSE = {"Content-Type": "text/event-stream; charset=utf-8"}
# One answer of half a cent: a million output tokens of this model cost 25 dollars.
ANSWER = sse(
    {"type": "message_start", "message": {"model": "claude-opus-4-5", "usage": {"input_tokens": 0}}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 200}},
)
COST = 5_000_000


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Away(MemoryUserRecords):
    """Records that can be away, before or after a write is done."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.answers_lost = 0
        self.reads = self.writes = 0

    async def read(self, user: str) -> str:
        self.reads += 1
        if self.away:
            raise Unavailable("away")
        return await super().read(user)

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        self.writes += 1
        if self.away:
            raise Unavailable("away")
        text = await super().change(user, change)
        if self.answers_lost:
            self.answers_lost -= 1
            raise Unavailable("no answer")
        return text


def request(caller: Caller = ADA, path: str = "/v1/messages", model: str = "claude-opus-4-5") -> ModelRequest:
    return ModelRequest(caller, "anthropic", path, model, True, 400)


class Gateway:
    """One gateway's metering."""

    def __init__(self, records: MemoryUserRecords | FileUserRecords, instance: str, clock: Clock, **limit: int) -> None:
        self.accounts = Accounts(KeptRecords(records), instance, clock)
        prices = Prices()
        self.metering = Metering(self.accounts, lambda caller: Limit(**limit), lambda: prices, clock)

    async def turn(self, caller: Caller = ADA, answer: bytes = ANSWER) -> dict[str, str | int | float]:
        await self.metering.admit(request(caller))
        observer = self.metering.observe(request(caller), 200, SSE)
        observer.feed(answer)
        return dict(observer.finish())

    async def turns(self, caller: Caller = ADA) -> int:
        """How many turns there are until the budget is used up."""
        for count in range(1000):
            try:
                await self.turn(caller)
            except Refused:
                return count
        raise AssertionError("no budget")


async def test_a_turn_is_charged_by_the_prices() -> None:
    gateway = Gateway(MemoryUserRecords(), "a", Clock())
    fields = await gateway.turn(answer=ANTHROPIC)
    # 12 input, 4000 read, 100 and 200 written, 57 output at 5 and 25 dollars.
    usd = (12 * 5 + 4000 * 0.5 + 100 * 6.25 + 200 * 10 + 57 * 25) / 1e6
    assert fields == {
        "input_tokens": 12, "cache_read_tokens": 4000, "cache_write_tokens": 300, "output_tokens": 57, "usd": usd,
    }  # fmt: skip
    record = await gateway.accounts.of("ada")
    (row,) = record.today
    assert (row.sandbox, row.model, row.requests, row.nano) == ("work", "claude-opus-4-5-20251101", 1, usd * NANO)
    assert record.this_month == record.today


async def test_errors_lists_and_counts_cost_nothing() -> None:
    gateway = Gateway(MemoryUserRecords(), "a", Clock())
    for asked, status in ((request(), 429), (request(model=""), 200), (request(path="/v1/messages/count_tokens"), 200)):
        observer = gateway.metering.observe(asked, status, {"Content-Type": "application/json"})
        observer.feed(b'{"usage": {"input_tokens": 1000000}}')
        assert observer.finish() == {}
    assert (await gateway.accounts.of("ada")).today == []


async def test_a_used_up_budget_refuses_and_says_why() -> None:
    clock = Clock()
    gateway = Gateway(MemoryUserRecords(), "a", clock, user_day=3 * COST)
    assert await gateway.turns() == 3
    with pytest.raises(Refused) as refused:
        await gateway.metering.admit(request())
    assert refused.value.status == 429
    assert refused.value.headers == {"x-should-retry": "false", "retry-after": "43200"}
    assert "your budget of today is used up: $0.01 of $0.01. It is new in 12 h 0 min." in refused.value.sentence
    assert "models.budget.user_day_usd" in refused.value.sentence
    await gateway.metering.admit(request(model=""))
    await gateway.metering.admit(request(path="/v1/messages/count_tokens"))
    clock.now += 43_200
    assert await gateway.turns() == 3
    assert len((await gateway.accounts.of("ada")).this_month) == 1


async def test_sandboxes_profiles_and_users_have_budgets_of_their_own() -> None:
    other = Caller("ada", (), "big", "sandbox-2", "uid-2", None)
    eve = Caller("eve", (), "default", "sandbox-3", "uid-3", "work")
    gateway = Gateway(MemoryUserRecords(), "a", Clock(), sandbox=2 * COST)
    assert await gateway.turns() == 2
    assert await gateway.turns(other) == 2
    with pytest.raises(Refused, match="the budget of this sandbox is used up"):
        await gateway.metering.admit(request())
    gateway = Gateway(MemoryUserRecords(), "a", Clock(), profile_day=2 * COST)
    assert [await gateway.turns(one) for one in (ADA, other, eve)] == [2, 2, 2]
    gateway = Gateway(MemoryUserRecords(), "a", Clock(), user_day=3 * COST)
    assert [await gateway.turns(one) for one in (ADA, other, eve)] == [3, 0, 3]


async def test_a_new_day_does_not_give_a_sandbox_its_budget_back() -> None:
    clock = Clock()
    gateway = Gateway(MemoryUserRecords(), "a", clock, sandbox=2 * COST)
    assert await gateway.turns() == 2
    clock.now += 86_400
    assert await gateway.turns() == 0


@pytest.mark.parametrize("days", [2, 40, 400])
async def test_a_clock_that_was_wrong_once_does_not_end_the_budgets(days: int) -> None:
    clock, records = Clock(), MemoryUserRecords()
    wrong = Clock()
    wrong.now += days * 86_400
    other = Gateway(records, "wrong", wrong)
    await other.turn()
    await other.accounts.flush()
    gateway = Gateway(records, "a", clock, user_day=3 * COST)
    assert await gateway.turns() == 2, "what was counted under the wrong date is counted today"
    await gateway.accounts.flush()
    record = Record.of(await records.read("ada"))
    assert (record.day, record.month) == ("2026-12-01", "2026-12")
    assert sum(row.nano for row in record.this_month) == 3 * COST


async def test_many_new_sandboxes_do_not_make_a_spent_one_forgotten() -> None:
    clock, records = Clock(), MemoryUserRecords()
    gateway = Gateway(records, "a", clock, sandbox=2 * COST)
    assert await gateway.turns() == 2
    for number in range(200):
        clock.now += 60
        await gateway.turn(Caller("ada", (), "default", f"sandbox-{number}", f"uid-new-{number}", None))
    assert await gateway.turns() == 0


async def test_a_cent_with_fifty_streams_at_once_is_exceeded_by_no_more_than_these() -> None:
    gateway = Gateway(MemoryUserRecords(), "a", Clock(), user_day=NANO // 100)
    admitted = 0

    async def stream() -> None:
        nonlocal admitted
        while True:
            try:
                await gateway.metering.admit(request())
            except Refused:
                return
            admitted += 1
            observer = gateway.metering.observe(request(), 200, SSE)
            for at in range(0, len(ANSWER), 40):
                observer.feed(ANSWER[at : at + 40])
                await asyncio.sleep(0)
            observer.finish()

    await asyncio.gather(*(stream() for _ in range(50)))
    assert 2 <= admitted <= 2 + 50


async def test_gateways_share_a_budget_and_a_new_one_knows_it() -> None:
    clock, records = Clock(), MemoryUserRecords()
    first, second = (Gateway(records, name, clock, user_day=10 * COST) for name in ("a", "b"))
    for _ in range(3):
        await first.turn()
        await second.turn()
    await first.accounts.flush()
    await second.accounts.flush()
    clock.now += budget.FRESH_SECONDS
    assert (await first.accounts.of("ada")).day_nano == (await second.accounts.of("ada")).day_nano == 6 * COST
    restarted = Gateway(records, "c", clock, user_day=10 * COST)
    assert await restarted.turns() == 4


async def test_a_write_whose_answer_was_lost_counts_once() -> None:
    clock, records = Clock(), Away()
    gateway = Gateway(records, "a", clock)
    records.answers_lost = 1
    for _ in range(3):
        await gateway.turn()
    await gateway.accounts.flush()
    await gateway.turn()
    await gateway.accounts.flush()  # the same addition again, as nobody knows that it was done
    await gateway.accounts.flush()
    assert Record.of(await records.read("ada")).day_nano == 4 * COST
    assert (await gateway.accounts.of("ada")).day_nano == 4 * COST


async def test_a_read_shows_that_a_write_was_done() -> None:
    clock, records = Clock(), Away()
    gateway = Gateway(records, "a", clock)
    records.answers_lost = 1
    await gateway.turn()
    await gateway.accounts.flush()
    clock.now += budget.FRESH_SECONDS
    assert (await gateway.accounts.of("ada")).day_nano == COST


async def test_while_the_records_are_away_what_is_known_holds() -> None:
    clock, records = Clock(), Away()
    gateway = Gateway(records, "a", clock, user_day=3 * COST)
    await gateway.turn()
    records.away = True
    clock.now += budget.FRESH_SECONDS
    assert await gateway.turns() == 2
    await gateway.accounts.flush()
    records.away = False
    await gateway.accounts.flush()
    assert Record.of(await records.read("ada")).day_nano == 3 * COST


async def test_records_that_were_never_read_refuse_where_there_is_a_budget() -> None:
    records = Away()
    records.away = True
    with pytest.raises(Refused, match="cannot be looked up now") as refused:
        await Gateway(records, "a", Clock(), user_day=1).metering.admit(request())
    assert refused.value.headers["x-should-retry"] == "true"
    await Gateway(records, "a", Clock()).metering.admit(request())


async def test_records_that_hang_hold_up_no_more_than_the_first_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API server that does not answer: fifty requests wait as long as one."""

    class Hanging(Away):
        async def read(self, user: str) -> str:
            self.reads += 1
            if self.away:
                await asyncio.sleep(60)
            return await MemoryUserRecords.read(self, user)

    monkeypatch.setattr(budget, "READ_SECONDS", 0.2)
    clock, records = Clock(), Hanging()
    gateway = Gateway(records, "a", clock, user_day=NANO)
    await gateway.turn()
    records.away = True
    clock.now += budget.FRESH_SECONDS
    async with asyncio.timeout(5):
        await asyncio.gather(*(gateway.metering.admit(request()) for _ in range(50)))
    assert records.reads == 2
    clock.now += budget.TRY_SECONDS
    records.away = False
    await gateway.metering.admit(request())
    assert records.reads == 3


async def test_a_write_that_hangs_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(MemoryUserRecords):
        async def change(self, user: str, change: Callable[[str], str]) -> str:
            if user != "ada":
                await asyncio.sleep(60)
            return await super().change(user, change)

    monkeypatch.setattr(budget, "READ_SECONDS", 2.0)
    records = Hanging()
    gateway = Gateway(records, "a", Clock())
    for user in ("bob", "eve", "ada"):
        await gateway.turn(Caller(user, (), "default", "sandbox-1", "uid-1", "work"))
    flushing = asyncio.create_task(gateway.accounts.flush())
    async with asyncio.timeout(1):
        while not await records.read("ada"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await flushing


async def test_many_checks_at_once_read_once() -> None:
    records = Away()
    gateway = Gateway(records, "a", Clock(), user_day=NANO)
    await asyncio.gather(*(gateway.metering.admit(request()) for _ in range(50)))
    assert records.reads == 1


async def test_charges_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FLUSH_SECONDS", 0.01)
    clock, records = Clock(), Away()
    gateway = Gateway(records, "a", clock)
    for _ in range(20):
        await gateway.turn()
    running = asyncio.create_task(gateway.accounts.run())
    async with asyncio.timeout(10):
        while not await records.read("ada"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    running.cancel()
    assert records.writes == 1
    (row,) = Record.of(await records.read("ada")).today
    assert (row.requests, row.nano) == (20, 20 * COST)


async def test_charges_after_a_quiet_time_are_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FLUSH_SECONDS", 0.01)
    clock, records = Clock(), Away()
    gateway = Gateway(records, "a", clock)
    running = asyncio.create_task(gateway.accounts.run())

    async def written(nano: int) -> None:
        async with asyncio.timeout(10):
            while Record.of(await records.read("ada")).day_nano < nano:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    for turns in (1, 2):
        await gateway.turn()
        await written(turns * COST)
    clock.now += budget.IDLE_SECONDS + 1
    async with asyncio.timeout(10):
        while "0 users" not in repr(gateway.accounts):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await gateway.turn()
    await written(3 * COST)
    running.cancel()


async def test_what_is_written_has_a_bound() -> None:
    """A Lease may have 256 KiB of annotations, and a user any number of sandboxes and models."""
    clock, records = Clock(), MemoryUserRecords()
    gateway = Gateway(records, "a", clock)
    for number in range(400):
        caller = Caller("ada", (), "default", f"sandbox-{number}", f"uid-{number:032}", f"name-{number}")
        answer = ANSWER.replace(b"claude-opus-4-5", b"claude-opus-4-5@" + b"%080d" % (number % 50))
        await gateway.turn(caller, answer)
        if number % 40 == 0:
            await gateway.accounts.flush()
            gateway = Gateway(records, f"instance-{number:030}", clock)
    await gateway.accounts.flush()
    text = await records.read("ada")
    assert len(text) < 48 * 1024
    assert Record.of(text).day_nano == 400 * COST
