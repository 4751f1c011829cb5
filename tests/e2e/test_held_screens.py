"""What a client is shown that joins a held session: the screen equals that of a twin that was never left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.rig import emulator
from tests.rig.emulator import Drawn
from tests.rig.ssh import Ssh

INLINE = Path(emulator.__file__).with_name("inline.py")
TEXT = "seq -f 'line %g of a text that has some more words in it, so that it fills most of a line' 1 300 >/tmp/text; "
SIZES = {"the same size": (80, 24), "wider": (120, 40), "smaller": (60, 15)}
# What runs, what is typed, and what is on the screen then. Each piece is typed once the screen stands still.
PROGRAMS: dict[str, tuple[str, list[str]]] = {
    "bash": (
        "PS1='$ ' exec bash --norc",
        ["seq -f 'line %g of the history' 1 200\r", "ls --color=always / | head -3\r", "echo not"],
    ),
    "vim": (TEXT + "exec vim -nNu NONE -i NONE /tmp/text", ["100G", "iinserted \x1b", "vjj"]),
    "vim, left": (TEXT + "PS1='$ ' exec bash --norc", ["ls -d /\r", "vim -nNu NONE -i NONE /tmp/text\r", "5G", ":q\r"]),
    "less": (TEXT + "exec less /tmp/text", ["  ", "/words\r"]),
    "tmux": (
        TEXT + "exec tmux -L $$ -f /dev/null new 'head -50 /tmp/text; exec cat' ';' "
        "set status-right '' ';' setw automatic-rename off",
        ["some words"],
    ),
    "inline": ("exec python3 /tmp/inline.py 150", ["typed", "x"]),
    "inline, cleared": ("exec python3 /tmp/inline.py 150 clears", ["typed", "x"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def work(make_gateway: MakeGateway, user_at: Callable[..., Ssh], provider: str) -> Iterator[Ssh]:
    gateway = make_gateway(provider, profiles={"default": {"hold": "named", "limits": {"sessions": 100}}})
    work = user_at(gateway).as_user("dev=work")
    assert work.run("cat >/tmp/inline.py", stdin=INLINE.read_bytes()).status == 0
    yield work
    assert work.run("end", options=("-s",)).status == 0


def on(work: Ssh, session: str, command: str, size: tuple[int, int] = (80, 24)) -> Drawn:
    return Drawn(work.as_user(f"dev=work={session}").argv(command, options=("-tt",)), *size)


def begin(work: Ssh, session: str, name: str) -> Drawn:
    command, typed = PROGRAMS[name]
    terminal = on(work, session, command)
    terminal.drawn()
    for keys in typed:
        terminal.type(keys)
        terminal.drawn()
    return terminal


def alike(held: Drawn, twin: Drawn) -> None:
    """Both show the same, within some looks: on a busy machine a program may pause in the middle of a screen."""
    for _ in range(4):
        shown, wanted = held.drawn(), twin.drawn()
        if shown == wanted:
            return
    assert shown == wanted


# A frame that was wrapped by a narrower window spoils the twin's own screen, unless its program clears it.
# Vim scrolls by each size on the way, and for who joins there is one more: the same text, some lines further.
SPOILT = {("inline", "smaller"), ("vim", "wider")}
# What a window's size changes is the same in a pod.
CASES = [
    pytest.param(provider, name, size, marks=getattr(pytest.mark, mark))
    for provider, mark, sizes in (("local", "local", list(SIZES)), ("kubernetes", "cluster", ["the same size"]))
    for name in PROGRAMS
    for size in sizes
    if (name, size) not in SPOILT
]


@pytest.mark.parametrize(("provider", "name", "size"), CASES, indirect=["provider"])
def test_the_screen_equals_that_of_a_twin(work: Ssh, name: str, size: str) -> None:
    session = "".join(one for one in f"{name}-{size}" if one.isalnum() or one == "-")
    with begin(work, session, name):
        pass
    with begin(work, f"{session}-twin", name) as twin, on(work, session, "false", SIZES[size]) as held:
        if size != "the same size":
            twin.resize(*SIZES[size])
        # Both react to the same key, so none of them is only a picture.
        alike(held, twin)
        for terminal in (held, twin):
            terminal.type("j")
        alike(held, twin)


def test_top_is_the_same_for_who_stays_and_who_comes(work: Ssh) -> None:
    """Its numbers change, so the twin is another client of the same session."""
    with on(work, "top", "exec top -d 600") as twin:
        twin.drawn()
        with on(work, "top", "false") as held:
            alike(held, twin)


def test_who_comes_to_a_full_screen_program_finds_the_shell_behind_it(work: Ssh) -> None:
    with begin(work, "behind", "bash") as left:
        left.type("\x15vim -nNu NONE -i NONE\r")
        left.drawn()
    with begin(work, "behind-twin", "bash") as twin, on(work, "behind", "false") as held:
        twin.type("\x15vim -nNu NONE -i NONE\r")
        held.drawn(), twin.drawn()
        for terminal in (held, twin):
            terminal.type(":q\r")
        alike(held, twin)


def test_frames_drawn_in_place_stay_in_place_in_a_narrower_window(work: Ssh) -> None:
    with begin(work, "narrow", "inline"):
        pass
    with on(work, "narrow", "false", SIZES["smaller"]) as held:
        shown = held.drawn()
    printed = [line for line in shown["history"] if line] + ["".join(map(str, line)) for line in shown["lines"]]
    assert sum("frames)" in line for line in printed) == 1
    assert sum("of the answer" in line for line in printed) == 15
