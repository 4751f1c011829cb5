"""Agents that ask models and fetch from outside: what the broker adds. The rows `models-...` and `egress-download`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shlex
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from tests.bench.measure import Row, Samples, in_turn, p99, ratio
from tests.bench.people import terminals, type_at_once
from tests.bench.scene import BASE_POD, Scene
from tests.rig.broker import broker_process
from tests.rig.gateway import Gateway, free_port
from tests.rig.messages import FakeApi, fake_api, whole
from tests.rig.processes import resident
from tests.rig.ssh import Ssh, environment
from tests.rig.waiting import until
from tests.unit.outside_world import authority, web_server

# Streams at once, so many of them in a sandbox, and the events of one in a second.
SIZES, EACH, RATE = (20, 100), 20, 40
# How long they are read in one turn. The first second of it does not count: connections are made.
SECONDS = 5
REQUESTS = 100
PEOPLE, BESIDE = 20, (0, 60, 100)
# For memory: sandboxes, streams in each, and bytes of an agent's prompt.
SANDBOXES, OPEN, PROMPT = 5, 40, 80_000
MIB = 1 << 20
BULK = 64 * MIB
BACK = 34_568

# Reads streams in a sandbox; prints how many milliseconds each event took. As little as it can: what it costs is taken
# from the path that is measured.
READER = r"""
import json, select, socket, sys, time
host, port, path, streams, events, size = sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:])
asked = {"model": "claude-bench", "max_tokens": events, "stream": True}
body = json.dumps(asked | {"messages": [{"role": "user", "content": "x" * size}]}).encode()
head = f"POST {path}/v1/messages HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
late, began, poll, open_ = [], time.monotonic(), select.epoll(), {}
for _ in range(streams):
    one = socket.create_connection((host, port))
    one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    open_[one.fileno()] = [one, b"", events]
    poll.register(one, select.EPOLLIN)
while open_:
    for fd, _ in poll.poll():
        stream = open_[fd]
        data = stream[0].recv(65536)
        now = time.monotonic()
        *whole, stream[1] = (stream[1] + data).split(b"\n\n")
        for event in whole:
            if now - began > 1:
                late.append((now - float(event.rpartition(b"sent:")[2].partition(b";")[0])) * 1000)
        stream[2] -= len(whole)
        if not data or not stream[2]:
            open_.pop(fd)[0].close()
