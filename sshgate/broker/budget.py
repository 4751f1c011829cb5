"""What users spend on models, over all gateways, and the refusal when a budget is used up.

A request is checked first and charged when it is over. So a budget can be exceeded by the requests that are under way
at that moment, and by what other gateways have not written down yet (``FLUSH_SECONDS``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from sshgate.broker.caller import Caller, ModelRequest, Refused
from sshgate.broker.meter import Meter
from sshgate.broker.prices import NANO, Prices
from sshgate.broker.usage import Charge, Exceeded, Limit, Record, added, exceeded
from sshgate.errors import GateError, Unavailable
from sshgate.sandbox.interfaces import UserRecords
from sshgate.telemetry.rate_limit import RateLimit

# Seconds between two writes of one user's charges, and how old another gateway's may be where a budget is checked.
FLUSH_SECONDS = 5.0
FRESH_SECONDS = 10.0
# Seconds that a check waits for the records, and for which no other one tries after a failure.
READ_SECONDS = 8.0
TRY_SECONDS = 3.0
# Users whose charges are written at a time.
WRITES = 16
# Seconds without a request after which a user's record is dropped from memory.
IDLE_SECONDS = 900.0

log = structlog.get_logger("sshgate.broker")


class SpendingRecords(Protocol):
    """Where all gateways keep what users have spent."""

    async def read(self, user: str) -> str:
        """Return a user's record. Raises ``GateError``."""

    async def add(self, user: str, writer: str, number: int, charges: Sequence[Charge], now: float) -> str:
        """Add charges to a record as ``usage.added`` does, and return it. Raises ``GateError``: it is not known
        whether they were added, and the same call may be made again.
        """


class KeptRecords:
    """``SpendingRecords`` in a ``UserRecords``."""

    def __init__(self, records: UserRecords) -> None:
        self._records = records

    async def read(self, user: str) -> str:
        return await self._records.read(user)

    async def add(self, user: str, writer: str, number: int, charges: Sequence[Charge], now: float) -> str:
        return await self._records.change(user, lambda text: added(text, writer, number, charges, now))


class _Account:
    """What this gateway knows of one user."""

    def __init__(self) -> None:
        self.record = Record()
        """Of all gateways as far as known, with our charges that are not written yet."""
        self.pending: dict[tuple[str, ...], Charge] = {}
        self.writing: list[Charge] = []
        """Charges of a write that is not known to have been done. It is repeated with the same number."""
        self.number = 0
        """Of the write that ``writing`` belongs to, or of the last one."""
        self.read_at: float | None = None
        self.failed: tuple[float, Exception] | None = None
        """When the last read or write failed, and why."""
        self.used_at = 0.0
        self.lock = asyncio.Lock()

    def take(self, text: str, now: float) -> None:
        """Take the record as it is written down now, without what is in ``writing`` or pending."""
        self.record = Record.of(text)
        self.record.add([*self.writing, *self.pending.values()], now)


