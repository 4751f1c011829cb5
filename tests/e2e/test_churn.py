"""A gateway under a stream of logins that end well and badly: nothing grows, nothing is left.

By default it is short. An hour: SSHGATE_CHURN_SECONDS=3600 pytest -s tests/e2e/test_churn.py
The API server's outages are cuts of this gateway's own way to it: nobody else on the cluster notices.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PROVIDERS, MakeGateway
from tests.rig.balancer import Balancer
from tests.rig.churn import Churn
from tests.rig.cluster import Namespace
from tests.rig.gateway import Gateway, free_port
from tests.rig.processes import alive, descendants
from tests.rig.scrape import Scraped, events
from tests.rig.ssh import Ssh, make_key
from tests.rig.waiting import until

SECONDS = float(os.environ.get("SSHGATE_CHURN_SECONDS", "10"))
# What allocators keep for later differs from run to run; a leak of an hour is far above it.
SLACK = 12 << 20
# A hundred clients that were cut cost 1 to 2 MiB until the interpreter's next collection of cycles.
OUTAGE_SLACK = 16 << 20
# The API server's: so long it answers, so long it does not.
UP_SECONDS, DOWN_SECONDS = 3.0, 2.5


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize("kind", PROVIDERS)
def test_nothing_grows_and_nothing_is_left(
    kind: str,
    request: pytest.FixtureRequest,
    gateway: MakeGateway,
    user_at: Callable[[Gateway], Ssh],
    tmp_path: Path,
) -> None:
    request.getfixturevalue("local" if kind == "local" else "cluster")
    port = free_port()
    made = gateway(
        kind,
        telemetry={"listen": f"127.0.0.1:{port}", "audit": "audit.jsonl"},
        limits={"starts_per_minute": None},  # it is one user who does all this
    )
    make_key(tmp_path / "id")
    seed = random.randrange(1 << 30)
    churn = Churn(user_at(made), Ssh(tmp_path, made.port), seed)

    churn.run(SECONDS / 3)
    until(lambda: _quiet(port), 60, "quiet after the first third")
    below = descendants(made.pid)
    memory, descriptors = made.memory, Scraped(port).total("process_open_fds")
    first = sum(churn.done.values())
    churn.run(SECONDS * 2 / 3)
    until(lambda: _quiet(port), 60, "quiet at the end")

    report = f"seed {seed}: {dict(churn.done)}; {memory >> 20} MiB, then {made.memory >> 20} MiB"
    print(report)
    assert sum(churn.done.values()) > first > 0
    assert made.memory - memory < SLACK, report
    # Kept connections to the API server may be closed or opened meanwhile.
    assert Scraped(port).total("process_open_fds") <= descriptors + 4, report
    assert not alive(descendants(made.pid) - below), report
    _all_events_came(made, port, churn)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1.5 * SECONDS + 300)
def test_an_api_server_that_comes_and_goes_makes_nothing_grow_and_leaves_nothing(
    gateway: MakeGateway, namespace: Namespace, user_at: Callable[[Gateway], Ssh], tmp_path: Path
) -> None:
    with Balancer.before_server(namespace.gateway, tmp_path) as (proxy, place), Outages(proxy) as outages:
        port = free_port()
        made = gateway(
            "kubernetes",
            sandbox=place,
            telemetry={"listen": f"127.0.0.1:{port}", "audit": "audit.jsonl"},
            limits={"starts_per_minute": None},
        )
        make_key(tmp_path / "id")
        seed = random.randrange(1 << 30)
        churn = Churn(user_at(made), Ssh(tmp_path, made.port), seed, lambda: outages.count)

        outages.during(lambda: churn.run(SECONDS / 2))
        until(lambda: _quiet(port), 60, "quiet after the first part")
        namespace.wait_empty(60)
        memory, descriptors, met = made.memory, Scraped(port).total("process_open_fds"), outages.count
        outages.during(lambda: churn.run(SECONDS))
        until(lambda: _quiet(port), 60, "quiet at the end")
        namespace.wait_empty(60)  # also of pods whose making or deletion met an outage

        report = (
            f"seed {seed}: {dict(churn.done)}, cut {dict(churn.cut)}; {memory >> 20} MiB, then {made.memory >> 20} MiB"
        )
        print(report, f"{outages.count // 2} outages")
        assert outages.count > met > 0
        assert churn.cut
        assert sum(churn.done.values()) > 0
        assert made.memory - memory < OUTAGE_SLACK, report
        # Connections that an outage has cut are closed a moment later.
        until(lambda: Scraped(port).total("process_open_fds") <= descriptors + 4, 60, "as few descriptors as before")
        events_of = until(lambda: _every_session_ended(made), 30, "an end for every session")
        assert not events_of["session.broken"]
        made.stop()


class Outages:
    """Cuts the way to the API server again and again, for some seconds each, while a body runs."""

    def __init__(self, proxy: Balancer) -> None:
        self.count = 0
        """Odd while one goes on."""
        self._proxy = proxy
        self._over = threading.Event()

    def __enter__(self) -> Outages:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def during(self, body: Callable[[], None]) -> None:
        """Run ``body`` with outages; afterwards there is none."""
        self._over.clear()
        thread = threading.Thread(target=self._come_and_go)
        thread.start()
        try:
            body()
        finally:
            self._over.set()
            thread.join()

    def _come_and_go(self) -> None:
        while not self._over.wait(UP_SECONDS):
            self.count += 1
            self._proxy.cut()
            self._over.wait(DOWN_SECONDS)
            self._proxy.mend()
            self.count += 1


def _every_session_ended(made: Gateway) -> Counter[str]:
    report = Counter(event["event"] for event in events(made.place / "audit.jsonl"))
    begun, refused = report["session.start"], report["session.failed"]
    even = begun == report["session.end"] + refused and report["connection.login"] == report["connection.end"]
    return report if even else Counter()


def _quiet(port: int) -> bool:
    scraped = Scraped(port)
    return not any(scraped.total(f"sshgate_{name}") for name in ("connections", "sessions", "unauthenticated"))


def _all_events_came(made: Gateway, port: int, churn: Churn) -> None:
    """Every sandbox that was claimed is gone, every login has its end, and no session was broken."""

    def balanced() -> Counter[str]:
        report = Counter(event["event"] for event in events(made.place / "audit.jsonl"))
        even = (
            report["sandbox.claim"] == report["sandbox.end"]
            and report["connection.login"] == report["connection.end"]
            and report["session.start"] == report["session.end"]
        )
        return report if even else Counter()

    report = until(balanced, 30, "an end for every beginning")
    assert report["session.broken"] == report["session.failed"] == 0
    assert report["session.end"] == sum(churn.done[name] for name in ("_command", "_upload", "_killed", "_hangup"))
    # The file may leave some of them out.
    strangers = Scraped(port).total("sshgate_events_total", event="connection.unauthenticated")
    assert strangers >= churn.done["_refused"] + churn.done["_scanner"]