print(json.dumps(late))
"""
# Asks again and again on one connection; prints how many milliseconds each request took.
ASKER = r"""
import http.client, json, sys, time
body = json.dumps({"model": "claude-bench", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]})
connection, took = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2])), []
for _ in range(int(sys.argv[4])):
    began = time.monotonic()
    connection.request("POST", sys.argv[3] + "/v1/messages", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read()
    took.append((time.monotonic() - began) * 1000)
print(json.dumps(took))
"""


EVENT = (
    b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, '
    b'"delta": {"type": "text_delta", "text": "sent:%.6f;"}}\n\n'
)


class _Provider(FakeApi):
    """Streams as many events as a request's ``max_tokens``. Each holds the moment at which it was sent."""

    open = 0
    """Streams."""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = json.loads(await request.content.read())
        if not asked.get("stream"):
            return web.json_response(whole(asked))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.open += 1
        try:
            due = time.monotonic() + random.random() / RATE
            with contextlib.suppress(ConnectionResetError):  # a reader that is ended in the middle
                for _ in range(asked["max_tokens"]):
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    await response.write(EVENT % time.monotonic())
                    due += 1 / RATE
        except ConnectionError:
            pass  # readers are killed when a row has its figures
        finally:
            self.open -= 1
        return response


@dataclass(frozen=True)
class _Route:
    """How programs in a user's sandboxes get to the provider."""

    name: str
    ssh: Ssh
    sandboxes: str
    """What their names begin with. Two gateways never share one: its port would belong to the first."""
    host: str
    port: int
    path: str

    def user(self, number: int) -> Ssh:
        """The user of one sandbox."""
        return self.ssh.as_user(f"dev={self.sandboxes}-{number}")

    async def run(self, number: int, program: str, *words: object) -> list[float]:
        """Run a program in a sandbox; what it prints."""
        client = await self.start(number, program, *words)
        out, _ = await client.communicate()
        figures: list[float] = json.loads(out)
        return figures

    async def start(self, number: int, program: str, *words: object) -> asyncio.subprocess.Process:
        """Start it, with the provider's address and these words as arguments."""
        arguments = map(str, ("-c", program, self.host, self.port, self.path, *words))
        return await asyncio.create_subprocess_exec(
            *self.user(number).argv(f"python3 {shlex.join(arguments)}"),
            stdin=-3,
            stdout=-1,
            env=environment(),
        )


@dataclass(frozen=True)
class _Parts:
    """A provider, a site for downloads, and two gateways: one asks `sshgate broker`, the other is its own broker."""

    api: _Provider
    site: int
    broker: int
    """The process `sshgate broker`."""
    own_gateway: Gateway
    gateway: Gateway
    own: _Route
    inside: _Route
    direct: _Route


@contextmanager
def _parts(scene: Scene) -> Iterator[_Parts]:
    place = Path(tempfile.mkdtemp(dir=scene.place))
    (place / "key").write_text("sk-ant-api03-of-the-benchmark")
    (place / "secret").write_text("0123456789abcdef" * 4)
    (place / "site").mkdir()
    with (place / "site" / "file").open("wb") as file:
        file.truncate(BULK)
    _, context = authority(place, ["localhost"])
    api = _Provider()
    with fake_api("0.0.0.0", api, uvloop.new_event_loop()), web_server(place / "site", context) as site:
        models = {"models": {"anthropic": {"upstream": api.url, "keys": str(place / "key")}}}
        own = {"broker": {"listen": f"127.0.0.1:{free_port()}", "secret": str(place / "secret")}, **models}
        egress = {"allow": [f"localhost:{site}"], "private": ["127.0.0.0/8", "::1/128"]}
        profile: dict[str, Any] = {"models": ["anthropic"], "egress": egress, "hold": "never"}
        alone = {"sandbox": {"provider": "local"}, "ssh": {"listen": "127.0.0.1:2222", "drain": "1s"}}
        with broker_process(place, {**own, **alone, "profiles": {"default": profile}}) as broker:
            own_gateway, asks = scene.gateway("kubernetes", sections=own, **profile)
            gateway, answers = scene.gateway("kubernetes", sections=models, **profile)
            node = scene.namespace.kubectl("get", "pod", BASE_POD, "--output=jsonpath={.status.hostIP}")
            routes = (
                _Route("own process", asks, f"own-{site}", "127.0.0.1", 4711, "/anthropic"),
                _Route("in the gateway", answers, f"in-{site}", "127.0.0.1", 4711, "/anthropic"),
                _Route("direct", asks, f"own-{site}", node, api.port, ""),
            )
            yield _Parts(api, site, broker.pid, own_gateway, gateway, *routes)


def events(scene: Scene, runs: int) -> Row:
    """One event of a stream, from the provider to a program in a sandbox."""
    parts = scene.shared(_parts)
    routes = (parts.own, parts.inside, parts.direct)
    found: dict[tuple[str, int], list[list[float]]] = {(route.name, size): [] for size in SIZES for route in routes}

    async def read(route: _Route, size: int) -> list[float]:
        readers = (route.run(one, READER, EACH, SECONDS * RATE, 100) for one in range(size // EACH))
        return [figure for figures in await asyncio.gather(*readers) for figure in figures]

    for size in SIZES:
        for turn in range(min(runs, 4) + 1):
            for route in routes:
                figures = uvloop.run(read(route, size))
                if turn:
                    found[route.name, size].append(figures)
    medians, late = {}, {}
    for (name, size), turns in found.items():
        every = [figure for figures in turns for figure in figures]
        medians[name, size], late[name, size] = statistics.median(every), p99(every)
        summary = f"p50 {statistics.median(every):.2f} ms, p99 {p99(every):.2f} ms, {len(every)} events"
        print(f"models-events {size} streams, {name}: {summary}", flush=True)
    small = SIZES[0]
    ours, base = (
        Samples(f"an event, {small} streams, {name}: p50", [statistics.median(one) for one in found[name, small]])
        for name in (parts.own.name, parts.direct.name)
    )
    added, more = (medians[parts.own.name, size] - medians[parts.direct.name, size] for size in SIZES)
    tail = late[parts.own.name, small] - late[parts.direct.name, small]
    target = f"p50 at most 1.5 ms added, {SIZES[1]} streams: {more:.2f}; p99 5 ms: {tail:.2f}"
    return Row("models-events", "ms", ours, base, added, target, max(added, more) <= 1.5 and tail <= 5)


def request(scene: Scene, runs: int) -> Row:
    """A small request on a connection that is open."""
    parts = scene.shared(_parts)
    ours, inside, base = (Samples(f"a request, {route.name}") for route in (parts.own, parts.inside, parts.direct))

    def asking(route: _Route) -> Callable[[], float]:
        return lambda: statistics.median(uvloop.run(route.run(0, ASKER, REQUESTS))[1:])

    in_turn(runs, (ours, asking(parts.own)), (inside, asking(parts.inside)), (base, asking(parts.direct)))
    target = f"at most 3 ms, {parts.inside.name}: {inside.median:.2f}"
    return Row("models-request", "ms", ours, base, ours.median, target, max(ours.median, inside.median) <= 3)


@asynccontextmanager
async def _streams(api: _Provider, route: _Route, number: int, each: int, size: int) -> AsyncIterator[None]:
    """Open streams beside the body, ``each`` in a sandbox."""
    readers = [await route.start(one, READER, each, 3600 * RATE, size) for one in range(number // each)]
    try:
        await asyncio.to_thread(until, lambda: api.open == number, 120, f"{number} streams")
        yield
    finally:
        for reader in readers:
            with contextlib.suppress(ProcessLookupError):
                reader.kill()
        await asyncio.gather(*(reader.wait() for reader in readers))
        await asyncio.to_thread(until, lambda: api.open == 0, 60, "their end")


def keys(scene: Scene, runs: int) -> Row:
    """Twenty people type while agents read streams: the echo of a key, and without the streams."""
    parts = scene.shared(_parts)
    found: dict[int, list[float]] = {number: [] for number in BESIDE}

    async def measure() -> None:
        async with terminals(parts.own.ssh) as add:
            people = await add(PEOPLE)
            for turn in range(min(runs, 5) + 1):
                for number in BESIDE:
                    async with _streams(parts.api, parts.own, number, EACH, 100):
                        echoes = await type_at_once(people)
                    found[number] += echoes if turn else []

    uvloop.run(measure())
    for number, echoes in found.items():
        figures = f"p50 {statistics.median(echoes):.2f} ms, p99 {p99(echoes):.2f} ms, {len(echoes)} keys"
        print(f"models-keys {PEOPLE} people beside {number} streams: {figures}", flush=True)
    none, some, _ = (p99(echoes) for echoes in found.values())
    ours, base = Samples(f"p99 of a key beside {BESIDE[1]} streams", [some]), Samples("beside none", [none])
    return ratio("models-keys", "ms", ours, base, most=1.25, least=None)


def memory(scene: Scene, runs: int) -> Row:
    """What a process grows by for each open stream, each after a prompt of an agent's size."""
    # Processes that have had streams have room for others: these have had none.
    with _parts(scene) as parts:

        async def grow(route: _Route, *memories: Callable[[], int]) -> list[float]:
            async with _streams(parts.api, route, SANDBOXES, 1, PROMPT):
                pass
            before = [memory() for memory in memories]
            async with _streams(parts.api, route, SANDBOXES * OPEN, OPEN, PROMPT):
                await asyncio.sleep(1)
                number = SANDBOXES * OPEN
                return [(memory() - old) / number / 1024 for memory, old in zip(memories, before, strict=True)]

        (inside,) = uvloop.run(grow(parts.inside, lambda: parts.gateway.memory))
        broker, gateway = uvloop.run(grow(parts.own, lambda: resident(parts.broker), lambda: parts.own_gateway.memory))
    ours = Samples(f"a gateway that is its own broker, {SANDBOXES * OPEN} streams", [inside])
    target = f"at most 100 KiB a stream; `sshgate broker`: {broker:.1f}, its gateway: {gateway:.1f}"
    return Row("models-memory", "KiB", ours, None, inside, target, max(inside, broker, gateway) <= 100)


def download(scene: Scene, runs: int) -> Row:
    """64 MiB over TLS from this machine: by CONNECT to the broker's port, and over `ssh -R`."""
    parts = scene.shared(_parts)
    fetch = "curl -sk -o /dev/null -w '%{size_download} %{speed_download}'"

    def rate(route: _Route, how: str, port: int, *options: str) -> Callable[[], float]:
        user, command = route.user(0), f"{fetch} {how} https://localhost:{port}/file"

        def once() -> float:
            done = user.run(command, options=options, limit=120)
            size, speed = done.out.decode().split()
            assert int(size) == BULK, done
            return float(speed) / MIB

        return once

    proxied = ("--noproxy '' --proxy http://127.0.0.1:4711", parts.site)
    ours, own = Samples("64 MiB through CONNECT"), Samples("through CONNECT, own process")
    base = Samples("over ssh -R")
    in_turn(
        runs,
        (ours, rate(parts.inside, *proxied)),
        (own, rate(parts.own, *proxied)),
        (base, rate(parts.inside, "--noproxy '*'", BACK, "-R", f"127.0.0.1:{BACK}:127.0.0.1:{parts.site}")),
    )
    print(f"egress-download {own.what}: {own.median:.4g} ({own.spread}) MiB/s", flush=True)
    return ratio("egress-download", "MiB/s", ours, base, most=None, least=0.8)


ROWS: dict[str, Callable[[Scene, int], Row]] = {
    "models-events": events,
    "models-request": request,
    "models-keys": keys,
    "models-memory": memory,
    "egress-download": download,
}
