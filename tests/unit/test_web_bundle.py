"""One script from the modules of a page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import webshim.server
from sshgate.errors import ConfigError
from tests.unit.test_web_connection import opened
from webshim.bundle import bundle
from webshim.pages import Pages

ENTRY = """import { Terminal } from "./vendor/xterm.js";
import { first, second as other } from "./both.js";
console.log(Terminal, first(), other);
void import("./later.js").then(({ late }) => console.log(late));
void import("./vendor/addon.js").then(({ addon }) => console.log(addon));
"""
BOTH = """import { log } from "./log.js";
log("both");
export function first() {
  return "first";
}
export const second = "second";
"""
LATER = """import { log } from "./log.js";
import { second } from "./both.js";
log("later");
export const late = second;
"""
LOG = """console.log("log");
export function log(text) {
  console.log(text);
}
"""
TEXTS = {"entry.js": ENTRY, "both.js": BOTH, "later.js": LATER, "log.js": LOG, "unused.js": "console.log('unused');\n"}
VENDOR = {
    "vendor/xterm.js": 'export const Terminal = "terminal";\n',
    "vendor/addon.js": 'export const addon = "addon";\n',
}


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_a_bundle_does_what_its_modules_do(tmp_path: Path) -> None:
    """In the same order, each module once, what is imported later later; Node.js runs both."""
    printed = []
    text = bundle("entry.js", TEXTS)
    assert set(re.findall(r'"(\w+\.js)": once', text)) == TEXTS.keys() - {"unused.js"}
    for place, files in {"plain": TEXTS, "bundled": {"entry.js": text}}.items():
        for name, content in (files | VENDOR | {"package.json": '{"type": "module"}'}).items():
            (tmp_path / place / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place / name).write_text(content)
        done = subprocess.run(["node", tmp_path / place / "entry.js"], check=True, capture_output=True, text=True)
        printed.append(done.stdout.splitlines())
    assert sorted(printed[0]) == sorted(printed[1])
    assert printed[0][:3] == printed[1][:3] == ["log", "both", "terminal first second"]
    assert len(re.findall("vendor/xterm", text)) == 1


@pytest.mark.parametrize(
    "line",
    [
        'import "./both.js";', 'import all from "./both.js";', 'import * as all from "./both.js";',
        "export default first;", "export { first };", "export let changes = 1;", 'export * from "./both.js";',
    ],
)  # fmt: skip
def test_what_a_bundle_does_not_know_is_refused(line: str) -> None:
    """It says where, when the gateway starts; nothing is served that a browser would read otherwise."""
    with pytest.raises(ValueError, match=re.escape(f"odd.js has a line that cannot be bundled: {line}")):
        bundle("odd.js", {"odd.js": f"const first = 1;\n{line}\n", "both.js": BOTH})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('import { first, third } from "./both.js";', "odd.js imports third, which both.js does not export"),
        ('import { third as other } from "./both.js";', "odd.js imports third, which both.js does not export"),
        ("const text = await fetch(url);", "odd.js awaits outside of a function, which cannot be bundled: const text"),
        ("try {\n  await fetch(url);\n} catch {}", "which cannot be bundled: await fetch(url);"),
        ("if (url) {\n  one();\n} else {\n  await fetch(url);\n}", "which cannot be bundled: await fetch(url);"),
        ("async function one() {\n  await two();\n}\nawait one();", "which cannot be bundled: await one();"),
    ],
)
def test_what_only_a_browser_would_refuse_is_refused(text: str, reason: str) -> None:
    """As one script it would be an error of its syntax, or a name without a value when it is first used."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        bundle("odd.js", {"odd.js": text + "\n", "both.js": BOTH})


@pytest.mark.parametrize(
    "text",
    [
        "const one = async () => {\n  if (url) {\n    await two();\n  } else {\n    await three();\n  }\n};",
        "const one = async (\n  url,\n) => {\n  await two();\n};",
        "button.addEventListener(kind, async () => void (await one()));",
        "export class One {\n  async two() {\n    const three =\n      await four();\n  }\n}",
    ],
)
def test_what_a_function_awaits_is_taken(text: str) -> None:
    assert "await" in bundle("entry.js", {"entry.js": text + "\n"})


def test_modules_that_import_each_other_are_refused() -> None:
    """A browser would take them, in an order that few would guess."""
    one, two = ('import { two } from "./two.js";\n', 'import { one } from "./one.js";\n')
    with pytest.raises(ValueError, match=r"modules import each other: .*one\.js"):
        bundle("one.js", {"one.js": one, "two.js": two})


async def test_a_gateway_with_a_page_that_no_browser_takes_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a sentence for the operator."""
    static = tmp_path / "static"
    static.mkdir()
    (static / "page.js").write_text("/** Comments are not sent. */\ntry {\n  await one();\n} catch {}\n")
    monkeypatch.setattr(webshim.server, "Pages", lambda: Pages(static))
    with pytest.raises(ConfigError, match=r"page of this installation .*page\.js awaits outside of a function"):
        async with opened(tmp_path):
            pass
