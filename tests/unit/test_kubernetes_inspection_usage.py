"""What is asked of the metrics API: a user's list of sandboxes asks for the user's own pods alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from sshgate.lifecycle.schema import SELECTOR, USER, user_hash
from sshgate.providers.kubernetes.inspection import read_usage
from tests.unit.apiserver import connected, serve

MEASURED = {"metadata": {"name": "p-a"}, "containers": [{"usage": {"cpu": "250m", "memory": "64Mi"}}]}


@pytest.mark.parametrize(("user", "selector"), [(None, SELECTOR), ("ada", f"{SELECTOR},{USER}={user_hash('ada')}")])
async def test_usage_is_asked_for_the_pods_that_are_listed(tmp_path: Path, user: str | None, selector: str) -> None:
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.query["labelSelector"])
        return web.json_response({"metadata": {}, "items": [MEASURED]})

    async with serve(answer, tmp_path) as served, connected(served) as api:
        assert await read_usage(api, user) == {"p-a": (0.25, 64 << 20)}
    assert asked == [selector]
