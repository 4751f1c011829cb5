"""The gateway's own subsystems: which there are, and that asking costs no sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.rig.gateway import Gateway
from tests.rig.ssh import Ended, Ssh

pytestmark = pytest.mark.local


@dataclass
class Desk:
    """A user who asks a gateway that keeps an audit file."""

    gateway: Gateway
    user: Ssh

    def ask(self, *words: str, terminal: bool = False) -> Ended:
        return self.user.run(*words, options=("-tt", "-s") if terminal else ("-s",))

    def events(self, code: str) -> list[dict[str, Any]]:
        lines = (self.gateway.place / "audit").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == code]


@pytest.fixture(scope="module")
def desk(make_gateway: Callable[..., Gateway], local: None, user_at: Callable[[Gateway], Ssh]) -> Desk:
    gateway = make_gateway("local", telemetry={"audit": "audit"}, web={"listen": "127.0.0.1:0", "secret": "web.secret"})
    return Desk(gateway, user_at(gateway))


@pytest.mark.parametrize("word", ["typo", "netconf", "-x", "sftp-server"])
def test_an_unknown_subsystem_is_refused_with_those_there_are_and_makes_no_sandbox(desk: Desk, word: str) -> None:
    before = len(desk.events("sandbox.claim"))
    ended = desk.ask(word)
    assert (ended.status, ended.out) == (126, b"")
    assert f"there is no subsystem '{word}' here; see `ssh -s USER@HOST help`: config, delete-home, " in ended.both
    assert len(desk.events("sandbox.claim")) == before


def test_help_has_a_line_for_each(desk: Desk) -> None:
    ended = desk.ask("help")
    assert ended.status == 0
    lines = ended.out.decode().splitlines()
    there = {line.split()[3] for line in lines if line.startswith("ssh -s USER@HOST ")}
    assert len(there) == len(lines)
    assert there >= {"help", "sftp", "receipt", "config", "sandboxes", "end", "homes", "delete-home", "web", "token"}
    assert all(len(line) <= 120 for line in lines)
    unknown = desk.ask("typo").both
    assert all(name in unknown for name in there)


def test_a_word_too_many_is_refused_not_left_out(desk: Desk) -> None:
    ended = desk.ask("sandboxes", "alice")
    assert (ended.status, ended.out) == (126, b"")
    assert "say just `ssh -s USER@HOST sandboxes [--json]`." in ended.both


def test_each_verb_that_lists_has_json(desk: Desk) -> None:
    lists = [line.split()[3] for line in desk.ask("help").out.decode().splitlines() if "[--json]" in line]
    assert {"sandboxes", "sessions", "tokens", "shares", "homes", "egress", "usage"} == set(lists)
    for verb in lists:
        ended = desk.ask(verb, "--json")
        # A sandbox on this machine keeps nothing.
        assert ended.status == (126 if verb == "homes" else 0), ended.both
        assert verb == "homes" or json.loads(ended.out) is not None
    for verb in lists:
        assert f"say just `ssh -s USER@HOST {verb} [--json]`." in desk.ask(verb, "--yaml").both
