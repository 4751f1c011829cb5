"""Carrying out a claim: what is asked of the API server, and what becomes of a claim that is cut short."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sshgate.config.model import Limits
from sshgate.errors import Unavailable
from sshgate.lifecycle.claim import ClaimAttempt
from sshgate.lifecycle.records import Record, State
from sshgate.lifecycle.registry import Registry
from sshgate.lifecycle.requests import Answer, Claim, Create, Delete, Patch
from tests.unit.lifecycle_values import at, warm

CLAIM = Claim("ada", "s1", "gw", "me", 3600)


class Pods:
    """An API server for warm pods: ``answers`` are given in turn, ``None`` grants the patch."""

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.slow: asyncio.Event | None = None
        self.owned: set[str] = set()

    async def patch(self, name: str, patch: Patch) -> Record | Answer:
        self.asked.append(f"patch {name}")
        if self.slow is not None:
            await self.slow.wait()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            return answer
        self.owned.add(name)
        return self._pod(name)

    async def look(self, name: str) -> Record | Answer:
        self.asked.append(f"look {name}")
        return self._pod(name)

    async def make(self, create: Create) -> Record:
        raise AssertionError("a claim makes nothing")

    async def delete(self, delete: Delete) -> Answer | None:
        raise AssertionError("what is discarded is told, not deleted here")

    def _pod(self, name: str) -> Record:
        pod = warm(name.removeprefix("p-"), version="2")
        if name not in self.owned:
            return pod
        return replace(pod, state=State.CLAIMED, session="s1", instance="me")


def world(pods: Pods, *uids: str) -> tuple[Registry, ClaimAttempt]:
    registry = Registry("me", Limits(), pods, lambda: at(0))
    registry.replace([warm(uid, created=at(0).wall - 100 + number) for number, uid in enumerate(uids)])
    registry.admit("ada", "s1")
    return registry, ClaimAttempt(registry.cache, CLAIM, "t1", 0, ["me"])


def nothing(delete: Delete) -> None:
    raise AssertionError(f"discarded: {delete}")


async def test_a_warm_sandbox_costs_one_request() -> None:
    pods = Pods()
    registry, claiming = world(pods, "a", "b")
    won = await registry.claim(claiming, nothing)
    assert won is not None
    assert pods.asked == [f"patch {won.name}"]


async def test_a_lost_race_is_the_next_sandbox_and_an_empty_pool_is_none() -> None:
    pods = Pods(Answer.REFUSED, Answer.MISSING)
    registry, claiming = world(pods, "a", "b")
    assert await registry.claim(claiming, nothing) is None
    assert pods.asked == ["patch p-a", "patch p-b"]


async def test_without_an_answer_the_same_sandbox_is_looked_at_before_any_other() -> None:
    pods = Pods(Answer.UNKNOWN)
    registry, claiming = world(pods, "a", "b")
    won = await registry.claim(claiming, nothing)
    assert won is not None
    assert pods.asked == ["patch p-a", "look p-a", "patch p-a"]


async def test_an_api_server_that_never_answers_is_reported_as_away() -> None:
    pods = Pods(*[Answer.UNKNOWN] * 20)
    registry, claiming = world(pods, "a")
    with pytest.raises(Unavailable):
        await registry.claim(claiming, nothing)


async def test_a_claim_that_is_cut_short_waits_for_its_answer_and_gives_up_what_it_won() -> None:
    """Else the pod would be kept from everybody for as long as the patch might still arrive."""
    pods, discarded = Pods(), list[Delete]()
    pods.slow = asyncio.Event()
    registry, claiming = world(pods, "a")
    task = asyncio.create_task(registry.claim(claiming, discarded.append))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    pods.slow.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.record.name for one in discarded] == ["p-a"]
