"""The page's module for a session's line to the gateway, run by Node.js."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from webshim.pages import STATIC

MODULES = ["connection.js", "api.js", "socket.js", "storage.js", "tabid.js"]
# The browser's part.
BROWSER = """
globalThis.document = Object.assign(new EventTarget(), { baseURI: "http://gateway/" });
globalThis.window = new EventTarget();
Object.defineProperty(globalThis, "navigator", { value: {} });
globalThis.early = new Map();
globalThis.fetch = async () => new Response('{"ticket": "t"}');
const sockets = [];
globalThis.WebSocket = class extends EventTarget {
  constructor() {
    super();
    sockets.push(this);
  }
  close() {}
};
"""
ENDED_TWICE = """
const { Connection } = await import("./connection.js");
const said = [];
const connection = new Connection("id", { staged: (stage, words) => said.push([stage, words]) });
connection.connect();
const error = { type: "error", code: "late", message: "no attach frame came in time" };
sockets[0].dispatchEvent(new MessageEvent("message", { data: JSON.stringify(error) }));
sockets[0].dispatchEvent(Object.assign(new Event("close"), { code: 4408 }));
connection.connect();
sockets[1].dispatchEvent(Object.assign(new Event("close"), { code: 1006 }));
connection.close();
console.log(JSON.stringify(said));
"""
# How many tries there were, by whether somebody is attached in the gateway's list and how long that is so.
FREE = """
const timers = new Map();
let [now, last] = [0, 0];
globalThis.setTimeout = (act, after = 0) => (timers.set((last += 1), { at: now + after, act }), last);
globalThis.clearTimeout = (id) => timers.delete(id);
const pass = (milliseconds) => {
  const until = now + milliseconds;
  for (;;) {
    const [id, timer] = [...timers].sort(([, one], [, other]) => one.at - other.at)[0] ?? [];
    if (!timer || timer.at > until) break;
    timers.delete(id);
    now = timer.at;
    timer.act();
  }
  now = until;
};
const { Connection } = await import("./connection.js");
const connection = new Connection("id", { staged: () => {} });
const tries = [];
const refuse = (code) => sockets.at(-1).dispatchEvent(Object.assign(new Event("close"), { code }));
connection.connect();
refuse(4409);
const lists = [[true, 60_000], [false, 4_000], [true, 60_000], [false, 6_000], [false, 6_000], [false, 6_000]];
for (const [attached, milliseconds] of lists) {
  const before = sockets.length;
  connection.listed(attached);
  pass(milliseconds);
  tries.push(sockets.length - before);
  if (sockets.length > before) refuse(4409);
}
connection.connect();
refuse(4410);
connection.listed(false);
pass(10_000);
tries.push(sockets.length - 4);
connection.close();
console.log(JSON.stringify(tries));
"""


def _printed(place: Path, text: str) -> Any:
    if shutil.which("node") is None:
        pytest.skip("no node on this machine")
    (place / "package.json").write_text('{"type": "module"}')
    for name in MODULES:
        (place / name).write_bytes((STATIC / name).read_bytes())
    (place / "main.js").write_text(BROWSER + text)
    done = subprocess.run(["node", place / "main.js"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_the_gateway_says_is_a_sentence_and_of_this_try(tmp_path: Path) -> None:
    """It stands in the bar before "Trying again in 2 s."."""
    words = [words for stage, words in _printed(tmp_path, ENDED_TWICE) if stage == "waiting"]
    assert words == ["No attach frame came in time.", ""]


def test_a_session_that_is_open_in_another_window_is_tried_again_once_it_is_free(tmp_path: Path) -> None:
    """Not while that window may only be loading again, each time later, and not where it was taken over."""
    assert _printed(tmp_path, FREE) == [0, 0, 0, 1, 0, 1, 0]
