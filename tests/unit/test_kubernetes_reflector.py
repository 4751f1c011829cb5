"""Keeping up with pods through everything a watch can suffer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sshgate.errors import Unavailable
from sshgate.providers.kubernetes.api import client
from sshgate.providers.kubernetes.api.client import PAGE
from sshgate.providers.kubernetes.api.objects import Pod
from sshgate.providers.kubernetes.api.reflector import Reflector
from tests.hostile.polling import until
from tests.unit.apiserver import connected, pod, serve, status, stream


class Cluster:
    """Answers lists and watches as the test wants; ``watches`` gives the lines of each watch in turn."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.version = "10"
        self.lists = 0
        self.broken_lists = 0
        self.expire = 0
        self.watched_from: list[str] = []
        self.lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            self.watched_from.append(request.query["resourceVersion"])
            return await stream(request, self._watch())
        self.lists += 1
        if self.broken_lists:
            self.broken_lists -= 1
            return status(500, "InternalError", "broken")
        begin = int(request.query.get("continue", 0))
        end = begin + int(request.query["limit"])
        if begin and self.expire:
            self.expire -= 1
            return status(410, "Expired", "the provided continue parameter is too old")
        metadata = {"resourceVersion": self.version, "continue": str(end) if end < len(self.items) else ""}
        return web.json_response({"metadata": metadata, "items": self.items[begin:end] or None})

    async def _watch(self) -> AsyncIterator[dict[str, Any]]:
        """Lines until ``None``, which breaks the watch off."""
        while (line := await self.lines.get()) is not None:
            yield line

    def send(self, kind: str, item: dict[str, Any]) -> None:
        self.lines.put_nowait({"type": kind, "object": item})

    def break_off(self) -> None:
        self.lines.put_nowait(None)


