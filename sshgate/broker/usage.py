"""What one user has spent on models, as one record that all gateways add to. Pure.

A record is one text (JSON). Each gateway adds what it has counted since its last time, with its own name and a number
that grows: a write whose answer was lost, and is done again, counts once. Days and months are those of UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from sshgate.broker.caller import Caller
from sshgate.broker.meter import Usage
from sshgate.config.values import is_given

# Rows of one day or month: sandboxes times models. Beyond it, new ones are counted together.
MOST_ROWS = 60
# Sandboxes whose sum is remembered for their own budget. Of the half that was quiet for longest, the one that has spent
# least goes first: new sandboxes must not make one forgotten whose budget is used up.
MOST_SANDBOXES = 60
# Gateway instances whose last number is remembered. One that is forgotten has ended long ago.
MOST_WRITERS = 24
OTHERS = "(others)"
# Instead of the name, for sandboxes that have none.
NAMELESS = "-"


class Row(msgspec.Struct, array_like=True):
    """What one sandbox has spent on one model, within a day or a month."""

    sandbox: str
    model: str
    requests: int = 0
    input: int = 0
    cached: int = 0
    """Tokens read from the provider's cache."""
    written: int = 0
    """Tokens written to it."""
    output: int = 0
    nano: int = 0
    estimated: int = 0
    """Requests of which a part is estimated."""

    def add(self, other: Row) -> None:
        """Add the numbers of another row."""
        for name in self.__struct_fields__[2:]:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Charge:
    """What one sandbox has spent on one model lately."""

    row: Row
    uid: str
    profile: str
    at: float
    """Seconds since the epoch."""

    @classmethod
    def of(cls, caller: Caller, usage: Usage, nano: int, at: float) -> Charge:
        """Return the charge for one request, which has cost ``nano`` nanodollars."""
        written = usage.cache_write + usage.cache_write_hour
        name = NAMELESS if caller.name is None or is_given(caller.name) else caller.name
        row = Row(
            name, usage.model, 1, usage.input, usage.cache_read, written, usage.output, nano, int(usage.estimated)
        )
        return cls(row, caller.uid, caller.profile, at)

    @property
    def key(self) -> tuple[str, ...]:
        """Charges with the same key can be added up."""
        return self.uid, self.profile, self.row.sandbox, self.row.model, day_of(self.at)


class Sum(msgspec.Struct, array_like=True):
    """What one sandbox has spent in all. ``at``: when last."""

    nano: int
    at: float


class Writer(msgspec.Struct, array_like=True):
    """The last addition of one gateway instance."""

    number: int
    at: float


