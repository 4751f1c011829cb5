"""Pods as values, books and refillers, for the tests of the decisions."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

from sshgate.lifecycle.cache import PodCache
from sshgate.lifecycle.clocks import Now
from sshgate.lifecycle.pool_plan import Action, Refiller
from sshgate.lifecycle.records import Record, Stage, State
from sshgate.lifecycle.requests import Create, Delete
from sshgate.lifecycle.schema import user_hash

START = 1_000_000.0


async def nothing_attached(_: object) -> None:
    """For a ``Parking`` of which nothing is asked."""


def at(seconds: float) -> Now:
    return Now(START + seconds, seconds)


def warm(uid: str, template: str = "t1", stage: Stage = Stage.READY, node: str | None = "n1", **more: Any) -> Record:
    values: dict[str, Any] = {
        "name": f"p-{uid}", "uid": uid, "version": "1", "profile": "default", "template": template,
        "stage": stage, "node": node, "ip": "10.0.0.1", "created": START - 100,
    }  # fmt: skip
    return Record(**{**values, **more})


def claimed(uid: str, user: str = "ada", session: str = "s", **more: Any) -> Record:
    whose: dict[str, Any] = {
        "user": user,
        "user_hash": user_hash(user),
        "session": session,
        "instance": "me",
        "claimed_at": START,
    }
    return warm(uid, state=State.CLAIMED, **{**whose, **more})


def book(*records: Record) -> PodCache:
    made = PodCache("me")
    made.sync(records, at(0))
    return made


def refiller() -> Refiller:
    numbers = count()
    return Refiller(lambda: str(next(numbers)), lambda: 0.5)


def kinds(actions: list[Action]) -> Counter[str]:
    return Counter(type(action).__name__ for action in actions)


def follow(known: PodCache, actions: list[Action], now: Now) -> None:
    """Carry out: what is created is ready at once, what is deleted is gone."""
    for action in actions:
        if isinstance(action, Create):
            known.observe(warm(action.name, action.template, name=action.name), now)
        elif isinstance(action, Delete):
            known.gone(action.record.uid, now)
