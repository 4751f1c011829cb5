"""What a state of the page looks like, and whether everybody can use it: pictures and axe-core, in both themes."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.rig.browser import Tab

ROOT = Path(__file__).parents[2]
ACCEPTED = ROOT / "tests/browser/pictures"
AXE = ROOT / "webshim/page/node_modules/axe-core/axe.min.js"
THEMES = ("dark", "light")
# Larger ones have no place in a README.
LARGEST = 150_000
# Of 256 steps of a colour, in the mean of a square of 8 pixels. On 2026-11-30 a page that was moved by half a pixel,
# which changes each edge of each letter, differed by 19, and one without the small arrow of its bar by 26.
TOLERANCE = 22
# Ports, countdowns and ages are others each time; a cursor blinks; and what a finger has touched fades.
CHANGING = (
    ".xterm-cursor, #login-command, #own-command, .running li > :first-child, [data-state=reconnecting] .state, "
    "#all-tabs, #more-button"
)

RUN_AXE = """async (where) => {
  const {violations} = await axe.run(where ?? document, {preload: false, resultTypes: ["violations"]});
  return violations.map(({id, nodes}) => `${id}: ${nodes.map(({target, failureSummary}) =>
    `${target} ${failureSummary.replaceAll(/\\s+/g, " ")}`).join("; ")}`);
}"""
# A picture at an eighth of its size, without losses, and where it differs from the accepted one.
COMPARE = """async ({picture, accepted, changing}) => {
  const pixels = async (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const {width, height} = image;
    const canvas = new OffscreenCanvas(width, height).getContext("2d");
    canvas.drawImage(image, 0, 0);
    return canvas.getImageData(0, 0, width, height);
  };
  const shrink = ({data, width, height}, by) => {
    const small = new ImageData(Math.floor(width / by), Math.floor(height / by));
    for (let y = 0; y < small.height; y += 1) for (let x = 0; x < small.width; x += 1) {
      const sums = [0, 0, 0];
      for (let dy = 0; dy < by; dy += 1) for (let dx = 0; dx < by; dx += 1) {
        const at = ((y * by + dy) * width + x * by + dx) * 4;
        for (let part = 0; part < 3; part += 1) sums[part] += data[at + part];
      }
      small.data.set([...sums.map((sum) => sum / by / by), 255], (y * small.width + x) * 4);
    }
    return small;
  };
  const now = shrink(await pixels(picture), 8);
  const canvas = new OffscreenCanvas(now.width, now.height);
  canvas.getContext("2d").putImageData(now, 0, 0);
  const blob = await canvas.convertToBlob({type: "image/png"});
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const small = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  if (accepted === null) return {small, cells: []};
  const then = await pixels(accepted);
  if (then.width !== now.width || then.height !== now.height) return {small, cells: null};
  const cells = [];
  for (let y = 0; y < now.height; y += 1) for (let x = 0; x < now.width; x += 1) {
    const inside = ([left, top, right, bottom]) =>
      x * 8 + 8 > left && x * 8 < right && y * 8 + 8 > top && y * 8 < bottom;
    if (changing.some(inside)) continue;
    const at = (y * now.width + x) * 4;
    const difference = Math.max(...[0, 1, 2].map((part) => Math.abs(now.data[at + part] - then.data[at + part])));
    cells.push([difference, x * 8, y * 8]);
  }
  return {small, cells: cells.sort(([one], [other]) => other - one).slice(0, 40)};
}"""
BOXES = """(selector) => [...document.querySelectorAll(selector)].map((one) => one.getBoundingClientRect())
  .map(({left, top, right, bottom}) => [left, top, right, bottom])"""
# A list's lines break elsewhere when an age gets longer. What appears does so within a moment, also without motion.
DRAWN = """async () => {
  for (const line of document.querySelectorAll(".running li > :first-child")) {
    const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replace(/\\d+ (s|min) old/, "9 s old");
  }
  await document.fonts.ready;
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  const passing = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime < Infinity);
  await Promise.allSettled(passing.map(({finished}) => finished));
}"""


def shoot(page: Page) -> bytes:
    """A picture of the page as it is, in its own pixels, with nothing moving."""
    page.evaluate(DRAWN)
    return page.screenshot(animations="disabled", scale="css")


def compare(page: Page, picture: bytes, accepted: bytes | None) -> tuple[bytes, list[str]]:
    """The picture at small scale, and the places where it is another than the accepted one."""
    found: dict[str, Any] = page.evaluate(
        COMPARE,
        {
            "picture": base64.b64encode(picture).decode(),
            "accepted": accepted and base64.b64encode(accepted).decode(),
            "changing": page.evaluate(BOXES, CHANGING),
        },
    )
    small = base64.b64decode(found["small"])
    if found["cells"] is None:
        return small, ["another size"]
    differ = [f"{x},{y} by {round(by)}" for by, x, y in found["cells"] if by > TOLERANCE]
    return small, differ


def wear(page: Page, theme: str) -> None:
    """Another theme, drawn."""
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.evaluate(DRAWN)


def violations(page: Page, where: str | None = None) -> list[str]:
    """What axe-core finds wrong, in the whole page or in one element."""
    if not page.evaluate("() => 'axe' in globalThis"):
        page.evaluate(AXE.read_text())
    found: list[str] = page.evaluate(RUN_AXE, where)
    return found


@dataclass
class Looks:
    """Looks at one state after the other; ``verify`` reports what was wrong anywhere."""

    place: Path
    """For pictures that are not the accepted ones."""
    mistakes: list[str] = field(default_factory=list)
    screenshots: Path | None = field(default_factory=lambda: _path("SSHGATE_SCREENSHOTS"))
    accept: bool = field(default_factory=lambda: "SSHGATE_ACCEPT" in os.environ)

    def __post_init__(self) -> None:
        if not AXE.exists():
            pytest.skip("no axe-core: run scripts/page --check")

    def at(self, tab: Tab, name: str, keep: Iterable[str] = ("dark",)) -> None:
        """Both themes of a state. ``keep`` names those whose screenshots the README has."""
        for theme in THEMES:
            wear(tab.page, theme)
            picture = shoot(tab.page)
            if self.screenshots and theme in keep:
                (self.screenshots / f"{name}-{theme}.png").write_bytes(picture)
                assert len(picture) < LARGEST, f"{name} is too large for the README"
            self._compare(tab, picture, f"{name}-{theme}")
            self.mistakes += [f"{name}, {theme}: {found}" for found in violations(tab.page)]
        wear(tab.page, THEMES[0])

    def usable(self, tab: Tab, element: str) -> None:
        """One element in both themes, for axe-core only."""
        for theme in THEMES:
            wear(tab.page, theme)
            self.mistakes += [f"{element}, {theme}: {found}" for found in violations(tab.page, element)]
        wear(tab.page, THEMES[0])

    def verify(self) -> None:
        """Raises ``AssertionError`` with all that was wrong."""
        assert not self.mistakes, "\n".join(self.mistakes)

    def _compare(self, tab: Tab, picture: bytes, name: str) -> None:
        file = ACCEPTED / f"{name}.png"
        small, differ = compare(tab.page, picture, file.read_bytes() if file.exists() else None)
        if self.accept and (differ or not file.exists()):
            ACCEPTED.mkdir(exist_ok=True)
            file.write_bytes(small)
        elif not file.exists():
            self.mistakes.append(f"{name}: no accepted picture; look at it, then scripts/page --accept")
        elif differ:
            (self.place / f"{name}.png").write_bytes(picture)
            self.mistakes.append(
                f"{name}: {self.place / f'{name}.png'} is not the accepted {file.relative_to(ROOT)}, e.g. at "
                f"{', '.join(differ[:5])}; if it is to be so: scripts/page --accept"
            )


def _path(variable: str) -> Path | None:
    return Path(os.environ[variable]) if variable in os.environ else None
