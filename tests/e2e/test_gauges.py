"""What `/metrics` says of forwards and channels while they are open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.rig.forwarding import ECHO, connected, python, session
from tests.rig.gateway import Gateway, free_port
from tests.rig.scrape import Scraped, events
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

pytestmark = pytest.mark.local


def _counts(port: int) -> tuple[float, float, float]:
    """Open channels, forwarded connections, listeners."""
    scraped = Scraped(port)
    kinds = (scraped.total("sshgate_forwards", kind=kind) for kind in ("connection", "listener"))
    return (scraped.total("sshgate_channels"), *kinds)  # type: ignore[return-value]


def test_open_forwards_and_channels_are_counted_while_they_are_open(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    health, here, there = free_port(), free_port(), 4001
    made = gateway("local", telemetry={"listen": f"127.0.0.1:{health}", "audit": "audit.jsonl"})
    ssh = user_at(made)
    options = ("-L", f"{here}:127.0.0.1:{there}", "-R", f"4002:127.0.0.1:{made.port}")
    with session(ssh, python(ECHO, str(there)), *options):
        until(lambda: _counts(health) == (1, 0, 1), 20, "a session and a listener")
        with connected(here) as connection:
            connection.sendall(b"in")
            assert connection.recv(2) == b"in"
            assert _counts(health) == (2, 1, 1)
        until(lambda: _counts(health) == (1, 0, 1), 20, "the connection's end")
    until(lambda: _counts(health) == (0, 0, 0), 20, "nothing open")

    back = "exec 3<>/dev/tcp/127.0.0.1/4002; head -1 <&3"
    with session(ssh, f"bash -c '{back}'; exec sleep 600", *options[2:]) as (_, line):
        assert line.startswith("SSH-2.0-")
    report = until(
        lambda: [e for e in events(made.place / "audit.jsonl") if e.get("kind") == "back"][1:], 20, "its end"
    )
    assert [(e["event"], e["target"]) for e in report] == [("forward.end", "localhost:4002")]
