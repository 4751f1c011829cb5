"""`sshgate reap` where the namespace changes while it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sshgate.config.model import Config
from sshgate.lifecycle import schema as labels
from sshgate.providers.kubernetes import operator as operating
from sshgate.providers.kubernetes.operator import Operator
from tests.unit.apiserver import connected, serve, status

LONG_AGO = "2020-01-01T00:00:00Z"


def detached(name: str) -> dict[str, Any]:
    """A named sandbox that is ready, and that nobody came back to."""
    marks = {
        labels.MANAGED_BY: labels.MANAGED, labels.STATE: labels.CLAIMED, labels.PROFILE: "default",
        labels.NAME: name, labels.USER: labels.user_hash("dev"), labels.SESSION: name,
    }  # fmt: skip
    notes = {labels.USER: "dev", labels.INSTANCE: "dead", labels.DETACHED_AT: LONG_AGO, labels.LAST_SEEN: LONG_AGO}
    metadata = {
        "name": name, "uid": f"uid-{name}", "resourceVersion": "1", "labels": marks, "annotations": notes,
        "creationTimestamp": LONG_AGO,
    }  # fmt: skip
    running = {"name": "shell", "ready": True, "state": {"running": {"startedAt": LONG_AGO}}}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO}
    state = {"phase": "Running", "conditions": [ready], "containerStatuses": [running]}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": "n1"}, "status": state}


@pytest.mark.timeout(30)
async def test_a_sandbox_that_ends_during_the_look_is_nothing_to_fail_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "LEASE_DURATION", 0.0)
    monkeypatch.setattr(operating, "LOOK", 0.2)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/pods") and request.method == "GET":
            items = [detached("gone"), detached("also-gone")]
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})
        if "/pods/" in request.path:
            return status(404, "NotFound", "pods not found")
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    async with serve(answer, tmp_path) as served, connected(served) as api:
        operator = Operator(Config(), api)
        found = await operator.reap(dry_run=False, waiting=lambda _: None)
        assert {action.record.name for action in found} == {"gone", "also-gone"}
        looked = {path for path in served.requests if "/pods/" in path}
        assert {f"GET /api/v1/namespaces/test/pods/{name}" for name in ("gone", "also-gone")} <= looked
        assert not any(path.startswith("DELETE") for path in looked)