class Diary:
    """What a reflector observed, as words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._news = asyncio.Event()

    def observe(self, old: Pod | None, new: Pod | None) -> None:
        known = old or new
        assert known is not None
        change = "new" if old is None else "gone" if new is None else "changed"
        self.words.append(f"{known.metadata.name} {change}")
        self._news.set()

    async def until(self, *words: str) -> None:
        async with asyncio.timeout(5):
            while self.words != list(words):
                self._news.clear()
                await self._news.wait()


async def test_changes_are_delivered_once_and_in_order(tmp_path: Path) -> None:
    cluster, diary = Cluster(), Diary()
    cluster.items = [pod("a")]
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "x=y", diary.observe)
        await reflector.start()
        cluster.send("ADDED", pod("b", "11"))
        cluster.send("MODIFIED", pod("a", "12"))
        cluster.send("MODIFIED", pod("a", "12"))
        cluster.send("DELETED", pod("b", "13"))
        await diary.until("a new", "b new", "a changed", "b gone")
        assert list(reflector.known) == ["a"]
        await reflector.close()


async def test_a_broken_watch_goes_on_from_the_last_bookmark(tmp_path: Path) -> None:
    cluster, diary = Cluster(), Diary()
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "", diary.observe, jitter=lambda: -0.5)
        await reflector.start()
        cluster.send("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "99"}})
        cluster.break_off()
        cluster.send("ADDED", pod("a", "100"))
        await diary.until("a new")
        assert cluster.watched_from == ["10", "99"]
        assert cluster.lists == 1
        await reflector.close()


@pytest.mark.parametrize(
    "trouble",
    [
        {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}},
        {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd"}},
        {"type": "ADDED", "object": "nonsense"},
    ],
    ids=["410 inside the watch", "500 inside the watch", "nonsense"],
)
async def test_trouble_ends_in_a_new_list_that_has_what_was_missed(tmp_path: Path, trouble: dict[str, Any]) -> None:
    cluster, diary = Cluster(), Diary()
    cluster.items = [pod("a"), pod("b")]
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "", diary.observe, jitter=lambda: -0.5)
        await reflector.start()
        await diary.until("a new", "b new")
        cluster.items = [pod("b", "20"), pod("c", "21")]
        cluster.version = "21"
        cluster.broken_lists = 2
        cluster.lines.put_nowait(trouble)
        await diary.until("a new", "b new", "a gone", "b changed", "c new")
        assert cluster.lists == 4
        await reflector.close()


async def test_a_pod_made_again_under_its_name_is_another_pod(tmp_path: Path) -> None:
    cluster, diary = Cluster(), Diary()
    cluster.items = [pod("a")]
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "", diary.observe)
        await reflector.start()
        again = pod("a", "12")
        again["metadata"]["uid"] = "another"
        cluster.send("ADDED", again)
        await diary.until("a new", "a gone", "a new")
        await reflector.close()


async def test_the_first_list_raises_why_it_fails(tmp_path: Path) -> None:
    cluster = Cluster()
    cluster.broken_lists = 1
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        with pytest.raises(Unavailable, match="HTTP 500"):
            await Reflector(api, "", Diary().observe).start()


async def test_a_watch_that_ends_at_once_again_and_again_is_asked_for_less_and_less_often(tmp_path: Path) -> None:
    cluster = Cluster()
    for _ in range(1000):
        cluster.break_off()
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "", Diary().observe, jitter=lambda: 0.0)
        began = asyncio.get_running_loop().time()
        await reflector.start()
        await until(lambda: len(cluster.watched_from) >= 4)
        # The pauses are a tenth, two and four tenths of a second, however fast this machine is.
        assert asyncio.get_running_loop().time() - began >= 0.7
        await reflector.close()


async def test_an_observer_that_fails_once_gets_what_comes_after(tmp_path: Path) -> None:
    cluster, diary = Cluster(), Diary()

    def observe(old: Pod | None, new: Pod | None) -> None:
        if new is not None and new.metadata.name == "bad":
            raise KeyError("bad")
        diary.observe(old, new)

    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "", observe, jitter=lambda: -0.5)
        await reflector.start()
        cluster.items = [pod("bad", "11"), pod("good", "12")]
        cluster.version = "12"
        cluster.send("ADDED", pod("bad", "11"))
        await diary.until("good new")
        await reflector.close()


async def test_a_list_is_reported_with_its_version(tmp_path: Path) -> None:
    cluster, reported = Cluster(), []
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "", Diary().observe, lambda uids, version: reported.append((len(uids), version)))
        await reflector.start()
        await reflector.close()
    assert reported == [(0, "10")]


async def test_its_repr_says_what_is_wrong(tmp_path: Path) -> None:
    cluster, diary = Cluster(), Diary()
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "", diary.observe)
        await reflector.start()
        assert "0 known, watching" in repr(reflector)
        cluster.broken_lists = 1000
        cluster.send("ERROR", {"kind": "Status", "code": 500})
        await until(lambda: reflector.error is not None)
        assert "down: the API server failed" in repr(reflector)
        await reflector.close()


class Worker:
    """Works a fifth of a millisecond on each change, and counts the most that it did in one turn of the event loop."""

    def __init__(self) -> None:
        self.done = 0
        self.most = 0
        self._turning: asyncio.Task[None] | None = None

    def observe(self, old: Pod | None, new: Pod | None) -> None:
        self.done += 1
        until_then = time.perf_counter() + 0.0002
        while time.perf_counter() < until_then:
            pass

    async def turn(self) -> None:
        while True:
            before = self.done
            await asyncio.sleep(0)
            self.most = max(self.most, self.done - before)


@pytest.mark.parametrize("source", ["list", "watch"])
async def test_a_flood_of_changes_leaves_turns_of_the_loop_to_others(tmp_path: Path, source: str) -> None:
    cluster, worker = Cluster(), Worker()
    changes = [pod(f"p{number}", str(100 + number)) for number in range(1500)]

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query or source == "list":
            return await cluster.answer(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(
            b"".join(b'{"type": "ADDED", "object": %b}\n' % json.dumps(one).encode() for one in changes)
        )
        await cluster.lines.get()
        return response

    async with serve(answer, tmp_path) as served, connected(served, api_timeout=20) as api:
        reflector = Reflector(api, "", worker.observe)
        turning = asyncio.create_task(worker.turn())
        cluster.items = changes if source == "list" else []
        await reflector.start()
        await until(lambda: worker.done == len(changes))
        turning.cancel()
        await reflector.close()
    # A budget is 2 ms per turn: ten changes of a fifth of a millisecond, fewer on a slow machine.
    assert worker.most <= 20


async def test_a_long_list_comes_in_pages_and_begins_anew_when_its_version_has_expired(tmp_path: Path) -> None:
    cluster, diary = Cluster(), Diary()
    cluster.items = [pod(f"p{number}") for number in range(2 * PAGE + 1)]
    cluster.expire = 1
    listed: list[int] = []
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        reflector = Reflector(api, "", diary.observe, lambda uids, version: listed.append(len(uids)))
        await reflector.start()
        await reflector.close()
    assert (cluster.lists, listed) == (5, [2 * PAGE + 1])
    assert len(reflector.known) == len(diary.words) == 2 * PAGE + 1


async def test_a_list_that_expires_again_and_again_fails(tmp_path: Path) -> None:
    cluster = Cluster()
    cluster.items = [pod(f"p{number}") for number in range(PAGE + 1)]
    cluster.expire = 1000
    async with serve(cluster.answer, tmp_path) as served, connected(served) as api:
        with pytest.raises(Unavailable, match="forgotten"):
            await Reflector(api, "", Diary().observe).start()
    assert cluster.lists == 4


async def test_a_line_or_a_list_without_an_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LONGEST_LINE", 1000)
    monkeypatch.setattr(client, "MOST_PAGES", 3)

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1", "continue": "more"}, "items": []})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 2000)
        return response

    async with serve(answer, tmp_path) as served, connected(served) as api:
        with pytest.raises(Unavailable, match="a list without an end"):
            await api.list_pods("")
        async with api.stream("/", {"watch": "true"}, 5) as lines:
            with pytest.raises(Unavailable, match="a line without an end"):
                await anext(lines)
