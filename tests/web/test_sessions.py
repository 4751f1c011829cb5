"""Sessions over a socket: what is typed and seen, how they end, and that they are come back to exactly once."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Callable
from typing import Any

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.web import Browser, Tab, address, browser, eventually, link, section


async def _shell(page: Browser, **wanted: object) -> Tab:
    made = await page.new(**wanted)
    tab = Tab(page, made["id"])
    await tab.open(made["ticket"])
    await tab.type(b"PS1='$ '; stty -echo; echo rea''dy\n")
    await tab.until(lambda: b"$ " in tab.text.partition(b"ready\r\n")[2], "prompt")
    return tab


async def test_a_new_session_shows_a_shell_of_the_right_size_and_its_end(page: Browser) -> None:
    tab = await _shell(page, cols=101, rows=37)
    assert (tab.hello["state"], tab.hello["start"]) in {("starting", "snapshot"), ("running", "snapshot")}
    await tab.type(b"stty size; echo $TERM $SSHGATE_USER [$SSH_CLIENT$SSH_CONNECTION]\n")
    await tab.see(b"24 80\r\nxterm-256color dev []\r\n")
    await tab.send("resize", cols=120, rows=50)
    await tab.type(b"sleep 0.1; stty size\n")
    await tab.see(b"50 120\r\n")
    await tab.type(b"exit 7\n")
    assert await tab.closed() == 1000
    assert tab.messages("exit") == [{"type": "exit", "code": 7, "signal": None, "reason": None}]
    assert (await page.ask("GET", f"api/sessions/{tab.session}"))[1]["exit"]["code"] == 7


async def test_bytes_go_through_as_they_are(page: Browser) -> None:
    tab = await _shell(page)
    await tab.type(b"stty raw; printf ra''w; head -c 255 | od -An -tx1 -v | tr -d ' \\n'; stty sane -echo\n")
    # Before that the terminal would edit them.
    await tab.see(b"raw")
    await tab.type(bytes(range(1, 256)))
    await tab.see(bytes(range(1, 256)).hex().encode())


async def test_output_is_seen_exactly_once_over_lost_sockets(page: Browser) -> None:
    tab = await _shell(page)
    begin = len(tab.text)
    # In parts that the ring holds: however late the next socket comes, nothing may be gone by then.
    await tab.type(b"for i in 0 1 2 3 4; do read go; seq $((i * 40000 + 1)) $((i * 40000 + 40000)); done; echo al''l\n")
    for part in range(5):
        await tab.type(b"\n")
        await tab.see(b"\n%d\r\n" % (part * 40_000 + 1000))
        tab.lose()
        await tab.closed()
        await tab.open()
        assert tab.hello["start"] == "resume"
        await tab.see(b"\n%d\r\n" % (part * 40_000 + 40_000), 60)
    await tab.see(b"all\r\n")
    wanted = b"".join(b"%d\r\n" % number for number in range(1, 200_001))
    seen = tab.text[begin:]
    assert hashlib.sha256(seen[seen.index(b"1\r\n") :][: len(wanted)]).digest() == hashlib.sha256(wanted).digest()


async def test_an_empty_terminal_gets_all_output_and_learns_where_the_replay_ends(page: Browser) -> None:
    tab = await _shell(page)
    await tab.leave()
    again = Tab(page, tab.session, tab=tab.tab)
    await again.open()
    assert (again.hello["start"], again.hello["offset"], again.hello["until"]) == ("snapshot", 0, tab.offset)
    await again.until(lambda: again.offset == tab.offset, "the replay")
    assert again.text == tab.text


async def test_a_snapshot_stands_in_for_the_output_before_it(page: Browser) -> None:
    tab = await _shell(page)
    await tab.type(b"seq 1 60000; echo al''l\n")
    await tab.see(b"all\r\n")
    await tab.until(lambda: tab.messages("snapshot_wanted"), "the wish for a snapshot")
    await tab.send("snapshot", offset=tab.offset, cols=80, rows=24, data="the screen")
    await tab.type(b"echo la''ter\n")
    await tab.see(b"later\r\n")
    await tab.leave()
    again = Tab(page, tab.session)
    await again.open()
    assert again.snapshot is not None
    assert again.snapshot["data"] == "the screen"
    await again.see(b"later\r\n")
    assert b"60000" not in again.text


async def test_what_the_ring_has_lost_is_drawn_again_by_the_program(page: Browser) -> None:
    tab = await _shell(page)
    flood = b"head -c 3000000 /dev/zero | tr '\\0' x | fold; echo al''l\n"
    await tab.type(b"trap 'echo dra''wn' WINCH; printf '\\033[?2004h\\033[?1002h'; " + flood)
    await tab.see(b"all\r\n", 60)
    again = Tab(page, tab.session)
    await tab.leave()
    await again.open()
    assert again.snapshot is not None
    assert "\x1b[?1002h" in again.snapshot["data"]
    assert again.hello["offset"] > 1_000_000
    await again.type(b"\n")
    await again.see(b"drawn\r\n")


async def test_a_named_sandbox_of_another_profile_is_opened_by_its_name_alone(
    gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh]
) -> None:
    made = gateway(provider, web=section(), profiles={"default": {}, "other": {"extends": "default"}})
    there = user_at(made).as_user("dev+other=kept")
    assert there.run("echo it >/tmp/mark").status == 0
    async with browser(address(made)) as fresh:
        await fresh.login(link(user_at(made)))
        session = await fresh.new(name="kept")
        assert session["profile"] == "other"
        tab = Tab(fresh, session["id"])
        await tab.open(session["ticket"])
        await tab.type(b"cat /tmp/mark\n")
        await tab.see(b"it\r\n")
        await fresh.ask("DELETE", f"api/sessions/{session['id']}")
    assert user_at(made).as_user("dev=kept").run("end", options=("-s",)).status == 0


async def test_another_tab_takes_over_only_when_asked(page: Browser) -> None:
    first = await _shell(page)
    second = Tab(page, first.session)
    await second.open()
    assert await second.closed() == 4409
    await first.type(b"echo st''ill\n")
    await first.see(b"still\r\n")
    await second.open(take_over=True)
    assert await first.closed() == 4410
    await second.type(b"echo mi''ne\n")
    await second.see(b"mine\r\n")


async def test_a_session_is_listed_and_deleted_with_its_program(page: Browser) -> None:
    tab = await _shell(page)
    await tab.send("title", text="vim\x1b[31m notes")
    await tab.send("ping", id=5)
    await tab.until(lambda: tab.messages("pong"), "pong")
    _, answer = await page.ask("GET", "api/sessions")
    assert [(each["id"], each["state"], each["attached"], each["title"]) for each in answer["sessions"]] == [
        (tab.session, "running", True, "vim[31m notes")
    ]
    assert (await page.ask("DELETE", f"api/sessions/{tab.session}"))[0] == 204
    assert await tab.closed() == 1000
    assert tab.messages("exit")[0]["reason"] == "this session was ended."
    assert (await page.ask("DELETE", f"api/sessions/{tab.session}"))[0] == 204
    assert (await page.ask("GET", "api/sessions"))[1] == {"sessions": []}


async def test_a_session_starts_before_its_socket_is_there(page: Browser) -> None:
    made = await page.new()
    tab = Tab(page, made["id"])

    async def running() -> bool:
        return bool((await page.ask("GET", f"api/sessions/{made['id']}"))[1]["state"] == "running")

    await eventually(running)
    await tab.open(made["ticket"])
    assert tab.hello["state"] == "running"


async def test_a_named_sandbox_is_the_same_for_the_browser_and_for_ssh(page: Browser, web_user: Ssh) -> None:
    tab = await _shell(page, name="work")
    await tab.type(b"echo from the browser >note; echo do''ne\n")
    await tab.see(b"done\r\n")
    seen = await asyncio.to_thread(web_user.as_user("dev=work").run, "cat note; echo from ssh >>note")
    assert seen.out == b"from the browser\n", seen.both
    await tab.type(b"cat note\n")
    await tab.see(b"from ssh\r\n")
    # Ending the session is not the end of a sandbox that has a name.
    await page.ask("DELETE", f"api/sessions/{tab.session}")
    assert (await asyncio.to_thread(web_user.as_user("dev=work").run, "wc -l <note")).out.strip() == b"2"
    assert (await asyncio.to_thread(web_user.as_user("dev=work").run, "end", options=("-s",))).status == 0


async def test_files_go_in_and_out_where_the_shell_is(page: Browser) -> None:
    tab = await _shell(page)
    await tab.type(b"mkdir -p 'a b' && cd 'a b' && echo in''side\n")
    await tab.see(b"inside\r\n")
    content = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(100_000))
    files = f"api/sessions/{tab.session}/files"
    status, answer = await page.ask("PUT", files, io.BytesIO(content), params={"path": "it's -1 \u00e4.bin"})
    assert (status, answer) == (201, {"path": "it's -1 \u00e4.bin", "bytes": len(content)})
    await tab.type(b"ls -A; pwd; sha256sum *\n")
    await tab.see(hashlib.sha256(content).hexdigest().encode())
    assert b".sshgate-upload" not in tab.text
    async with page.http.get(f"{page.url}/{files}", params={"path": "it's -1 \u00e4.bin"}) as got:
        assert (got.status, got.content_length) == (200, len(content))
        assert await got.read() == content
    for path, wanted in (("nothing", 404), ("/etc", 400), ("x/", 400), ("", 400)):
        assert (await page.ask("GET", files, params={"path": path}))[0] == wanted, path
    assert (await page.ask("PUT", files, b"x", params={"path": "no/such/place"}))[0] == 404


async def test_an_upload_that_breaks_off_leaves_nothing(page: Browser) -> None:
    tab = await _shell(page)
    await tab.type(b"mkdir empty && cd empty && echo in''side\n")
    await tab.see(b"inside\r\n")
    reader, writer = await asyncio.open_connection(*page.url.removeprefix("http://").split(":"))
    cookie = next(iter(page.http.cookie_jar))
    writer.write(
        f"PUT /api/sessions/{tab.session}/files?path=half HTTP/1.1\r\nHost: x\r\nOrigin: {page.origin}\r\n"
        f"Cookie: {cookie.key}={cookie.value}\r\nContent-Length: 1000000\r\n\r\n".encode()
    )
    writer.write(b"x" * 300_000)
    await writer.drain()
    await tab.type(b"until ls -A | grep -q upload; do sleep 0.05; done; echo be''gun\n")
    await tab.see(b"begun\r\n")
    writer.transport.abort()
    await tab.type(b"while ls -A | grep -q .; do sleep 0.05; done; echo no''thing\n")
    await tab.see(b"nothing\r\n")
    assert reader is not None


async def test_a_second_shell_is_in_the_same_sandbox_and_outlives_the_first(page: Browser) -> None:
    """Each has a directory for its files; the sandbox is deleted with the last of them."""
    first = await _shell(page)
    await first.type(b"mkdir /tmp/here; cd /tmp/here; echo 1 >mark; echo do''ne\n")
    await first.see(b"done\r\n")
    session = await page.new(beside=first.session)
    second = Tab(page, session["id"])
    await second.open(session["ticket"])
    await second.type(b"cat /tmp/here/mark; echo re''ad\n")
    await second.see(b"1\r\nread\r\n")
    assert await page.ask("GET", f"api/sessions/{first.session}/files?path=mark") == (200, 1)
    assert (await page.ask("GET", f"api/sessions/{second.session}/files?path=mark"))[0] == 404
    assert (await page.ask("DELETE", f"api/sessions/{first.session}"))[0] == 204
    await second.type(b"echo st''ill\n")
    await second.see(b"still\r\n")
    third = await page.new(beside=second.session)
    assert (await page.ask("DELETE", f"api/sessions/{second.session}"))[0] == 204
    tab = Tab(page, third["id"])
    await tab.open(third["ticket"])
    await tab.type(b"cat /tmp/here/mark; exit\n")
    await tab.see(b"1\r\n")
    assert await tab.closed() == 1000
    size = {"cols": 80, "rows": 24}
    assert (await page.ask("POST", "api/sessions", {"beside": third["id"], **size}))[0] == 409
    assert (await page.ask("POST", "api/sessions", {"beside": second.session, **size}))[0] == 404
    assert (await page.ask("POST", "api/sessions", {"beside": third["id"]}))[0] == 400
    assert (await page.ask("POST", "api/sessions", {"beside": third["id"], "name": "work", **size}))[0] == 400


async def test_a_session_is_renamed_and_says_its_last_line_and_its_clocks(page: Browser) -> None:
    """Only by its user; what is kept of a name is bounded and printable."""
    tab = await _shell(page)
    path = f"api/sessions/{tab.session}"
    assert (await page.ask("PATCH", path, {"label": "the\x1b build" + 200 * "x"}))[1]["label"] == "the build" + 71 * "x"
    assert (await page.ask("PATCH", path, {"label": 2000 * "x"}))[0] == 400
    assert (await page.ask("PATCH", "api/sessions/other", {"label": "x"}))[0] == 404
    _, now = await page.ask("GET", path)
    assert now["source"] == "127.0.0.1"
    assert set(now["ends"]) == {"lifetime", "idle"}
    await tab.type(b"printf '\\033]0;title\\007\\033[1mbo''ld\\033[0m\\n'\n")
    await tab.see(b"\x1b[0m\r\n")
    assert (await page.ask("GET", path))[1]["last"] in {"bold", "$ "}
    await tab.leave()
    await eventually(lambda: _is(page, path, "source", None))
    _, now = await page.ask("GET", path)
    assert now["last"] in {"bold", "$ "}
    await eventually(lambda: _has(page, path, "detached"))


async def _is(page: Browser, path: str, field: str, value: object) -> bool:
    return bool((await page.ask("GET", path))[1][field] == value)


async def _has(page: Browser, path: str, clock: str) -> bool:
    return clock in (await page.ask("GET", path))[1]["ends"]


async def test_named_sandboxes_are_listed_and_ended(page: Browser) -> None:
    """Those of their user, with what is known of each."""
    session = await page.new(name="kept")
    tab = Tab(page, session["id"])
    await tab.open(session["ticket"])
    await tab.until(lambda: b"$ " in tab.text or b"# " in tab.text, "prompt")

    async def listed() -> list[Any]:
        _, found = await page.ask("GET", "api/sandboxes")
        return [each for each in found["sandboxes"] if each["name"] == "kept"]

    async def attached() -> bool:
        return [each["state"] for each in await listed()] == ["attached"]

    await eventually(attached)
    (one,) = await listed()
    assert one["profile"] == "default"
    assert one["left"] > 60
    assert (await page.ask("DELETE", "api/sandboxes/kept"))[0] == 204
    assert await tab.closed() == 1000
    assert (await page.ask("DELETE", "api/sandboxes/kept"))[0] == 404
    assert await listed() == []


async def test_directories_are_listed_and_packed_for_their_user_only(page: Browser) -> None:
    """Where the shell is, by any kind of path; a file is no directory; parents are made when that is requested."""
    tab = await _shell(page)
    await tab.type(b"mkdir -p /tmp/d/e; cd /tmp/d; echo x >'a b'; echo do''ne\n")
    await tab.see(b"done\r\n")
    path = f"api/sessions/{tab.session}/files?list=1"
    status, found = await page.ask("GET", path)
    assert (status, found["path"], found["total"]) == (200, "/tmp/d", 2)
    first = found["entries"][0]
    assert (first["name"], first["kind"], first["size"]) == ("a b", "file", 2)
    assert [(await page.ask("GET", f"{path}&path={each}"))[1]["path"] for each in ("e", "/tmp/d/e/", "/", ".")] == [
        "/tmp/d/e", "/tmp/d/e", "/", "/tmp/d"
    ]  # fmt: skip
    for each, refused in (("a%20b", 400), ("nothing", 404), ("e&from=x", 400), ("e&from=99999999", 400), ("%00", 400)):
        assert (await page.ask("GET", f"{path}&path={each}"))[0] == refused
    files = f"api/sessions/{tab.session}/files"
    assert (await page.ask("PUT", f"{files}?path=new/deep/one", b"1"))[0] == 404
    assert (await page.ask("PUT", f"{files}?path=new/deep/one&parents=1", b"1"))[0] == 201
    assert await page.ask("GET", f"{files}?path=new/deep/one") == (200, 1)
    async with page.http.get(f"{page.url}/{files}?path=/tmp/d&as=tar") as got:
        assert got.headers["Content-Disposition"].startswith('attachment; filename="d.tar"')
        with tarfile.open(fileobj=io.BytesIO(await got.read())) as archive:
            names = archive.getnames()
    assert sorted(names) == [".", "./a b", "./e", "./new", "./new/deep", "./new/deep/one"]