class Record(msgspec.Struct, omit_defaults=True):
    """All that is kept of one user."""

    day: str = ""
    month: str = ""
    today: list[Row] = []
    this_month: list[Row] = []
    profiles: dict[str, int] = {}
    """Nanodollars of the day by profile."""
    sandboxes: dict[str, Sum] = {}
    """By the sandbox's uid."""
    writers: dict[str, Writer] = {}

    @classmethod
    def of(cls, text: str) -> Record:
        """Read a record; a damaged one counts as empty: nobody can be locked out by it."""
        try:
            return _decode(text) if text else cls()
        except (msgspec.DecodeError, UnicodeError):
            return cls()

    def text(self) -> str:
        """Return it as it is kept."""
        return _encode(self).decode()

    def add(self, charges: Iterable[Charge], now: float) -> None:
        """Add charges. Those of earlier days and months are dropped from the sums of now."""
        self.turn(now)
        for charge in charges:
            row = charge.row
            if month_of(charge.at) == self.month:
                _add(self.this_month, row)
            if day_of(charge.at) == self.day:
                _add(self.today, row)
                self.profiles[charge.profile] = self.profiles.get(charge.profile, 0) + row.nano
            before = self.sandboxes.get(charge.uid)
            self.sandboxes[charge.uid] = Sum((before.nano if before else 0) + row.nano, charge.at)
        while len(self.sandboxes) > MOST_SANDBOXES:
            quiet = sorted(self.sandboxes, key=lambda uid: self.sandboxes[uid].at)[: MOST_SANDBOXES // 2]
            del self.sandboxes[min(quiet, key=lambda uid: self.sandboxes[uid].nano)]

    def turn(self, now: float) -> None:
        """Begin a new day or month, if it is one. A clock that goes back does not bring the old one again.

        A day that no right clock can have written was written by a wrong one. What it has counted counts today: without
        that, nothing would be counted until that day comes.
        """
        if self.day > day_of(now + 86_400):
            self.day = day_of(now)
        if self.month > month_of(now + 86_400):
            self.month = month_of(now)
        if day_of(now) > self.day:
            self.day, self.today, self.profiles = day_of(now), [], {}
        if month_of(now) > self.month:
            self.month, self.this_month = month_of(now), []

    @property
    def day_nano(self) -> int:
        """Nanodollars of the day."""
        return sum(row.nano for row in self.today)


_decode = msgspec.json.Decoder(Record).decode
_encode = msgspec.json.Encoder().encode


def added(text: str, writer: str, number: int, charges: Iterable[Charge], now: float) -> str:
    """Return a record's text with the charges of a gateway added.

    Args:
        writer: The gateway's instance.
        number: Of this addition; larger than that of every earlier one of the instance. One that was added before is
            not added again.
    """
    record = Record.of(text)
    known = record.writers.get(writer)
    if known is not None and known.number >= number:
        return text
    record.add(charges, now)
    record.writers[writer] = Writer(number, now)
    while len(record.writers) > MOST_WRITERS:
        del record.writers[min(record.writers, key=lambda one: record.writers[one].at)]
    return record.text()


def _add(rows: list[Row], row: Row) -> None:
    same = [one for one in rows if (one.sandbox, one.model) == (row.sandbox, row.model)]
    if not same and len(rows) >= MOST_ROWS:
        row = msgspec.structs.replace(row, sandbox=OTHERS, model=OTHERS)
        same = [one for one in rows if one.sandbox == OTHERS]
    if same:
        same[0].add(row)
    else:
        rows.append(msgspec.structs.replace(row))  # a copy: rows grow


def day_of(at: float) -> str:
    """Return the day of a time in seconds since the epoch, as ``2026-11-29``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def month_of(at: float) -> str:
    """Return its month, as ``2026-11``."""
    return day_of(at)[:7]


def totals(rows: Iterable[Row]) -> Row:
    """Return the sum of rows."""
    whole = Row("", "")
    for row in rows:
        whole.add(row)
    return whole


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget. ``None``: none. In nanodollars."""

    user_day: int | None = None
    sandbox: int | None = None
    profile_day: int | None = None


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Which budget is used up. ``setting``: its name in the file. ``lasts``: seconds until it is new, if ever."""

    what: str
    spent: int
    limit: int
    setting: str
    lasts: float | None


def exceeded(record: Record, limit: Limit, uid: str, profile: str, now: float) -> Exceeded | None:
    """Return the budget that leaves nothing for another request; ``None``: all leave something."""
    record.turn(now)
    midnight = 86_400 - now % 86_400
    if limit.user_day is not None and record.day_nano >= limit.user_day:
        return Exceeded("your budget of today", record.day_nano, limit.user_day, "models.budget.user_day_usd", midnight)
    spent = record.profiles.get(profile, 0)
    if limit.profile_day is not None and spent >= limit.profile_day:
        setting = f"profiles.{profile}.budget.user_day_usd"
        return Exceeded(f"your budget of today in {profile!r}", spent, limit.profile_day, setting, midnight)
    own = record.sandboxes.get(uid)
    if limit.sandbox is not None and own is not None and own.nano >= limit.sandbox:
        return Exceeded("the budget of this sandbox", own.nano, limit.sandbox, "budget.sandbox_usd", None)
    return None
