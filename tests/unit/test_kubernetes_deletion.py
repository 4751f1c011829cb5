"""Deleting pods in the background, until the API server has accepted it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

from sshgate.providers.kubernetes.deletion import PodDeleter
from tests.unit.apiserver import connected, serve, status


async def test_a_pod_that_took_the_name_of_one_still_being_removed_is_removed_as_well(tmp_path: Path) -> None:
    asked: set[str] = set()
    both = asyncio.Event()

    async def answer(request: Any) -> web.StreamResponse:
        asked.add((await request.json())["preconditions"]["uid"])
        if len(asked) == 2:
            both.set()
        return status(403, "Forbidden", "not now")

    async with serve(answer, tmp_path) as served, connected(served) as api:
        removals = PodDeleter(api, jitter=lambda: 0.0)
        await removals.remove("sshgate-work-1", "first")
        await removals.remove("sshgate-work-1", "second")
        async with asyncio.timeout(10):
            await both.wait()
        assert asked == {"first", "second"}
        assert await removals.close(0) == ["sshgate-work-1"]
