"""The bound on log lines that strangers cause."""

from __future__ import annotations

from sshgate.telemetry.rate_limit import MOST, Rarely


def test_each_key_passes_once_within_the_time() -> None:
    now = 0.0
    rarely = Rarely(60.0, lambda: now)
    assert [rarely.due(key) for key in ("a", "b", "a")] == [True, True, False]
    now = 59.9
    assert not rarely.due("a")
    now = 60.0
    assert rarely.due("a")


def test_strangers_with_many_addresses_fill_neither_memory_nor_log() -> None:
    now = 0.0
    rarely = Rarely(60.0, lambda: now)
    assert sum(rarely.due(str(number)) for number in range(3 * MOST)) == MOST
    assert repr(rarely) == f"<Rarely {MOST} keys>"
    now = 60.0
    assert rarely.due("new")
    assert repr(rarely) == "<Rarely 1 keys>"
