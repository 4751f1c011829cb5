"""The page's module for requests, run by Node.js: early answers, and tries after a failure."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from webshim.pages import STATIC

# Time passes when nothing else is to be done.
CLOCK = """
let now = 0;
const timers = [];
globalThis.setTimeout = (act, milliseconds, ...given) => timers.push([now + milliseconds, () => act(...given)]);
Date.now = () => now;
AbortSignal.timeout = (milliseconds) => {
  const aborting = new AbortController();
  setTimeout(() => aborting.abort(new DOMException("too late", "TimeoutError")), milliseconds);
  return aborting.signal;
};
const pass = () => {
  timers.sort(([one], [other]) => one - other);
  const [at, act] = timers.shift() ?? [];
  if (!act) return;
  now = at;
  act();
  setImmediate(pass);
};
setImmediate(pass);
"""
ASKED = """
import { call } from "./api.js";
globalThis.begun = 0;
globalThis.early = new Map([["me", new Promise(() => {})]]);
globalThis.fetch = async (url, { signal }) => (signal.throwIfAborted(), new Response('{"user": "ann"}'));
console.log((await call("me")).user, now);
"""


# A line that is lost for a moment; a gateway that starts again; what no other try changes; what stays as it is.
FAILED = """
import { persistently } from "./api.js";
globalThis.early = new Map();
const broken = () => { throw new TypeError("network"); };
const refused = (status) => () => new Response('{"error": {"message": "no"}}', { status });
for (const [times, answer] of [[1, broken], [3, refused(503)], [1, refused(401)], [9, broken]]) {
  let left = times;
  const begun = now;
  globalThis.fetch = async () => (left-- > 0 ? answer() : new Response('{"user": "ann"}'));
  const found = await persistently("me").catch(({ status }) => status);
  console.log(found.user ?? found, now - begun);
}
"""


def _printed(place: Path, text: str) -> list[str]:
    if shutil.which("node") is None:
        pytest.skip("no node on this machine")
    (place / "package.json").write_text('{"type": "module"}')
    (place / "api.js").write_bytes((STATIC / "api.js").read_bytes())
    (place / "main.js").write_text(CLOCK + text)
    done = subprocess.run(["node", place / "main.js"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_request_has_its_time_after_an_early_one_that_was_never_answered(tmp_path: Path) -> None:
    assert _printed(tmp_path, ASKED) == ["ann 30000"]


def test_what_the_page_begins_with_is_requested_again(tmp_path: Path) -> None:
    assert _printed(tmp_path, FAILED) == ["ann 500", "ann 10500", "401 0", "0 10500"]
