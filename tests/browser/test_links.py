"""Links in the output: what opens them, what does not, and where they lead."""

from __future__ import annotations

from tests.browser.conftest import Enter
from tests.browser.test_hands import PHONE
from tests.rig.browser import PATIENCE, Door, Tab
from tests.rig.waiting import until

CELL = 4  # a column within the link


def _point(tab: Tab, column: int = CELL) -> tuple[float, float]:
    """The middle of a cell of the first line; the pointer is on it, and a link there is found."""
    box = tab.page.locator(".panel:visible .xterm-rows > div").nth(0).bounding_box()
    assert box is not None
    width = box["width"] / tab.size()[1]
    x, y = box["x"] + width * (column + 0.5), box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y + 60)
    tab.page.mouse.move(x, y, steps=4)
    tab.page.locator(".panel:visible .xterm-cursor-pointer").wait_for()
    return x, y


def _shows(tab: Tab, text: str) -> None:
    tab.run(f"clear; echo {text}", text)


def test_a_link_opens_without_this_page(door: Door, enter: Enter) -> None:
    """A new tab that knows nothing of the one it comes from; a link that hides its target is asked about."""
    tab = enter(door)
    target = f"{door.address.replace('127.0.0.1', 'a.test')}healthz"
    tab.page.context.route("http://a.test:*/**", lambda route: route.fulfill(body="there"))
    _shows(tab, target)
    with tab.page.context.expect_page() as opened:
        tab.page.keyboard.down("Control")
        tab.page.mouse.click(*_point(tab))
        tab.page.keyboard.up("Control")
    opened.value.wait_for_load_state()
    assert opened.value.evaluate("() => [opener, document.referrer]") == [None, ""]
    opened.value.close()
    tab.type(f"clear; printf '\\033]8;;{target}\\033\\\\harmless\\033]8;;\\033\\\\\\n'\n")
    tab.wait_line("harmless")
    tab.page.keyboard.down("Control")
    tab.page.mouse.click(*_point(tab))
    tab.page.keyboard.up("Control")
    assert tab.page.locator("#link-target").text_content() == target
    tab.page.get_by_role("button", name="Cancel").click()


def test_a_link_can_be_selected_and_copied(door: Door, enter: Enter) -> None:
    """Nothing but Ctrl with a plain click of the first button opens it, and the page says so."""
    tab = enter(door)
    opened = tab.page.context.pages
    for how in ("click", "double", "triple", "right", "middle", "drag", "control drag"):
        # Each another: the one before stays until the screen is cleared.
        _shows(tab, f"http://a.test/{how.replace(' ', '-')}")
        x, y = _point(tab)
        assert "Ctrl+click" in (tab.page.locator(".panel:visible .xterm").get_attribute("title") or "")
        _use(tab, how, x, y)
        tab.focused().page.keyboard.press("Control+C")
        # An interrupt throws away what is typed before the shell has noticed it.
        until(lambda: "^C" in "".join(tab.lines()), PATIENCE, "the interrupt")
        tab.run("echo on", "on")
        assert tab.page.context.pages == opened, how


def _use(tab: Tab, how: str, x: float, y: float) -> None:
    mouse = tab.page.mouse
    if how.endswith("drag"):
        if how == "control drag":
            tab.page.keyboard.down("Control")
        mouse.down()
        mouse.move(x + 60, y, steps=4)
        mouse.up()
        tab.page.keyboard.up("Control")
        assert tab.page.evaluate("() => sshgate.shown.screen.terminal.getSelection()")
    elif how in ("right", "middle"):
        mouse.click(x, y, button=how)  # type: ignore[arg-type]
        if how == "right":
            tab.page.locator("#context:popover-open").wait_for()
            tab.page.keyboard.press("Escape")
    else:
        mouse.click(x, y, click_count={"click": 1, "double": 2, "triple": 3}[how])


def test_a_tap_opens_a_link(door: Door, enter: Enter) -> None:
    """A finger has no Ctrl key."""
    tab = enter(door, **PHONE)
    tab.page.context.route("http://a.test/**", lambda route: route.fulfill(body="there"))
    _shows(tab, "http://a.test/plain")
    x, y = _point(tab)
    with tab.page.context.expect_page() as opened:
        tab.page.touchscreen.tap(x, y)
    opened.value.close()


def test_a_link_to_localhost_leads_to_the_sandbox(door: Door, enter: Enter) -> None:
    """The viewer's own machine is another; the page says how ssh reaches the port."""
    tab = enter(door)
    opened = tab.page.context.pages
    for address in ("http://localhost:8080/", "http://127.0.0.1:8081/x", "https://[::1]:8082/"):
        _shows(tab, address)
        tab.page.keyboard.down("Control")
        tab.page.mouse.click(*_point(tab))
        tab.page.keyboard.up("Control")
        tab.page.locator("#port-text", has_text="808").wait_for()
        assert tab.page.context.pages == opened
        tab.page.keyboard.press("Escape")


def test_the_port_of_a_named_sandbox_is_reached_by_ssh(door: Door, enter: Enter) -> None:
    """The command has the gateway's port, the user and the name."""
    tab = enter(door, permissions=["clipboard-read", "clipboard-write"])
    tab.new_session(profile="default", name="ports").prompt()
    _shows(tab, "http://localhost:8080/")
    tab.page.keyboard.down("Control")
    tab.page.mouse.click(*_point(tab))
    tab.page.keyboard.up("Control")
    tab.page.click("#port-copy")
    command = f"ssh -p {door.gateway.port} -L 8080:localhost:8080 dev=ports@127.0.0.1"
    # All tests of a run have one clipboard.
    until(lambda: tab.page.evaluate("() => navigator.clipboard.readText()") == command, PATIENCE, "a copy")
