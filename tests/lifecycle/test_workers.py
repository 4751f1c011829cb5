"""A gateway of several workers on one port: counted together, begun anew, drained and killed as replicas are."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sshgate.lifecycle import schema as labels
from sshgate.telemetry.events import EACH
from tests.lifecycle.place import Place, names, staying
from tests.rig.gateway import Gateway, free_port, nothing_left
from tests.rig.scrape import Scraped, events, get
from tests.rig.waiting import until
from tests.rig.web import Tab, browser

pytestmark = pytest.mark.cluster


def records(gateway: Gateway) -> list[dict[str, object]]:
    """The log's lines; each must be whole."""
    return [json.loads(line) for line in gateway.log().splitlines()]


def workers(gateway: Gateway) -> dict[int, int]:
    """The process of each worker, by the worker's number, once it has begun to serve."""
    begun: dict[int, list[int]] = {}
    for one in records(gateway):
        if one["event"] == "worker.started":
            begun.setdefault(int(str(one["number"])), []).append(int(str(one["pid"])))
    served = of_worker(gateway, "serving")
    return {number: pids[-1] for number, pids in begun.items() if served[number] == len(pids)}


def of_worker(gateway: Gateway, event: str) -> Counter[object]:
    """How often each worker has logged this event."""
    return Counter(one["worker"] for one in records(gateway) if one["event"] == event)


def two(place: Place, **sections: Any) -> Gateway:
    """A gateway with two workers that both serve."""
    gateway = place.gateway(workers=2, log={"format": "json"}, **sections)
    until(lambda: len(workers(gateway)) == 2, 30, "both workers serving")
    return gateway