class Accounts:
    """What users have spent. ``run`` writes it down; ``flush`` once more at the end.

    Args:
        records: Where all gateways keep it.
        instance: This gateway's id, which no other has had.
        clock: Gives seconds since the epoch.
    """

    def __init__(self, records: SpendingRecords, instance: str, clock: Callable[[], float] = time.time) -> None:
        self._records = records
        self._instance = instance
        self._clock = clock
        self._users: dict[str, _Account] = {}
        # Of all users, and never begun again: a record takes a number that it had before for the same write.
        self._number = 0
        self._warnings = RateLimit()

    def __repr__(self) -> str:
        waiting = sum(bool(one.pending or one.writing) for one in self._users.values())
        return f"<Accounts of {len(self._users)} users, {waiting} to be written>"

    def charge(self, user: str, charge: Charge) -> None:
        """Count what a request has cost. It is written down within ``FLUSH_SECONDS``."""
        account = self._account(user)
        account.record.add([charge], self._clock())
        known = account.pending.setdefault(charge.key, charge)
        if known is not charge:
            known.row.add(charge.row)

    async def of(self, user: str, age: float = FRESH_SECONDS) -> Record:
        """Return what a user has spent, over all gateways, as it was written down at most ``age`` seconds ago.

        While the records are unavailable, what was read last counts, with all charges of this gateway.

        Raises:
            GateError: They are unavailable, and were never read.
        """
        account = self._account(user)
        async with account.lock:
            now = self._clock()
            if account.failed is not None and 0 <= now - account.failed[0] < TRY_SECONDS:
                # Else each of the requests that have waited for this one would wait as long again.
                if account.read_at is None:
                    raise Unavailable(str(account.failed[1]))
            elif account.read_at is None or not 0 <= now - account.read_at < age:
                try:
                    async with asyncio.timeout(READ_SECONDS):
                        text = await self._records.read(user)
                except (GateError, TimeoutError) as error:
                    account.failed = (self._clock(), error)
                    if account.read_at is None:
                        raise
                    self._warn(error)
                else:
                    known = Record.of(text).writers.get(self._instance)
                    if account.writing and known is not None and known.number >= account.number:
                        account.writing = []  # the write without an answer was done
                    account.take(text, now)
                    account.read_at, account.failed = now, None
        account.record.turn(self._clock())
        return account.record

    async def run(self) -> None:
        """Write charges down every ``FLUSH_SECONDS``, until cancelled. Failures are logged, and repeated later."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
            idle = self._clock() - IDLE_SECONDS
            for user, account in list(self._users.items()):
                if not (account.pending or account.writing or account.lock.locked()) and account.used_at < idle:
                    del self._users[user]

    async def flush(self) -> None:
        """Write all charges down that are not yet. Never raises; what cannot be written stays for the next time."""
        places = asyncio.Semaphore(WRITES)

        async def write(user: str, account: _Account) -> None:
            async with places:
                try:
                    await self._write(user, account)
                except (GateError, TimeoutError) as error:
                    account.failed = (self._clock(), error)
                    self._warn(error)
                except Exception:
                    # Whatever it is, the end of the loop would leave all further charges unwritten.
                    log.exception("usage.unwritten")

        waiting = [(user, one) for user, one in self._users.items() if one.pending or one.writing]
        await asyncio.gather(*(write(user, account) for user, account in waiting))

    async def _write(self, user: str, account: _Account) -> None:
        async with account.lock:
            if not account.writing:
                account.writing, account.pending = list(account.pending.values()), {}
                self._number += 1
                account.number = self._number
            charges, number, now = account.writing, account.number, self._clock()
            async with asyncio.timeout(READ_SECONDS):
                text = await self._records.add(user, self._instance, number, charges, now)
            account.writing = []
            account.take(text, now)
            account.read_at, account.failed = now, None

    def _account(self, user: str) -> _Account:
        account = self._users.get(user)
        if account is None:
            account = self._users[user] = _Account()
        account.used_at = self._clock()
        return account

    def _warn(self, error: Exception) -> None:
        if self._warnings.due("unavailable"):
            log.warning("usage.unavailable", reason=str(error) or "no answer in time")


class Metering:
    """Meters all requests to models, and holds budgets; a ``caller.Meter``.

    Args:
        limits: Returns the budgets that hold for a caller.
        prices: Returns the prices of now.
    """

    def __init__(
        self,
        accounts: Accounts,
        limits: Callable[[Caller], Limit],
        prices: Callable[[], Prices],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._accounts = accounts
        self._limits = limits
        self._prices = prices
        self._clock = clock

    async def admit(self, request: ModelRequest) -> None:
        """Refuse a request whose budget is used up. Raises ``Refused``."""
        caller = request.caller
        limit = self._limits(caller)
        if limit == Limit() or not request.paid:
            return
        try:
            record = await self._accounts.of(caller.user)
        except (GateError, TimeoutError):
            raise Refused(
                "what you have spent cannot be looked up now; try again in a moment.", 529, {"x-should-retry": "true"}
            ) from None
        over = exceeded(record, limit, caller.uid, caller.profile, self._clock())
        if over is not None:
            later = {} if over.lasts is None else {"retry-after": f"{over.lasts:.0f}"}
            raise Refused(_sentence(over), 429, {"x-should-retry": "false", **later})

    def observe(self, request: ModelRequest, status: int, headers: Mapping[str, str]) -> Observation:
        """Return what counts the answer to a request, and charges it at its end."""
        return Observation(request, status, headers, self._charge)

    def _charge(self, request: ModelRequest, meter: Meter) -> Mapping[str, str | int | float]:
        usage = meter.finish()
        nano = self._prices().cost(request.provider, usage)
        self._accounts.charge(request.caller.user, Charge.of(request.caller, usage, nano, self._clock()))
        fields: dict[str, str | int | float] = {
            "input_tokens": usage.input,
            "cache_read_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write + usage.cache_write_hour,
            "output_tokens": usage.output,
            "usd": nano / NANO,
        }
        return fields | ({"estimated": True} if usage.estimated else {})


class Observation:
    """Counts one answer; a ``caller.Observer``. An error of the provider costs nothing."""

    def __init__(
        self,
        request: ModelRequest,
        status: int,
        headers: Mapping[str, str],
        charge: Callable[[ModelRequest, Meter], Mapping[str, str | int | float]],
    ) -> None:
        self._request = request
        self._charge = charge
        self._meter: Meter | None = None
        if status < 300 and request.paid:
            events = headers.get("Content-Type", "").lower().startswith("text/event-stream")
            plain = headers.get("Content-Encoding", "identity").lower() == "identity"
            self._meter = Meter(request.provider, request.model, request.size, events, plain)

    def feed(self, data: bytes) -> None:
        if self._meter is not None:
            self._meter.feed(data)

    def finish(self) -> Mapping[str, str | int | float]:
        return {} if self._meter is None else self._charge(self._request, self._meter)


def _sentence(over: Exceeded) -> str:
    hours, minutes = divmod(int(over.lasts or 0) // 60, 60)
    when = "" if over.lasts is None else f" It is new in {hours} h {minutes} min."
    return (
        f"{over.what} is used up: ${over.spent / NANO:.2f} of ${over.limit / NANO:.2f}.{when} Ask your operator for "
        f"more ({over.setting}); `ssh -s USER@HOST usage` shows what it went to."
    )
