"""Tokens for one use, and the secret that cookies and tokens are signed with."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshgate.errors import ConfigError
from webshim.credentials import OneTimeTokens, Principal, load

ALICE = Principal("alice", "link", "SHA256:key", "id", 0.0, 1e12)


def test_one_time_tokens_are_bounded() -> None:
    tokens: OneTimeTokens[int] = OneTimeTokens(30.0)
    first = tokens.issue(0)
    last = [tokens.issue(number) for number in range(10_000)][-1]
    assert tokens.take(first) is None
    assert tokens.take(last) == 9_999
    assert tokens.take(last) is None


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
