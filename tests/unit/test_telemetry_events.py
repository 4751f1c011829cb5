"""Audit events: what reaches the sinks, and that the documents name every code."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

import pytest

import sshgate.telemetry
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EACH, LONGEST_TEXT, TOTAL, Events, Record, Stranger
from tests.hostile.polling import until


def recorded() -> tuple[Events, list[Record]]:
    records: list[Record] = []
    return Events(records.append, clock=lambda: 12.5), records


def test_a_trail_adds_its_fields_to_every_event() -> None:
    events, records = recorded()
    context = events.context(connection="c1", source="::1").with_fields(user="dev")
    context.emit(Code.LOGIN, method="publickey", failures=None)
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


async def test_strangers_are_heard_so_often_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshgate.telemetry.events.MINUTE", 0.05)
    records: list[Record] = []
    counted: list[Record] = []
    events = Events(records.append, counter=counted.append)
    context = events.context(connection="c")
    for number in range(100):
        context.emit(Code.CONNECTION_LIMIT, stranger=Stranger("192.0.2.1"))
        context.emit(Code.WEB_MALFORMED, stranger=Stranger("192.0.2.1", 1))
        events.emit(Code.WEB_REFUSED, stranger=Stranger(f"2001:db8:{number // 2}::/48"))
        # Users are never left out.
        events.emit(Code.CONNECTION_LIMIT, user="dev")
    for number in range(2000):
        events.emit(Code.CONNECTION_UNAUTHENTICATED, stranger=Stranger(f"2001:db8:{number:x}::/48"))
    passed = Counter(record.code for record in records if "user" not in record.fields)
    assert passed == {
        Code.CONNECTION_LIMIT: EACH, Code.WEB_MALFORMED: 1, Code.WEB_REFUSED: 100,
        Code.CONNECTION_UNAUTHENTICATED: TOTAL,
    }  # fmt: skip
    assert [record.fields.get("user") for record in records].count("dev") == 100
    assert len(counted) == 2400
    await until(lambda: records[-1].code is Code.EVENTS_OMITTED)
    omitted = {record.fields["code"]: record.fields["count"] for record in records[-3:]}
    assert omitted == {
        "connection.limit": 100 - EACH, "web.malformed": 99, "connection.unauthenticated": 2000 - TOTAL
    }  # fmt: skip


def test_the_readme_names_every_code_and_no_other() -> None:
    text = (Path(sshgate.telemetry.__file__).parent / "README.md").read_text()
    table = text.partition("| code | when |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z_.]+)`", table, re.M) == [code.value for code in Code]


def test_the_readme_explains_every_warning_of_the_log() -> None:
    package = Path(sshgate.telemetry.__file__).parents[1]
    section = (package / "telemetry/README.md").read_text().partition("## Warnings in the log")[2].partition("\n## ")[0]
    explained = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", section))
    sources = [*package.rglob("*.py"), *package.with_name("webshim").glob("*.py")]
    lines = (re.findall(r'log\.(?:warning|error|exception)\(\s*"([a-z_.]+)"', path.read_text()) for path in sources)
    logged = {name for names in lines for name in names if not name.endswith("broken") or name == "relay.broken"}
    assert "worker.hung" in logged
    assert logged - explained == set()
    assert {name for name in explained if not name.startswith(("ssh.", "web.", "broker.", "sandbox."))} <= logged
