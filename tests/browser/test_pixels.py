"""What is really drawn, without a graphics card: some characters vanish between two pixels."""

from __future__ import annotations

import base64

import pytest

from tests.browser.conftest import Enter
from tests.browser.test_hands import PHONE
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.looks import THEMES
from tests.rig.waiting import until

# The greatest difference from the background, per row of pixels and per column: 0 to 765.
CONTRAST = """async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const {width, height} = image;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const {data} = canvas.getImageData(0, 0, width, height);
  const rows = new Array(height).fill(0);
  for (let at = 0; at < data.length; at += 4) {
    const row = Math.floor(at / 4 / width);
    const contrast = Math.abs(data[at] - 0x11) + Math.abs(data[at + 1] - 0x14) + Math.abs(data[at + 2] - 0x1a);
    rows[row] = Math.max(rows[row], contrast);
  }
  return rows;
}"""
CLEAR = 150
# How far the characters reach over the room that they have: to the right, where the scrollbar is, and below.
BEYOND = """async () => {
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  const [box, screen, bar] = [".terminal", ".xterm-screen", ".scrollbar.vertical"]
    .map((part) => document.querySelector(`.panel ${part}`).getBoundingClientRect());
  return [screen.right - bar.left, screen.bottom - box.bottom];
}"""
# Of the ground, and of the spans with these words.
COLOURS = """(words) => {
  const spans = [...document.querySelectorAll(".panel .xterm-rows span")];
  const ground = document.createElement("i");
  ground.style.color = sshgate.shown.screen.terminal.options.theme.background;
  const found = words.map((word) => spans.find(({textContent}) => textContent === word));
  return [ground.style.color, ...found.map((span) => span && getComputedStyle(span).color)];
}"""


def _rows(tab: Tab, text: str, count: int) -> list[int]:
    """The contrast of each row of pixels in the first lines of the screen."""
    # Two frames: a size that has changed is drawn in the second.
    tab.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    tab.page.evaluate("(text) => sshgate.shown.screen.terminal.write(`\\x1b[?25l\\x1b[2J\\x1b[H${text}`)", text)
    lines = tab.page.locator(".panel:visible .xterm-rows > div")
    lines.nth(count - 1).filter(has_text=text[:1]).wait_for()
    first, last = lines.nth(0).bounding_box(), lines.nth(count - 1).bounding_box()
    assert first is not None
    assert last is not None
    clip = {"x": first["x"], "y": first["y"], "width": 40, "height": last["y"] + last["height"] - first["y"]}
    png = tab.page.screenshot(clip=clip, animations="disabled")  # type: ignore[arg-type]
    rows: list[int] = tab.page.evaluate(CONTRAST, base64.b64encode(png).decode())
    return rows


@pytest.mark.parametrize("size", range(10, 17))
def test_underscores_and_frames_are_drawn(size: int, door: Door, enter: Enter) -> None:
    """An underscore is seen in each size, and a vertical line of a frame has no gap between two lines."""
    tab = enter(door)
    # A shell would draw its prompt again for each size.
    tab.run("clear; echo qui''et; sleep 1000", "quiet")
    tab.page.evaluate(
        """(fontSize) => import(document.querySelector("link[rel=modulepreload][href*=page]").href)
             .then(({modules}) => modules["settings.js"]().change({fontSize}))""",
        size,
    )
    assert max(_rows(tab, "____", 1)) > CLEAR, "no underscore"
    frame = _rows(tab, "││││\r\n││││\r\n││││", 3)
    assert min(frame) > CLEAR, f"gaps in a frame: {frame}"


@pytest.mark.parametrize("width", [390, 1100])
def test_the_last_column_and_the_last_line_are_in_sight(width: int, door: Door, enter: Enter) -> None:
    """At any size of the window: no column under the scrollbar, no line below the box."""
    tab = enter(door, **(PHONE if width < 600 else {}))
    tab.run("seq 100; echo sc''rolls", "scrolls")
    for more in range(0, 18, 3):
        tab.page.set_viewport_size({"width": width + more, "height": 660 + more})
        until(lambda: max(tab.page.evaluate(BEYOND)) <= 0, PATIENCE, f"all characters in sight with {more} more")


def test_reversed_text_has_the_colour_of_the_ground(door: Door, enter: Enter) -> None:
    """As the lines of editors and pagers are drawn; it was greyed until it differed from the colour of other text."""
    tab = enter(door)
    words = "plain", "yellow", "bold"
    shown = "\x1b[7mplain\x1b[0m \x1b[7;33myellow\x1b[0m \x1b[7;1mbold\x1b[0m"
    tab.page.evaluate("(shown) => sshgate.shown.screen.terminal.write(shown)", shown)
    for theme in THEMES:
        tab.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]

        def colours(theme: str = theme) -> bool:
            ground, *found = tab.page.evaluate(COLOURS, words)
            return (ground == "rgb(17, 20, 26)") is (theme == "dark") and bool(found == 3 * [ground])

        until(colours, PATIENCE, f"text in the colour of the ground, {theme}; not {tab.page.evaluate(COLOURS, words)}")
