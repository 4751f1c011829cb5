"""The page's module for a session's line to the gateway, run by Node.js."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from webshim.pages import STATIC

MODULES = ["connection.js", "api.js", "socket.js", "tabid.js"]
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


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_what_the_gateway_says_is_a_sentence_and_of_this_try(tmp_path: Path) -> None:
    """It stands in the bar before "Trying again in 2 s."."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for name in MODULES:
        (tmp_path / name).write_bytes((STATIC / name).read_bytes())
    (tmp_path / "main.js").write_text(BROWSER + ENDED_TWICE)
    done = subprocess.run(["node", tmp_path / "main.js"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = [words for stage, words in json.loads(done.stdout) if stage == "waiting"]
    assert words == ["No attach frame came in time.", ""]
