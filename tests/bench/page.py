"""What the page does with a flood of output, in a real Chromium."""

from __future__ import annotations

from playwright.sync_api import sync_playwright

from tests.bench.measure import Row, Samples
from tests.bench.scene import Scene
from tests.rig.browser import ARGUMENTS, CHROMIUM, Door, Tab

MEGABYTES = 50
LINE = 100
LONGEST_MS = 200
LIMIT = 180.0

# The browser itself says which tasks took longer than 50 ms; while one runs, no key and no click is answered.
WATCH = """() => {
  globalThis.longest = 0;
  new PerformanceObserver((seen) => {
    for (const {duration} of seen.getEntries()) globalThis.longest = Math.max(globalThis.longest, duration);
  }).observe({type: "longtask"});
}"""


def draw(scene: Scene, runs: int) -> Row:
    """50 MB of lines through the gateway onto the screen: the longest time in which the page answers nothing."""
    gateway, ssh = scene.gateway("local", web=True)
    samples = Samples(f"longest task of the page while {MEGABYTES} MB are drawn")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        door = Door(gateway, f"http://{gateway.settings['web']['listen']}/", ssh)
        context = browser.new_context(viewport={"width": 1100, "height": 680})
        tab = Tab(context.new_page(), door.address).open(door.link()).new_session().prompt()
        for turn in range(min(runs, 3) + 1):
            figure = _flood(tab)
            if turn:
                samples.values.append(figure)
        browser.close()
    figure = max(samples.values)
    return Row("web-draw", "ms", samples, None, figure, f"below {LONGEST_MS} ms", figure < LONGEST_MS)


def _flood(tab: Tab) -> float:
    tab.run("clear; echo read''y", "ready")
    tab.page.evaluate(WATCH)
    tab.prompt().type(f"clear; seq -f '%0{LINE - 1}.0f' {MEGABYTES * 1_000_000 // LINE}; echo DO''NE\n")
    tab.wait_line("DONE", LIMIT)
    longest: float = tab.page.evaluate("() => globalThis.longest")
    return longest
