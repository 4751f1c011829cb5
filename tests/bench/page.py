"""What the page does with a flood of output, and how soon it is there on a slow line, in a real Chromium."""

from __future__ import annotations

from playwright.sync_api import sync_playwright

from tests.bench.measure import Row, Samples
from tests.bench.scene import Scene
from tests.rig.browser import ARGUMENTS, CHROMIUM, Door, Tab
from tests.rig.quiet_network import QuietNetwork

MEGABYTES = 50
LINE = 100
# The browser reports none below that.
LONGEST_MS = 50
LIMIT = 180.0
# A phone's line in the country, as Chromium's own tools have it: 1.6 Mbit/s, 300 ms there and back.
SLOW = {"offline": False, "latency": 300, "downloadThroughput": 200_000, "uploadThroughput": 94_000}
WORDS_SECONDS, PROMPT_SECONDS = 1.5, 3.5
PROMPT = """() => {
  const buffer = globalThis.sshgate?.shown?.screen?.terminal.buffer.active;
  const line = buffer?.getLine(buffer.baseY + buffer.cursorY)?.translateToString(true) ?? "";
  return /[$#] *$/.test(line) && performance.now();
}"""
WORDS = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"

# To read all lines would be a long task of its own.
DONE = """() => {
  const {active} = sshgate.shown.screen.terminal.buffer;
  return active.getLine(active.baseY + active.cursorY - 1)?.translateToString(true) === "DONE";
}"""
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
    tab.page.wait_for_function(DONE, polling=200, timeout=LIMIT * 1000)
    longest: float = tab.page.evaluate("() => globalThis.longest")
    return longest


def words(scene: Scene, runs: int) -> Row:
    """A first load on a slow line: from the address to the first words."""
    samples, _ = _loads(scene, runs)
    return Row(
        "web-words", "s", samples, None, samples.median, f"below {WORDS_SECONDS} s", samples.median < WORDS_SECONDS
    )


def first(scene: Scene, runs: int) -> Row:
    """The same, to the prompt of a session that runs already."""
    _, samples = _loads(scene, runs)
    figure = samples.median
    return Row("web-first", "s", samples, None, figure, f"below {PROMPT_SECONDS} s", figure < PROMPT_SECONDS)


def _loads(scene: Scene, runs: int) -> tuple[Samples, Samples]:
    gateway, ssh = scene.gateway("local", web=True)
    words, prompt = Samples("first load to words"), Samples("first load to the prompt of a running session")
    with QuietNetwork(scene.place) as network, sync_playwright() as playwright:
        network.open(int(gateway.settings["web"]["listen"].rpartition(":")[2]))
        browser = playwright.chromium.launch(executable_path=network.program(CHROMIUM), args=ARGUMENTS)
        door = Door(gateway, f"http://{gateway.settings['web']['listen']}/", ssh)
        before = browser.new_context()
        Tab(before.new_page(), door.address).open(door.link()).new_session().prompt()
        login = before.storage_state()
        before.close()
        for turn in range(runs + 1):
            # Logged in, and with nothing of the page.
            context = browser.new_context(storage_state=login)
            page = context.new_page()
            devtools = context.new_cdp_session(page)
            devtools.send("Network.enable")
            devtools.send("Network.emulateNetworkConditions", SLOW)
            page.goto(door.address, wait_until="commit")
            came = float(page.wait_for_function(PROMPT, timeout=LIMIT * 1000).json_value())
            if turn:
                words.values.append(page.evaluate(WORDS) / 1000)
                prompt.values.append(came / 1000)
            context.close()
        browser.close()
    return words, prompt
