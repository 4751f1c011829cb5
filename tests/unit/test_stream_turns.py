"""Budgets of work: no peer has more than its share of a turn, nor all of them together more than the turn."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from sshgate.stream.turns import AT_ONCE, GATHER, GATHER_MOST, LATELY, LITTLE, SHARE, TURN, Budget, Turns, budget

PIECE = 0.0001


class Clock:
    """A clock that work moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Loop:
    """Counts the turns of a real loop, and what each peer had of each."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = Turns(asyncio.get_running_loop(), self.clock)
        self.turn = 0
        self.used: Counter[tuple[int, str]] = Counter()
        asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        self.turn += 1
        asyncio.get_running_loop().call_soon(self._count)

    def work(self, name: str, seconds: float = PIECE) -> None:
        self.clock.now += seconds
        self.used[self.turn, name] += round(seconds * 1e6)

    def per_turn(self) -> Counter[int]:
        total: Counter[int] = Counter()
        for (turn, _), used in self.used.items():
            total[turn] += used
        return total


class Peer:
    """A source of pieces of work, each of which takes ``PIECE``."""

    def __init__(self, loop: Loop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.pieces = 0
        self.done_in: list[int] = []
        self.calls: list[str] = []
        pause, resume = partial(self.calls.append, "pause"), partial(self.calls.append, "resume")
        self.budget = Budget(loop.turns, self._work, pause, resume, ignore)

    def send(self, pieces: int) -> None:
        self.pieces += pieces
        self.budget.schedule()

    def _work(self) -> bool:
        while self.pieces:
            self.pieces -= 1
            self.loop.work(self.name)
            self.done_in.append(self.loop.turn)
            if self.budget.exhausted():
                break
        return self.pieces > 0


def plain(loop: Loop) -> Budget:
    """A budget for coroutines."""
    return Budget(loop.turns, lambda: False, ignore, ignore, ignore)


def ignore(*_: object) -> None:
    """Do nothing."""


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_little_is_worked_off_at_once_and_nobody_is_paused() -> None:
    loop = Loop()
    peer = Peer(loop, "a")
    for _ in range(5):
        peer.send(3)
        assert peer.pieces == 0
        await turns(2)
    assert not peer.calls


async def test_a_flood_has_its_share_of_each_turn_and_is_paused_meanwhile() -> None:
    loop = Loop()
    peer = Peer(loop, "a")
    peer.send(100)
    assert peer.calls == ["pause"]
    assert len(peer.done_in) == pytest.approx(SHARE / PIECE, abs=1)
    await turns(12)
    assert not peer.pieces
    assert peer.calls == ["pause", "resume"]
    assert max(loop.used.values()) <= round((SHARE + PIECE) * 1e6)


async def test_fifty_floods_together_have_one_turn() -> None:
    loop = Loop()
    peers = [Peer(loop, str(number)) for number in range(50)]
    for peer in peers:
        peer.send(200)
    await turns(300)
    assert not any(peer.pieces for peer in peers)
    assert max(loop.per_turn().values()) <= round((TURN + AT_ONCE + PIECE) * 1e6)


async def test_floods_come_on_at_the_same_pace() -> None:
    loop = Loop()
    peers = [Peer(loop, str(number)) for number in range(10)]
    for peer in peers:
        peer.send(1000)
    await turns(60)
    done = [len(peer.done_in) for peer in peers]
    assert min(done) > 100
    assert max(done) - min(done) <= 2 * SHARE / PIECE


async def test_who_has_used_little_does_not_wait_for_those_who_flood() -> None:
    loop = Loop()
    for number in range(20):
        Peer(loop, str(number)).send(100_000)
    typist = Peer(loop, "typist")
    for _ in range(50):
        await turns(3)
        before = loop.turn
        typist.send(1)
        await turns(2)
        assert typist.done_in[-1] - before <= 1


async def test_those_who_use_little_share_what_there_is_besides() -> None:
    loop = Loop()
    Peer(loop, "flood").send(100_000)
    await turns(3)
    many = [Peer(loop, str(number)) for number in range(1000)]
    for peer in many:
        peer.send(1)
    await turns(60)
    assert not any(peer.pieces for peer in many)
    assert max(loop.per_turn().values()) <= round((TURN + AT_ONCE + 2 * PIECE) * 1e6)


async def test_use_is_forgotten() -> None:
    loop = Loop()
    for number in range(5):
        Peer(loop, str(number)).send(1_000_000)
    peer = Peer(loop, "a")
    peer.send(400)
    await turns(100)
    assert not peer.pieces
    peer.send(1)
    assert peer.pieces, "has used much, so it waits"
    await turns(5)
    loop.clock.now += LATELY * math.log(0.1 / LITTLE)
    before = loop.turn
    peer.send(1)
    assert peer.done_in[-1] == before


async def test_what_costs_more_than_a_share_is_paid_by_the_turns_that_follow() -> None:
    loop = Loop()
    peer = Peer(loop, "a")
    peer.send(1)
    peer.budget.charge(5 * SHARE)
    other = Peer(loop, "b")
    peer.send(1)
    other.send(200)
    assert peer.pieces
    await turns(4)
    assert peer.pieces
    assert len(other.done_in) > 3 * SHARE / PIECE
    await turns(6)
    assert not peer.pieces


async def test_a_price_ends_the_share() -> None:
    loop = Loop()

    def work() -> bool:
        loop.work("a")
        bud.charge(SHARE)
        return bud.exhausted()

    bud = Budget(loop.turns, work, ignore, ignore, ignore)
    bud.schedule()
    assert list(loop.used.values()) == [round(PIECE * 1e6)]


async def test_steps_of_a_coroutine_have_the_same_share() -> None:
    loop = Loop()
    done: list[str] = []

    def steps(name: str) -> Iterator[None]:
        for _ in range(100):
            loop.work(name)
            yield
        done.append(name)

    names = [str(number) for number in range(10)]
    await asyncio.gather(*(plain(loop).run(steps(name)) for name in names))
    assert sorted(done) == names
    assert max(loop.used.values()) <= round((SHARE + PIECE) * 1e6)
    # Those that were let go in one turn work in the next, besides those who may at once.
    assert max(loop.per_turn().values()) <= round((2 * TURN + AT_ONCE + SHARE) * 1e6)


async def test_steps_that_fail_say_so_and_leave_the_others_alone() -> None:
    loop = Loop()
    bud = plain(loop)

    def steps() -> Iterator[None]:
        for _ in range(50):
            loop.work("a")
            yield
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await bud.run(steps())
    ran: list[int] = []

    def three() -> Iterator[None]:
        for one in range(3):
            ran.append(one)
            yield

    await bud.run(three())
    assert ran == [0, 1, 2]


async def test_who_pays_afterwards_waits_until_there_is_time_for_as_much() -> None:
    loop = Loop()

    async def write(name: str) -> None:
        bud = plain(loop)
        for _ in range(30):
            loop.work(name, 10 * PIECE)
            await bud.charge_and_wait(10 * PIECE)

    await asyncio.gather(*(write(str(number)) for number in range(20)))
    per_turn = loop.per_turn()
    first = min(per_turn)
    assert max(used for turn, used in per_turn.items() if turn > first + 1) <= round((2 * TURN + AT_ONCE) * 1e6)


async def test_a_flood_does_not_keep_its_own_peer_from_being_answered() -> None:
    loop = Loop()
    peer = Peer(loop, "a")
    peer.send(1_000_000)
    for _ in range(20):
        before = loop.turn
        await peer.budget.charge_and_wait(PIECE)
        assert loop.turn - before <= 4


async def test_a_peer_that_has_gone_holds_up_nobody() -> None:
    loop = Loop()
    peer = Peer(loop, "a")
    peer.send(1000)
    waiting = asyncio.ensure_future(peer.budget.charge_and_wait(1.0))
    cancelled = asyncio.ensure_future(peer.budget.charge_and_wait(1.0))
    await turns(2)
    cancelled.cancel()
    await turns(2)
    left = peer.pieces
    peer.budget.close()
    await turns(3)
    assert waiting.done()
    assert cancelled.cancelled()
    assert peer.pieces == left


@pytest.mark.parametrize("later", [False, True], ids=["at once", "in a later turn"])
async def test_work_that_fails_ends_its_own_peer_alone(later: bool) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    loop, calls = Loop(), []
    error = RuntimeError("broken")

    def work() -> bool:
        calls.append("work")
        raise error

    worse = Budget(
        loop.turns, work, lambda: calls.append("pause"), lambda: calls.append("resume"), lambda _: calls.append("abort")
    )
    other = Peer(loop, "other")
    if later:
        worse.charge(2 * SHARE)
    worse.schedule()
    other.send(100)
    await turns(20)
    assert calls == ["pause"] * later + ["work", "abort"]
    assert reported == [error]
    assert not other.pieces
    worse.schedule()
    await turns(3)
    assert calls[-1] == "abort"


async def test_a_callback_that_fails_leaves_the_others_their_turn() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    loop, error = Loop(), RuntimeError("broken")
    left = iter([True, False])

    def work() -> bool:
        loop.work("worse", SHARE)
        return next(left)

    def resume() -> None:
        raise error

    worse = Budget(loop.turns, work, ignore, resume, ignore)
    await worse.charge_and_wait(10 * SHARE)
    # It has used less, so it goes first; but it has nothing left of the turn in which the other one fails.
    other = Peer(loop, "other")
    other.budget.charge(3 * SHARE)
    other.send(3)
    worse.schedule()
    of_worse = asyncio.ensure_future(worse.charge_and_wait(SHARE))
    await turns(30)
    assert reported == [error]
    assert not other.pieces
    assert of_worse.done()


async def test_what_comes_during_work_is_worked_off_as_well() -> None:
    loop = Loop()
    peer = Peer(loop, "a")
    output = iter(range(3))

    def steps() -> Iterator[None]:
        for _ in output:
            peer.send(1)
            yield

    await peer.budget.run(steps())
    await turns(3)
    assert not peer.pieces


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_budgets_of_one_loop_share_its_turns(kind: str) -> None:
    factory = pytest.importorskip("uvloop").new_event_loop if kind == "uvloop" else None

    async def check() -> None:
        first, second = budget(), budget(loop=asyncio.get_running_loop())
        assert first._turns is second._turns
        await first.run(iter(range(1000)))

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(check())


async def test_small_messages_are_gathered_for_longer_the_more_all_peers_are_sent() -> None:
    loop = Loop()
    one, other = (Peer(loop, name).budget for name in "ab")
    assert one.gather() == pytest.approx(GATHER)
    loop.clock.now += GATHER
    assert other.gather() == pytest.approx(GATHER), "it was quiet since"
    assert one.gather() == pytest.approx(2 * GATHER)
    for _ in range(100):
        assert GATHER < other.gather() <= GATHER_MOST + 1e-9
