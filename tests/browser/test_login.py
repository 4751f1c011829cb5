"""Who gets to the page: links, passwords, logging out; and no other site."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.browser.conftest import Enter, web
from tests.browser.test_hands import PHONE
from tests.conftest import MakeGateway
from tests.rig.browser import Door, Visitor
from tests.rig.gateway import Gateway, free_port
from tests.rig.quiet_network import QuietNetwork
from tests.rig.ssh import Ssh, make_key

# Whoever is not logged in is told so by a status, which the browser writes on its console.
NOT_LOGGED_IN = "401"


def test_a_link_logs_in_once_and_leaves_the_address(door: Door, visitors: Callable[..., Visitor]) -> None:
    """The ticket is gone from the address at once; a second use is refused, and says how to get another."""
    link = door.link()
    tab = visitors(door).tab().open(link)
    tab.page.locator("#first-session").wait_for()
    assert tab.page.url == door.address
    other = visitors(door).tab(NOT_LOGGED_IN).open(link)
    other.page.locator("#login-error", has_text="once").wait_for()
    command = f"ssh -p {door.gateway.port} -s YOU@127.0.0.1 web"
    assert other.page.locator("#login-command").text_content() == command
    other.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    other.page.click("#login-copy")
    other.page.locator("#login-copy", has_text="Copied").wait_for()
    assert other.page.evaluate("() => navigator.clipboard.readText()") == command


def test_a_login_in_another_tab_is_this_ones_too(door: Door, visitors: Callable[..., Visitor]) -> None:
    """The tab that waits for a login goes on by itself."""
    visitor = visitors(door)
    waiting = visitor.tab(NOT_LOGGED_IN).open()
    visitor.tab().open(door.link())
    waiting.page.locator("#first-session").wait_for()


@pytest.mark.parametrize("width", [320, 390])
def test_the_login_page_fits_a_phone(width: int, door: Door, visitors: Callable[..., Visitor]) -> None:
    """The card is within the screen."""
    tab = visitors(door, **{**PHONE, "viewport": {"width": width, "height": 700}}).tab(NOT_LOGGED_IN).open()
    card = tab.page.locator("#login .card").bounding_box()
    assert card is not None
    assert card["x"] >= 0
    assert card["x"] + card["width"] <= width
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") == width


def test_a_link_of_somebody_else_does_not_switch_the_user_unasked(
    door: Door, visitors: Callable[..., Visitor], tmp_path: Path
) -> None:
    """Staying is staying, and uses nothing up; switching is a choice."""
    (door.gateway.users / "mallory").write_text(make_key(tmp_path / "id") + "\n")
    mallory = Ssh(tmp_path, door.gateway.port, "mallory")
    tab = visitors(door).tab("409").open(door.link())
    link = replace(door, ssh=mallory).link()

    def user() -> str:
        return str(tab.page.evaluate("async () => (await (await fetch('api/me')).json()).user"))

    before = tab.page.context.new_page()
    before.goto(door.address)
    before.locator("#who", has_text="dev").wait_for()
    for choice, whose in (("Stay", "dev"), ("Switch", "mallory")):
        tab.page.goto("about:blank")
        tab.open(link)
        tab.page.locator("#switch-text", has_text="logs in mallory").wait_for()
        tab.page.get_by_role("button", name=choice).click()
        tab.page.locator("#first-session").wait_for()
        assert user() == whose
    # What a window requests is the new user's from now on: it begins again as them.
    before.locator("#who", has_text="mallory").wait_for()


def test_a_login_link_does_not_stay_in_the_address_while_files_are_under_way(
    door: Door, enter: Enter, tmp_path: Path
) -> None:
    """The browser would ask whether to leave, and keep the ticket where the person stays."""
    tab = enter(door)
    tab.page.route("**/files?*", lambda route: None)
    (tmp_path / "file").write_text("file\n")
    tab.page.set_input_files("#upload-files", tmp_path / "file")
    tab.page.locator(".notice", has_text="Uploading file").wait_for()
    tab.page.evaluate("() => (location.hash = '#login=none')")
    tab.notice("Files are under way.")
    assert "login" not in tab.page.url
    tab.page.get_by_role("button", name="Cancel").click()
    tab.page.locator(".panel:visible .xterm").click()
    tab.run("echo here", "here")


def test_a_page_that_was_here_before_asks_for_none_of_its_parts_again(
    door: Door, visitors: Callable[..., Visitor]
) -> None:
    """Only the page itself and what it is told of sessions come over the network."""
    tab = visitors(door).tab().open(door.link())
    tab.open()
    sizes = tab.page.evaluate(
        "() => performance.getEntriesByType('resource').filter(({name}) => name.includes('/at/'))"
        ".map(({transferSize}) => transferSize)"
    )
    assert len(sizes) >= 10
    assert not any(sizes)


def test_logging_out_takes_the_page_away(door: Door, enter: Enter) -> None:
    """The login page is there; the cookie is of no use any more."""
    tab = enter(door)
    tab.expected.append(NOT_LOGGED_IN)
    tab.page.click("#menu-button")
    tab.page.click("#logout")
    tab.page.locator("#login").wait_for()
    tab.page.reload()
    tab.page.locator("#login").wait_for()
    # What it left is ended by whoever logs in again.
    tab.open(door.link())


def test_a_password_logs_in(
    local: None, gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], visitors: Callable[..., Visitor]
) -> None:
    """A wrong one is refused with a sentence; the right one, typed over it, opens the page."""
    from argon2 import PasswordHasher

    port = free_port()
    served = gateway("local", web=web(port, users_file="web.users"))
    (served.place / "web.users").write_text(f"dev:{PasswordHasher().hash('a good password')}\n")
    door = Door(served, f"http://127.0.0.1:{port}/", user_at(served))
    tab = visitors(door).tab(NOT_LOGGED_IN).open()
    tab.page.fill("[name=user]", "dev")
    tab.page.focus("[name=password]")
    for password in ("a bad password", "a good password"):
        tab.type(f"{password}\n")
        if password.startswith("a bad"):
            tab.page.locator("#login-error:visible").wait_for()
    tab.page.locator("#first-session").wait_for()


def test_a_login_by_a_proxy_is_ended_there(
    local: None,
    gateway: MakeGateway,
    user_at: Callable[[Gateway], Ssh],
    visitors: Callable[..., Visitor],
    tmp_path: Path,
) -> None:
    """The page offers no logout that would change nothing, and says where there is one."""
    port = free_port()
    (tmp_path / "secret").write_text("a-secret-of-the-proxy")
    proxy = {"addresses": ["127.0.0.1"], "secret_file": str(tmp_path / "secret")}
    served = gateway("local", web=web(port, public_url=f"http://127.0.0.1:{port}", proxy=proxy))
    tab = visitors(Door(served, f"http://127.0.0.1:{port}/", user_at(served))).tab()
    tab.page.set_extra_http_headers({"X-Forwarded-User": "dev", "X-Sshgate-Secret": "a-secret-of-the-proxy"})
    tab.open()
    tab.page.click("#menu-button")
    tab.page.locator("#user", has_text="log out there").wait_for()
    assert tab.page.locator("#logout").is_hidden()


@pytest.fixture
def foreign(network: QuietNetwork) -> Iterator[Callable[[str], str]]:
    """A site on another origin; makes a page there that holds ours in a frame."""
    pages: dict[str, bytes] = {}

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    network.open(server.server_port)

    def page(address: str) -> str:
        pages["/"] = f'<iframe src="{address}" width=600 height=400></iframe>'.encode()
        return f"http://localhost:{server.server_port}/"

    yield page
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_frame_on_another_site_stays_blank(
    door: Door, visitors: Callable[..., Visitor], foreign: Callable[[str], str]
) -> None:
    """Whoever is logged in cannot be made to type into a frame."""
    visitor = visitors(door)
    visitor.tab().open(door.link())
    page = visitor.context.new_page()
    page.goto(foreign(door.address), wait_until="load")
    (frame,) = page.frames[1:]
    assert "sshgate" not in frame.content()
    # Chromium's own page of an error, at which nobody types.
    assert frame.url.startswith("chrome-error:")
    page.close()


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_lives_below_a_base_path(
    slash: str,
    local: None,
    gateway: MakeGateway,
    user_at: Callable[[Gateway], Ssh],
    visitors: Callable[..., Visitor],
) -> None:
    """Every address of the page is below the public one, with a slash at its end or without."""
    port = free_port()
    base = f"http://127.0.0.1:{port}/team/shell"
    served = gateway("local", web=web(port, public_url=base))
    door = Door(served, f"{base}{slash}", user_at(served))
    tab = visitors(door).tab(NOT_LOGGED_IN)
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.open()
    tab.open(door.link())
    tab.new_session().run("echo below", "below")
    assert asked
    assert all(url == base or url.startswith(f"{base}/") for url in asked)
