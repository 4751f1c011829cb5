"""Files of a sandbox are deleted and renamed, and folders made, by their user only; what is refused changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yarl import URL

from tests.rig.gateway import Gateway
from tests.rig.web import Browser, Tab

MADE = (
    "stty -echo; rm -rf /tmp/here; mkdir -p /tmp/here/tree/deep /tmp/here/empty; cd /tmp/here; echo 1 >one; "
    "echo 2 >two; ln -s tree link; ln -s /tmp/here/one tree/deep/out; touch ./-rf \"$(printf 'a\\nb')\" "
    "\"$(printf 'tree/\\377')\" \"$(printf '\\377')\"; echo re''ady"
)


@pytest.fixture
async def place(page: Browser) -> Tab:
    """A shell in a directory with a tree, links and odd names."""
    made = await page.new()
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.type(MADE.encode() + b"\n")
    await tab.see(b"ready\r\n")
    return tab


async def asked(tab: Tab, method: str, path: str, body: Any = None, **query: str) -> tuple[int, str]:
    """The status of an answer, and the code of an error."""
    status, answer = await tab.browser.ask(
        method, f"api/sessions/{tab.session}/files", body, params={"path": path, **query}
    )
    return status, answer["error"]["code"] if status >= 400 else ""


async def names(tab: Tab, path: str = "/tmp/here") -> list[str]:
    _, found = await tab.browser.ask("GET", f"api/sessions/{tab.session}/files", params={"list": "1", "path": path})
    return sorted(one["name"] for one in found["entries"])


ALL = ["-rf", "a\nb", "empty", "link", "one", "tree", "two", "\ufffd"]


async def test_files_are_deleted_and_a_tree_only_when_that_is_requested(place: Tab) -> None:
    """By any kind of path; of a link the link; what a link in a tree leads to stays."""
    assert await names(place) == ALL
    for path in ("-rf", "a\nb", "/tmp/here/two", "empty", "./link"):
        assert await asked(place, "DELETE", path) == (204, ""), path
    assert await asked(place, "DELETE", "tree") == (409, "not_empty")
    for tree in ("", "0", "false", "true"):
        assert await asked(place, "DELETE", "tree", tree=tree) == (409, "not_empty"), tree
    assert await names(place) == ["one", "tree", "\ufffd"]
    assert await names(place, "/tmp/here/tree") == ["deep", "\ufffd"]
    assert await asked(place, "DELETE", "tree", tree="1") == (204, "")
    assert await asked(place, "DELETE", "tree", tree="1") == (404, "not_found")
    assert await names(place) == ["one", "\ufffd"]


async def test_a_new_name_replaces_nothing(place: Tab) -> None:
    for path, to in (("one", "two"), ("one", "tree"), ("tree", "empty"), ("one", "link"), ("one", "one")):
        assert await asked(place, "PATCH", path, {"to": to}) == (412, "exists"), (path, to)
    assert await names(place) == ALL
    assert await asked(place, "PATCH", "one", {"to": "it's\n<b>$x"}) == (200, "")
    assert await asked(place, "PATCH", "it's\n<b>$x", {"to": "tree/moved"}) == (200, "")
    assert await asked(place, "PATCH", "link", {"to": "/tmp/here/other"}) == (200, "")
    assert await names(place) == ["-rf", "a\nb", "empty", "other", "tree", "two", "\ufffd"]
    assert "moved" in await names(place, "/tmp/here/tree")
    assert await asked(place, "PATCH", "nothing", {"to": "x"}) == (404, "not_found")
    assert await asked(place, "PATCH", "two", {"to": "no/such/place"}) == (404, "not_found")
    assert await asked(place, "PATCH", "tree", {"to": "tree/deep/itself"}) == (502, "sandbox")


async def test_a_folder_is_made_where_there_is_nothing(place: Tab) -> None:
    for path in ("one", "tree", "link", "\ufffd"):
        assert await asked(place, "POST", path) == ((412, "exists") if path != "\ufffd" else (201, "")), path
    assert await asked(place, "POST", "new\nfolder") == (201, "")
    assert await asked(place, "POST", "~/another") == (201, "")
    assert await asked(place, "POST", "no/such/place") == (404, "not_found")
    assert "new\nfolder" in await names(place)
    assert await names(place, "~/another") == []
    assert await asked(place, "DELETE", "~/another") == (204, "")


@pytest.mark.parametrize(("method", "body"), [("DELETE", None), ("POST", {}), ("PATCH", {"to": "new"})])
async def test_what_is_no_name_is_refused_before_anything_is_done(place: Tab, method: str, body: Any) -> None:
    """The directory itself, the one above, no path, and bytes that are no text: those could be another file's."""
    for path in (".", "..", "tree/..", "tree/.", "/", "~/", "tree/", "", "/..", "\0", "x" * 5000, "é" * 128):
        assert await asked(place, method, path, body, tree="1") == (400, "request"), path
        if method == "PATCH":
            assert await asked(place, method, "one", {"to": path}) == (400, "request"), path
    page = place.browser
    raw = f"{page.url}/api/sessions/{place.session}/files?tree=1&path=%FF"
    async with page.http.request(method, URL(raw, encoded=True), json=body, headers={"Origin": page.origin}) as answer:
        assert answer.status == 400
    assert await names(place) == ALL


async def test_each_change_is_audited_with_its_paths(web: Gateway, place: Tab) -> None:
    assert await asked(place, "POST", "made") == (201, "")
    assert await asked(place, "PATCH", "made", {"to": "renamed"}) == (200, "")
    assert await asked(place, "PATCH", "one", {"to": "two"}) == (412, "exists")
    assert await asked(place, "DELETE", "renamed") == (204, "")
    lines = [json.loads(line) for line in web.log().splitlines() if '"file.changed"' in line]
    assert [(line["operation"], line["path"], line.get("to"), line["whole"]) for line in lines[-3:]] == [
        ("make", "made", None, True), ("rename", "made", "renamed", True), ("delete", "renamed", None, True)
    ]  # fmt: skip