@contextmanager
def staying_at_both(place: Place, gateway: Gateway) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Clients whose programs stay, some at each worker: the kernel gives out connections as it likes."""
    with ExitStack() as stack:
        clients: list[subprocess.Popen[bytes]] = []
        for _ in range(10):
            clients += stack.enter_context(staying(*[place.user(gateway)] * 2))
            if {worker_of(gateway, pod) for pod in names(place.pods(labels.CLAIMED))} == {1, 2}:
                break
        else:
            raise AssertionError("of twenty connections one worker got none")
        yield clients


def worker_of(gateway: Gateway, pod: str) -> int:
    """The worker with a session in this pod."""
    (found,) = {
        int(str(one["worker"])) for one in records(gateway)
        if one["event"] == "sandbox.claim" and one["sandbox"] == pod
    }  # fmt: skip
    return found


def is_open(connection: socket.socket) -> bool:
    """Whether the gateway has not closed it; what it has sent is read."""
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def test_logins_are_shared_and_counted_together(place: Place) -> None:
    health = free_port()
    gateway = two(place, telemetry={"listen": f"127.0.0.1:{health}", "audit": "audit.jsonl"})
    user = place.user(gateway, "dev=work")
    for number in range(16):
        assert user.run(f"echo {number}").out == f"{number}\n".encode()
    assert set(of_worker(gateway, "connection.login")) == {1, 2}
    # Whichever worker answers has the sums.
    for _ in range(6):
        scraped = Scraped(health)
        assert scraped.total("sshgate_logins_total", outcome="accepted") == 16
        assert scraped.total("sshgate_workers") == 2
        assert scraped.total("sshgate_info") == scraped.total("sshgate_sandboxes", state="claimed") == 1
        assert get(health, "/readyz") == get(health, "/healthz") == (200, "ok\n")
    audited = events(gateway.place / "audit.jsonl")
    assert sum(one["event"] == "connection.login" for one in audited) == 16
    # The timings of the last five, whichever worker had them.
    last = [one["session"] for one in audited if one["event"] == "session.start"][-5:]
    output = user.as_user("dev").run("receipt", options=("-s",)).out.decode()
    assert re.findall(r"^session (\w+)", output, re.M) == last[::-1]
    assert user.run("end", options=("-s",)).status == 0


def test_a_killed_worker_takes_its_own_sessions_only_and_is_begun_anew(place: Place) -> None:
    health = free_port()
    gateway = two(place, telemetry={"listen": f"127.0.0.1:{health}"})
    with staying_at_both(place, gateway) as clients:
        pods = names(place.pods(labels.CLAIMED))
        sides = {pod: worker_of(gateway, pod) for pod in pods}
        assert len(pods) == len(clients)
        before, first = Scraped(health), workers(gateway)
        os.kill(first[1], signal.SIGKILL)
        ended = sum(side == 1 for side in sides.values())
        until(lambda: sum(one.poll() is not None for one in clients) == ended, 10, "the end of the worker's sessions")
        # Its sandboxes go, as those of a dead gateway do; the other worker's stay.
        until(lambda: names(place.pods(labels.CLAIMED)) == {pod for pod in pods if sides[pod] == 2}, 30, "orphans gone")
        until(lambda: len(workers(gateway)) == 2, 30, "both workers serving")
        second = workers(gateway)
        assert second[1] != first[1]
        assert second[2] == first[2]
        for name in ("sshgate_logins_total", "sshgate_claims_total", "process_cpu_seconds_total"):
            assert Scraped(health).total(name) >= before.total(name) > 0
        assert Scraped(health).total("sshgate_worker_restarts") == 1
        assert sum(one.poll() is None for one in clients) == len(clients) - ended
    assert gateway.pid not in second.values()
    user = place.user(gateway)
    assert [user.run("true").status for _ in range(4)] == [0] * 4


def test_a_worker_that_hangs_is_killed_and_begun_anew(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is stopped for good, so its event loop turns no more; the limit for that is shorter here."""
    (tmp_path / "sitecustomize.py").write_text("from sshgate.server import workers\nworkers.HUNG_SECONDS = 6.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    gateway = two(place)
    first = workers(gateway)
    with staying(*[place.user(gateway)] * 4) as clients:
        sides = [worker_of(gateway, pod) for pod in names(place.pods(labels.CLAIMED))]
        began = time.monotonic()
        os.kill(first[1], signal.SIGSTOP)
        until(lambda: len(workers(gateway)) == 2 and workers(gateway)[1] != first[1], 30, "both workers serving")
        assert time.monotonic() - began > 4
        assert workers(gateway)[2] == first[2]
        # Sessions of the other one go on, those of the hung one end.
        until(lambda: sum(one.poll() is None for one in clients) == sides.count(2), 10, "the end of its sessions")
    (hung,) = (one for one in records(gateway) if one["event"] == "worker.hung")
    assert hung["number"] == 1
    user = place.user(gateway)
    assert [user.run("true").status for _ in range(4)] == [0] * 4


def test_a_worker_that_is_ended_drains_and_is_begun_anew(place: Place) -> None:
    gateway = two(place)
    first = workers(gateway)
    with staying(place.user(gateway)) as (client,):
        (pod,) = names(place.pods(labels.CLAIMED))
        side = worker_of(gateway, pod)
        os.kill(first[side], signal.SIGTERM)
        assert client.wait(20) != 0
    assert of_worker(gateway, "draining") == {side: 1}
    until(lambda: len(workers(gateway)) == 2 and workers(gateway) != first, 30, "both workers serving")
    assert place.user(gateway).run("true").status == 0


def test_one_signal_drains_all_workers_and_a_second_cuts(place: Place) -> None:
    gateway = two(place, ssh={"drain": "60s"})
    # A worker without sessions has nothing to wait for.
    with staying_at_both(place, gateway):
        # As a service manager does it: to every process. The drain goes on.
        for pid in (*workers(gateway).values(), gateway.pid):
            os.kill(pid, signal.SIGTERM)
        until(lambda: set(of_worker(gateway, "draining")) == {1, 2}, 10, "a drain of both")
        time.sleep(1)
        assert not of_worker(gateway, "stopped")
        assert gateway.process is not None
        gateway.process.terminate()
        assert gateway.process.wait(30) == 0
    assert of_worker(gateway, "stopped") == {1: 1, 2: 1}


def test_a_killed_parent_leaves_nothing(place: Place) -> None:
    gateway = two(place)
    with staying(*[place.user(gateway)] * 4):
        below = gateway.kill()
        nothing_left(below, 30)
    assert of_worker(gateway, "stopped") == {1: 1, 2: 1}
    until(lambda: not place.pods(), 30, "no pods")


async def test_a_page_works_whichever_worker_its_connections_reach(place: Place) -> None:
    """Login, session and socket, as a browser does it: on one connection where it can."""
    port = free_port()
    gateway = two(place, web={"listen": f"127.0.0.1:{port}", "secret": "web"})
    dev = place.user(gateway)
    for number in range(8):
        link = (await asyncio.to_thread(dev.run, "web", options=("-s",))).out.decode()
        async with browser(f"http://127.0.0.1:{port}") as page:
            await page.login(link.split()[0])
            session = await page.new()
            tab = Tab(page, session["id"])
            await tab.open(session["ticket"])
            # On a connection of its own, while the socket has another one.
            async with page.http.get(f"{page.url}/api/events") as events:
                while not (line := await events.content.readline()).startswith(b"data: "):
                    assert line
                assert session["id"].encode() in line
            await tab.type(f"echo {number}-$((6 * 7)); exit\n".encode())
            await tab.until(lambda: tab.messages("exit"), "exit")  # noqa: B023
            assert f"{number}-42".encode() in tab.text
            await tab.leave()


def test_a_change_of_the_settings_reaches_all_workers(place: Place) -> None:
    gateway = two(place)
    file = gateway.place / "sshgate.yaml"
    file.write_text(file.read_text() + "\n# a comment, so that it is another file\n")
    os.kill(gateway.pid, signal.SIGHUP)
    until(lambda: set(of_worker(gateway, "config.reread")) == {1, 2}, 10, "both workers' settings")


def test_strangers_have_no_more_places_than_at_one_process(place: Place) -> None:
    limits = {"unauthenticated": 10, "unauthenticated_per_source": 100}
    gateway = two(place, limits=limits)
    strangers = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(40)]
    for one in strangers:
        one.setblocking(False)
    # Those that had to make room had two seconds to log in.
    time.sleep(4)
    left = sum(map(is_open, strangers))
    assert 5 <= left <= 10
    assert set(of_worker(gateway, "connection.limit") or of_worker(gateway, "connection.unauthenticated")) == {1, 2}
    assert place.user(gateway).run("true").status == 0
    for one in strangers:
        one.close()


