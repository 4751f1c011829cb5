"""Things that run side by side: who decides, who is cancelled, and whose failure is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sshgate.errors import Unavailable
from sshgate.stream.tasks import Event, TaskSet, all_of, cancel, first_of, within


@pytest.fixture
def reported() -> Iterator[list[dict[str, Any]]]:
    """What the loop's exception handler was given."""
    contexts: list[dict[str, Any]] = []
    yield contexts
    assert all("exception" in context for context in contexts)


def watch(contexts: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: contexts.append(context))


class Cleaning:
    """Waits for ever, and takes its time to end."""

    ended = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.ended = True


async def fail(error: Exception, seconds: float = 0) -> None:
    await asyncio.sleep(seconds)
    raise error


async def fail_when_cancelled(error: Exception) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise error from None


async def test_the_first_decides_and_the_others_have_cleaned_up() -> None:
    other = Cleaning()
    assert await first_of(other.run(), asyncio.sleep(0, "it")) == (1, "it")
    assert other.ended


async def test_of_two_that_end_at_once_the_one_named_first_decides() -> None:
    assert await first_of(asyncio.sleep(0, "a"), asyncio.sleep(0, "b")) == (0, "a")


async def test_a_failure_of_the_first_is_raised_and_one_of_the_others_is_reported(
    reported: list[dict[str, Any]],
) -> None:
    watch(reported)
    with pytest.raises(KeyError):
        await first_of(fail(KeyError("first")), fail_when_cancelled(ValueError("defect")))
    assert [repr(context["exception"]) for context in reported] == ["ValueError('defect')"]


async def test_what_a_gateway_expects_to_fail_is_no_defect(reported: list[dict[str, Any]]) -> None:
    watch(reported)
    assert await first_of(asyncio.sleep(0), fail_when_cancelled(Unavailable("gone"))) == (0, None)
    assert reported == []


async def test_cancelling_it_cancels_all_and_is_not_swallowed() -> None:
    one, two = Cleaning(), Cleaning()
    running = asyncio.create_task(first_of(one.run(), two.run()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert one.ended
    assert two.ended


async def test_waiting_for_a_cancelled_task_does_not_hide_that_the_waiter_is_cancelled() -> None:
    cleaning = asyncio.create_task(Cleaning().run())
    await asyncio.sleep(0)
    waiter = asyncio.create_task(cancel(cleaning))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_a_set_keeps_its_tasks_until_they_end_and_reports_what_fails(reported: list[dict[str, Any]]) -> None:
    watch(reported)
    tasks = TaskSet()
    tasks.start(fail(ValueError("defect")))
    tasks.start(fail(Unavailable("gone")))
    tasks.start(asyncio.sleep(0.01))
    assert len(tasks) == 3
    await tasks.join()
    assert len(tasks) == 0
    assert [repr(context["exception"]) for context in reported] == ["ValueError('defect')"]
    tasks.start(Cleaning().run())
    await asyncio.sleep(0)
    await tasks.cancel()
    assert len(tasks) == 0


async def test_all_end_and_their_results_are_in_the_order_given() -> None:
    assert await all_of(asyncio.sleep(0.01, "slow"), asyncio.sleep(0, "quick")) == ["slow", "quick"]


async def test_the_first_that_fails_cancels_the_others_and_its_own_error_is_raised() -> None:
    other = Cleaning()
    with pytest.raises(Unavailable, match="it"):
        await all_of(other.run(), fail(Unavailable("it")), fail_when_cancelled(KeyError("later")))
    assert other.ended


async def test_cancelling_all_of_them_cancels_each() -> None:
    other = Cleaning()
    both = asyncio.create_task(all_of(other.run(), asyncio.sleep(60)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert other.ended


async def test_an_event_wakes_all_that_wait_and_then_lets_everyone_pass() -> None:
    event = Event()
    waiting = [asyncio.create_task(event.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    event.set()
    event.clear()
    await asyncio.gather(*waiting)  # cleared before they ran again
    event.set()
    await event.wait()
    assert event.is_set()


async def test_a_wait_for_an_event_that_is_cancelled_leaves_the_others_waiting() -> None:
    event = Event()
    first, second = (asyncio.create_task(event.wait()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert repr(event) == "<Event unset, 1 waiting>"
    event.set()
    await second
    assert repr(event) == "<Event set, 0 waiting>"


async def test_what_does_not_end_in_time_is_cancelled_and_has_cleaned_up() -> None:
    cleaning = Cleaning()
    assert not await within(0.01, cleaning.run())
    assert cleaning.ended
    assert await within(5, asyncio.sleep(0))
    with pytest.raises(Unavailable):
        await within(5, fail(Unavailable("gone")))


async def test_a_set_that_is_cancelled_does_not_wait_for_what_is_started_meanwhile() -> None:
    tasks = TaskSet()

    async def start_another() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            tasks.start(asyncio.sleep(60))

    tasks.start(start_another())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.cancel()
