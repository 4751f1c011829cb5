"""Streams of a user's sessions: what one change costs, however many of them are open."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sshgate.access.key_line import fingerprint_of
from tests.rig.ssh import make_key
from tests.unit.test_web_connection import opened
from webshim.credentials import Principal, load
from webshim.session import WebSession
from webshim.sessionevents import STREAMS_PER_USER

SESSIONS = 12


async def _until_labelled(answer: aiohttp.ClientResponse, label: str) -> list[dict[str, Any]]:
    """Read events until one session is called this; return them all."""
    while True:
        line = await answer.content.readline()
        assert line, "the stream has ended"
        if line.startswith(b"data: "):
            sessions: list[dict[str, Any]] = json.loads(line[6:])["sessions"]
            if any(one["label"] == label for one in sessions):
                return sessions


async def test_one_change_is_described_once_for_all_streams_of_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself would describe all sessions, in the same turn of the event loop."""
    described: list[str] = []
    summary = WebSession.summary

    def counted(session: WebSession) -> dict[str, object]:
        described.append(session.id)
        return summary(session)

    monkeypatch.setattr(WebSession, "summary", counted)
    (tmp_path / "users").mkdir()
    public = make_key(tmp_path / "key")
    (tmp_path / "users" / "dev").write_text(public + "\n")
    async with opened(tmp_path) as (_, port):
        now = time.time()
        proof = fingerprint_of(base64.b64decode(public.split()[1]))
        principal = Principal("dev", "link", proof, "id", now, now + 60.0)
        url, cookie = f"http://127.0.0.1:{port}", load(tmp_path / "web").sign("cookie", principal)
        headers = {"Cookie": f"sshgate-{port}={cookie}", "Origin": url}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as http, asyncio.timeout(30):
            ids = []
            for _ in range(SESSIONS):
                async with http.post(f"{url}/api/sessions", json={}) as made:
                    ids.append((await made.json())["id"])
            streams = [await http.get(f"{url}/api/events") for _ in range(STREAMS_PER_USER)]
            await asyncio.gather(*(_until_labelled(one, "") for one in streams))
            described.clear()
            async with http.patch(f"{url}/api/sessions/{ids[0]}", json={"label": "mine"}) as changed:
                assert changed.status == 200
            for listed in await asyncio.gather(*(_until_labelled(one, "mine") for one in streams)):
                assert [one["id"] for one in listed] == ids
            # The change itself is answered with one; another list may be due by the clock.
            assert SESSIONS < len(described) <= 2 * SESSIONS + 1
            for one in streams:
                one.close()