def test_failures_of_a_source_count_at_all_workers(place: Place) -> None:
    limits = {"penalties": {"authfail": "30s", "min": "80s"}, "penalty_exempt": []}
    gateway = two(place, limits=limits)
    wrong = place.user(gateway, "nobody")
    assert [wrong.run("true").status for _ in range(3)] == [255] * 3
    # Without the rig's own connection, which only waits for the port.
    until(lambda: sum(bool(one.get("failures")) for one in records(gateway)) == 3, 10, "three reports")
    # Three times 30 s, wherever they were: each worker refuses. Both report no more refusals than one process would.
    user = place.user(gateway)
    assert {user.run("true").status for _ in range(EACH + 14)} == {255}
    reported = of_worker(gateway, "connection.limit")
    assert set(reported) == {1, 2}
    assert EACH <= reported.total() <= EACH + 2


def test_a_user_has_no_more_connections_than_at_one_process(place: Place) -> None:
    gateway = two(place, limits={"connections_per_source": 3})
    user = place.user(gateway)
    with staying(user, user, user):
        assert {user.run("true").status for _ in range(6)} == {255}
    until(lambda: user.run("true").status == 0, 20, "a login again")


def test_a_user_starts_no_more_sandboxes_than_at_one_process(place: Place) -> None:
    gateway = two(place, limits={"starts_per_minute": 4})
    began = time.monotonic()
    answers = [place.user(gateway).run("true").err for _ in range(10)]
    started = answers.count(b"")
    assert 4 <= started <= 4 + (time.monotonic() - began) / 15
    assert set(of_worker(gateway, "connection.login")) == {1, 2}
    assert sum(b"starts_per_minute" in one for one in answers) == 10 - started


def test_a_gateway_on_a_port_in_use_does_not_start(place: Place) -> None:
    gateway = two(place)
    other = subprocess.run(
        [sys.executable, "-m", "sshgate", "serve", "--workers", "3"],
        cwd=gateway.place, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert other.returncode == 1
    assert f"cannot listen on 127.0.0.1:{gateway.port}: another program does already" in other.stderr


def test_a_gateway_that_cannot_start_says_so_once(place: Place) -> None:
    gateway = two(place)
    gateway.stop()
    port = free_port()
    text = (gateway.place / "sshgate.yaml").read_text().replace(f":{gateway.port}", f":{port}")
    (gateway.place / "sshgate.yaml").write_text(text.replace(place.space.name, "no-such-namespace"))
    other = subprocess.run(
        [sys.executable, "-m", "sshgate", "serve"],
        cwd=gateway.place, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert other.returncode == 1
    assert sum(one.startswith("sshgate: ") for one in other.stderr.splitlines()) == 1
