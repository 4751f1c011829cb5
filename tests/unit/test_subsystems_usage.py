"""The subsystems `usage` and `egress`, as users read them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence

import pytest

from sshgate.access.identity import Identity, LoginName
from sshgate.broker.egress_counts import Destination
from sshgate.broker.usage import Record, Row
from sshgate.errors import BadRequest
from sshgate.session.subsystems.egress import add_egress_to, size
from sshgate.session.subsystems.registry import SubsystemHandlers
from sshgate.session.subsystems.usage import add_usage_to, money, thousands
from sshgate.stream.interfaces import Request, Subsystem
from sshgate.telemetry.events import Events

SPENT = Record(
    "2026-11-29",
    "2026-11",
    [Row("work", "claude-opus-4-5", 3, 1200, 400_000, 0, 5000, 2_500_000_000)],
    [
        Row("-", "claude-haiku-4-5", 1, 10, 0, 0, 2, 20_000, 1),
        Row("work", "claude-opus-4-5", 30, 12_000_000, 400_000, 0, 5000, 25_000_000_000),
    ],
)


async def answer(command: str, record: Record = SPENT, prices: str = "2026-11-01") -> str:
    subsystems = SubsystemHandlers()

    async def spent(user: str) -> Record:
        assert user == "ada"
        return record

    async def connected(user: str, name: str | None) -> Mapping[str, Sequence[Destination]]:
        assert (user, name) == ("ada", "work")
        return {"work": [Destination("a.example", 443, None, 3, 2048, 0, 940.0),
                         Destination("evil.example", 443, "not listed", 1, 0, 0, 1000.0)]}  # fmt: skip

    add_usage_to(subsystems, spent, lambda: datetime.date.fromisoformat(prices))
    add_egress_to(subsystems, connected, lambda: 1000.0)
    identity = Identity(LoginName("ada", name="work"), "publickey", "SHA256:x", "192.0.2.1")
    text = await subsystems.answer(identity, Request(Subsystem(command)), Events().context())
    assert text is not None
    return text


async def test_usage_is_two_tables_with_sums() -> None:
    assert await answer("usage") == (
        "today (UTC): $2.50 for 3 requests\n"
        "SANDBOX  MODEL            REQUESTS  INPUT  CACHED  WRITTEN  OUTPUT  USD\n"
        "work     claude-opus-4-5  3         1200   400k    0        5000    $2.50\n"
        "\n"
        "this month (UTC): $25.00 for 31 requests\n"
        "SANDBOX  MODEL             REQUESTS  INPUT  CACHED  WRITTEN  OUTPUT  USD\n"
        "work     claude-opus-4-5   30        12.0M  400k    0        5000    $25.00\n"
        "-        claude-haiku-4-5  1         10     0       0        2       ~$0.0000\n"
        "\n"
        "By the prices of 2026-11-01. `~`: partly estimated.\n"
    )


async def test_usage_says_when_prices_are_old_and_when_nothing_was_spent() -> None:
    assert "They are old" in await answer("usage", prices="2026-08-01")
    assert await answer("usage", Record()) == "you have spent nothing on models this month.\n"


async def test_what_a_program_calls_its_model_does_nothing_to_a_terminal() -> None:
    rows = [Row("work", "claude-\x1b]0;x\x07\nwork  claude", 1, 2, 0, 0, 2, 20_000)]
    text = await answer("usage", Record("2026-11-29", "2026-11", [], rows))
    assert "work     claude-\\x1b]0;x\\x07\\nwork  claude  1 " in text
    assert all(line.isprintable() for line in text.split("\n"))


async def test_usage_as_json() -> None:
    value = json.loads(await answer("usage --json"))
    assert value["today"]["usd"] == 2.5
    assert value["this_month"]["requests"] == 31
    assert value["this_month"]["by"][0]["estimated_requests"] == 1
    assert (value["day"], value["month"], value["prices"]) == ("2026-11-29", "2026-11", "2026-11-01")


async def test_egress_is_a_table() -> None:
    assert await answer("egress") == (
        "SANDBOX  HOST          PORT  TIMES  RESULT               SENT  RECEIVED  LAST\n"
        "work     a.example     443   3      allowed              2Ki   -         1m\n"
        "work     evil.example  443   1      refused: not listed  -     -         0s\n"
    )
    (first, second) = json.loads(await answer("egress --json"))
    assert (first["sandbox"], first["host"], first["refused"], first["count"]) == ("work", "a.example", None, 3)
    assert second["refused"] == "not listed"


@pytest.mark.parametrize("command", ["usage --xml", "egress all"])
async def test_other_arguments_are_refused(command: str) -> None:
    with pytest.raises(BadRequest):
        await answer(command)


def test_amounts_and_sizes_are_short() -> None:
    assert [money(nano) for nano in (0, 1, 50_000_000, 1_234_567_890)] == ["$0.00", "$0.0000", "$0.0500", "$1.23"]
    assert [thousands(count) for count in (9999, 10_000, 12_345_678)] == ["9999", "10k", "12.3M"]
    assert [size(count) for count in (0, 1, 1500, 5 << 30)] == ["-", "1B", "1Ki", "5Gi"]
