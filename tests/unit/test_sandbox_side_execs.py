"""Execs made on the side: few, whatever is asked for, and none of one user's at another's cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sshgate.errors import StartFailed, Unavailable
from sshgate.providers.kubernetes.exec.queue import PER_POD, StartSlots
from sshgate.sandbox.shares import Shares
from sshgate.sandbox.side_execs import COLLECT_SECONDS, ExecLimits, SideExecs
from sshgate.sandbox.side_scripts import FEW
from sshgate.stream.interfaces import STDOUT, Process
from sshgate.stream.tasks import cancel
from sshgate.stream.terminal import Terminal
from tests.rig.ends import TestProcess


class Pod:
    """A sandbox whose scripts answer when they are let go; ``run`` are the words that each was given."""

    def __init__(self, answer: bytes | None = b".\n", free: bool = False) -> None:
        self.run: list[list[str]] = []
        self.scripts: list[TestProcess] = []
        self.running = 0
        self.answer = answer
        self.free = asyncio.Event()
        if free:
            self.free.set()

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> Process:
        self.run.append(argv[3].split())
        if self.answer is None:
            raise Unavailable("no.")
        script = TestProcess()
        self.scripts.append(script)
        self.running += 1
        self._script = asyncio.create_task(self._answer(script))
        return script

    async def _answer(self, script: TestProcess) -> None:
        await self.free.wait()
        self.running -= 1
        script.output.put(self.answer or b"", STDOUT)
        script.output.put_eof()


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_pending_signals_are_a_set_and_one_exec_sends_them_all() -> None:
    pod = Pod()
    aside = SideExecs(pod.start, ExecLimits(), "dev")
    for _ in range(160):
        aside.signal(7, "USR1", foreground=False)
        await settled()
    aside.signal(7, "TERM", foreground=False)
    aside.signal(8, "INT", foreground=True)
    aside.signal(8, "nonsense", foreground=True)
    await settled()
    assert pod.run == [["g7:USR1"]]
    pod.free.set()
    await settled()
    assert pod.run == [["g7:USR1"], ["g7:USR1", "g7:TERM", "f8:INT"]]


async def test_sessions_that_end_together_are_hung_up_together() -> None:
    pod = Pod(free=True)
    aside = SideExecs(pod.start, ExecLimits(), "dev")
    async with asyncio.timeout(10):
        await asyncio.gather(*(aside.hang_up(pid) for pid in range(100)))
    assert pod.run == [[str(pid) for pid in range(100)]]


@pytest.mark.parametrize(("count", "sent"), [(FEW, b""), (FEW + 1, b"\n")])
async def test_many_end_while_nothing_is_started(count: int, sent: bytes) -> None:
    pod = Pod(free=True)
    starts = StartSlots(ExecLimits())
    aside = SideExecs(pod.start, ExecLimits(), "dev", starts.alone)
    turn = await starts.take("node", "dev", 1)
    hangups = asyncio.gather(*(aside.hang_up(pid) for pid in range(count)))
    async with asyncio.timeout(10):
        await asyncio.sleep(2 * COLLECT_SECONDS)
        assert (hangups.done(), bytes(pod.scripts[0].sent)) == (count <= FEW, b"")
        if count > FEW:
            with pytest.raises(StartFailed):
                await starts.take("node", "dev", 0.01)
        turn.end()
        await hangups
        assert bytes(pod.scripts[0].sent) == sent
        turns = [await starts.take("node", "dev", 1) for _ in range(PER_POD)]
    for one in turns:
        one.end()


async def test_a_hang_up_does_not_wait_for_one_that_takes_long() -> None:
    pod = Pod()
    aside = SideExecs(pod.start, ExecLimits(), "dev")
    hangups = []
    for pid in range(3):
        hangups.append(asyncio.create_task(aside.hang_up(pid)))
        await asyncio.sleep(0.1)
    assert pod.run == [["0"], ["1"]]
    pod.free.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*hangups)
    assert pod.run[2:] == [["2"]]


async def test_looks_are_answered_each_for_itself() -> None:
    pod = Pod(b"2\n.\n", free=True)
    aside = SideExecs(pod.start, ExecLimits(), "dev")
    assert [*await asyncio.gather(aside.busy(1), aside.busy(2))] == [False, True]
    assert [*await asyncio.gather(aside.gone(1), aside.gone(2))] == [False, True]
    assert await aside.alive()


@pytest.mark.parametrize("answer", [None, b"", b"2\n", b"2 " * 10_000])
async def test_what_cannot_be_found_out_keeps_what_runs(answer: bytes | None) -> None:
    """The exec failed, its answer was cut, or the sandbox says more than any script of ours."""
    aside = SideExecs(Pod(answer, free=True).start, ExecLimits(), "dev")
    assert await aside.busy(2)
    assert await aside.anything()
    assert not await aside.gone(2)
    assert not await aside.alive()


async def test_who_stops_waiting_ends_nobody_elses_answer() -> None:
    pod = Pod(b"2\n.\n")
    aside = SideExecs(pod.start, ExecLimits(), "dev")
    first, second = (asyncio.create_task(aside.gone(2)) for _ in range(2))
    await settled()
    first.cancel()
    pod.free.set()
    assert await second
    assert len(pod.run) == 1


async def test_users_that_block_every_script_keep_nobody_waiting() -> None:
    """A user can stop every script of ours that runs in a sandbox; others are served meanwhile."""
    limits = ExecLimits()

    def ask(user: str, count: int) -> list[Pod]:
        pods = [Pod() for _ in range(count)]
        for pod in pods:
            SideExecs(pod.start, limits, user).signal(7, "TERM", foreground=False)
        return pods

    def running(pods: list[Pod]) -> int:
        return sum(pod.running for pod in pods)

    stopped = ask("mallory", 20)
    await settled()
    assert running(stopped) == 4
    accomplices = [pod for user in range(8) for pod in ask(f"mallory{user}", 20)]
    await settled()
    assert running(stopped) + running(accomplices) < 32
    others = [pod for user in range(4) for pod in ask(f"dev{user}", 1)]
    await settled()
    assert running(others) == 4
    many = [pod for user in range(20) for pod in ask(f"user{user}", 2)]
    await settled()
    everybody = [*stopped, *accomplices, *others, *many]
    assert running(everybody) == 32
    for pod in everybody:
        pod.free.set()
    await settled()
    assert sum(len(pod.run) for pod in everybody) == len(everybody)


async def test_who_holds_fewest_places_is_next_and_a_cancelled_wait_holds_none() -> None:
    shares = Shares(total=2, most=2)
    assert shares.take("one")
    assert shares.take("one")
    served: list[str] = []

    async def hold(user: str) -> None:
        async with shares.hold(user):
            served.append(user)
            await asyncio.Event().wait()

    waiting = [asyncio.create_task(hold(user)) for user in ("one", "two", "three")]
    await settled()
    shares.release("one")
    waiting[1].cancel()  # it was just given the place
    await settled()
    assert served == ["three"]
    shares.release("one")
    await settled()
    assert served == ["three", "one"]
    await cancel(*waiting)
    assert repr(shares) == "<Shares 0/2 held, 0 waiting>"


async def test_a_place_becomes_free_in_the_turn_in_which_a_wait_for_it_is_cancelled() -> None:
    shares = Shares(total=1, most=1)

    async def hold() -> None:
        async with shares.hold("two"):
            pass

    async with shares.hold("one"):
        waiting = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert repr(shares) == "<Shares 0/1 held, 0 waiting>"


async def test_a_user_with_many_starts_on_a_node_keeps_no_other_waiting() -> None:
    """However many pods the user has there; of two who wait with equally many, each is served in turn."""
    limits = ExecLimits()
    began: list[str] = []
    free = asyncio.Event()

    async def start(pod: StartSlots, user: str) -> None:
        turn = await pod.take("node", user, 10)
        began.append(user)
        await free.wait()
        await asyncio.sleep(0.01)
        turn.end()

    pods = [StartSlots(limits) for _ in range(8)]
    many = [asyncio.create_task(start(pod, "many")) for pod in pods for _ in range(PER_POD)]
    await settled()
    one = asyncio.create_task(start(StartSlots(limits), "one"))
    await settled()
    assert began[-1] == "one"
    free.set()
    async with asyncio.timeout(10):
        await asyncio.gather(one, *many)
    assert len(began) == len(many) + 1


async def test_users_who_hold_equally_many_places_take_turns() -> None:
    shares = Shares(total=1, most=1)
    served: list[str] = []

    async def hold(user: str) -> None:
        async with shares.hold(user):
            served.append(user)

    async with shares.hold("many"), asyncio.timeout(10):
        waiting = [asyncio.create_task(hold("many")) for _ in range(20)]
        await settled()
        waiting += [asyncio.create_task(hold(user)) for user in ("one", "other", "one")]
        await settled()
    await asyncio.gather(*waiting)
    assert served[:5] == ["many", "one", "other", "many", "one"]
    assert repr(shares) == "<Shares 0/1 held, 0 waiting>"
