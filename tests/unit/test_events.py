"""Audit events: what reaches the sinks, and that the documents name every code."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import sshgate.telemetry
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import LONGEST_TEXT, Events, Record


def recorded() -> tuple[Events, list[Record]]:
    records: list[Record] = []
    return Events(records.append, clock=lambda: 12.5), records


def test_a_trail_adds_its_fields_to_every_event() -> None:
    events, records = recorded()
    trail = events.context(connection="c1", source="::1").with_fields(user="dev")
    trail.emit(Code.LOGIN, method="publickey", failures=None)
    assert records == [
        Record(
            Code.LOGIN,
            12.5,
            logging.INFO,
            {"connection": "c1", "source": "::1", "user": "dev", "method": "publickey"},
        )
    ]


def test_texts_cannot_move_a_readers_cursor() -> None:
    events, records = recorded()
    events.emit(
        Code.CONNECTION_UNAUTHENTICATED, user='eve\x1b[2J\n{"event": "connection.login"}', reason="\udcff\u202e"
    )
    user, reason = records[0].fields["user"], records[0].fields["reason"]
    assert user == 'eve\\x1b[2J\\n{"event": "connection.login"}'
    assert reason == "\\udcff\\u202e"


def test_long_texts_are_cut() -> None:
    events, records = recorded()
    events.emit(Code.FORWARD_OPEN, target="a" * 100_000)
    assert records[0].fields["target"] == "a" * LONGEST_TEXT + "..."


def test_the_code_decides_how_loud_an_event_is_unless_the_case_does() -> None:
    events, records = recorded()
    events.emit(Code.REAPED)
    events.emit(Code.SESSION_FAILED, level=logging.INFO)
    assert [record.level for record in records] == [logging.WARNING, logging.INFO]


def test_a_sink_that_fails_takes_no_other_down() -> None:
    records: list[Record] = []

    def broken(record: Record) -> None:
        raise OSError("disk full")

    Events(broken, records.append).emit(Code.SERVING)
    assert [record.code for record in records] == [Code.SERVING]


def test_the_readme_names_every_code_and_no_other() -> None:
    text = (Path(sshgate.telemetry.__file__).parent / "README.md").read_text()
    table = text.partition("| code | when |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z_.]+)`", table, re.M) == [code.value for code in Code]
