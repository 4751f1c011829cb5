"""The subsystem `usage`: what a user has spent on models, today and this month, by sandbox and model."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import date

from sshgate.broker.prices import NANO
from sshgate.broker.usage import Record, Row, totals
from sshgate.session.subsystems.registry import LISTS, SubsystemHandlers, SubsystemRequest
from sshgate.session.subsystems.sandboxes import table

# Days after which prices are old enough to be pointed at.
OLD_DAYS = 90


def add_usage_to(
    subsystems: SubsystemHandlers, record: Callable[[str], Awaitable[Record]], prices_of: Callable[[], date]
) -> None:
    """Register the subsystem.

    Args:
        record: Returns what a user has spent; raises ``GateError``.
        prices_of: Returns the day of the prices in use.
    """

    async def usage(request: SubsystemRequest) -> str:
        found = await record(request.identity.user)
        return usage_json(found, prices_of()) if request.as_json else usage_text(found, prices_of())

    subsystems.add("usage", usage, "what you have spent on models, today and this month", takes=LISTS)


def usage_text(record: Record, prices: date) -> str:
    """Return two tables, with their sums."""
    if not record.this_month:
        return "you have spent nothing on models this month.\n"
    parts = []
    for heading, rows in (("today", record.today), ("this month", record.this_month)):
        whole = totals(rows)
        parts.append(f"{heading} (UTC): {money(whole.nano)} for {whole.requests} requests\n" + usage_table(rows))
    old = " They are old: ask your operator for newer ones (models.prices)." if _is_old(record, prices) else ""
    return "\n".join(parts) + f"\nBy the prices of {prices}.{old} `~`: partly estimated.\n"


def usage_table(rows: Sequence[Row]) -> str:
    """Return a table of rows, the dearest first; nothing for none."""
    if not rows:
        return ""
    heading = ("SANDBOX", "MODEL", "REQUESTS", "INPUT", "CACHED", "WRITTEN", "OUTPUT", "USD")
    ordered = sorted(rows, key=lambda row: (-row.nano, row.sandbox, row.model))
    return table(
        heading,
        [
            (
                row.sandbox, row.model, str(row.requests), thousands(row.input), thousands(row.cached),
                thousands(row.written), thousands(row.output), ("~" if row.estimated else "") + money(row.nano),
            )
            for row in ordered
        ],
    )  # fmt: skip


def usage_json(record: Record, prices: date) -> str:
    """Return the same as one line of JSON, with amounts in US dollars."""

    def part(rows: Sequence[Row]) -> dict[str, object]:
        listed = [
            {
                "sandbox": row.sandbox, "model": row.model, "requests": row.requests, "input_tokens": row.input,
                "cache_read_tokens": row.cached, "cache_write_tokens": row.written, "output_tokens": row.output,
                "usd": row.nano / NANO, "estimated_requests": row.estimated,
            }
            for row in rows
        ]  # fmt: skip
        whole = totals(rows)
        return {"usd": whole.nano / NANO, "requests": whole.requests, "by": listed}

    value = {
        "day": record.day, "today": part(record.today), "month": record.month, "this_month": part(record.this_month),
        "prices": prices.isoformat(),
    }  # fmt: skip
    return json.dumps(value) + "\n"


def money(nano: int) -> str:
    """Return an amount in dollars: with cents, and four digits below ten cents."""
    usd = nano / NANO
    return f"${usd:.4f}" if 0 < usd < 0.1 else f"${usd:.2f}"


def thousands(count: int) -> str:
    """Return a number of tokens, from ten thousand on in thousands."""
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k" if count < 10_000_000 else f"{count / 1e6:.1f}M"


def _is_old(record: Record, prices: date) -> bool:
    try:
        return (date.fromisoformat(record.day) - prices).days > OLD_DAYS
    except ValueError:
        return False
