"""The answers of a resident in hostile hands: whatever they are, they are read or refused as no resident's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from sshgate.hold.answers import joined_of, outcome_of, state_of
from sshgate.sandbox.framing import ProtocolError

PAST = {"id": "b" * 16, "name": "old", "program": "make", "status": ["exit", 0]}
JOINED = {"name": "1", "id": "a" * 16, "pid": 42, "made": True, "received": 0, "offset": 0, "past": [PAST]}


def with_past(key: str) -> bytes:
    return json.dumps({**JOINED, "past": [{**PAST, key: "DEEP"}]}).encode()


@pytest.mark.parametrize(
    ("read", "payload"),
    [
        (joined_of, with_past("program")),
        (joined_of, with_past("status")),
        (joined_of, with_past("name")),
        (state_of, b'{"size": [80, 24], "watchers": ["DEEP"]}'),
        (outcome_of, b'["exit", "DEEP"]'),
    ],
    ids=["a program", "a status", "a name", "a watcher", "an outcome"],
)
def test_values_that_are_nested_as_deep_as_can_be_parsed_are_refused(
    read: Callable[[bytes], object], payload: bytes
) -> None:
    for depth in range(1, sys.getrecursionlimit() + 10):
        with pytest.raises(ProtocolError):
            read(payload.replace(b'"DEEP"', b"[" * depth + b"]" * depth))


def test_what_a_resident_sends_is_read() -> None:
    (past,) = joined_of(json.dumps(JOINED).encode()).past
    assert (past.program, past.ending) == ("make", "status 0")
    assert state_of(b'{"size": [80, 24], "watchers": ["192.0.2.7"]}').watchers == ("192.0.2.7",)
