"""Tokens for one use, and the secret that cookies and tokens are signed with."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshgate.errors import ConfigError
from webshim.credentials import OneTimeTokens, Principal, load
from webshim.socket import Ticket

ALICE = Principal("alice", "link", "SHA256:key", "id", 0.0, 1e12)


def test_one_time_tokens_are_bounded() -> None:
    """One user's flood costs that user the oldest, and nobody else any."""
    tokens: OneTimeTokens[Ticket] = OneTimeTokens(30.0)
    other = tokens.issue(Ticket("bob", "1"))
    first = tokens.issue(Ticket("alice", "first"))
    last = [tokens.issue(Ticket("alice", str(number))) for number in range(20_000)][-1]
    later = tokens.issue(Ticket("cyd", "2"))
    assert tokens.take(first) is None
    assert tokens.take(last) == Ticket("alice", "19999")
    assert tokens.take(last) is None
    assert (tokens.take(other), tokens.take(later)) == (Ticket("bob", "1"), Ticket("cyd", "2"))


def test_the_secret_is_made_once_and_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "web"
    word = load(path).sign("cookie", ALICE)
    assert load(path).read("cookie", word) == ALICE
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="shorter"):
        load(path)
