"""What programs in a sandbox get to find the broker, and what of a client's environment does not get there."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from sshgate.broker.environment import PLACEHOLDER, defaults, routes, script, without_credentials
from sshgate.config.model import Profile

ALL = Profile(models=("anthropic", "openai", "gemini"))
NONE = Profile()


def test_the_variables_lead_to_the_port_and_hold_no_key() -> None:
    found = routes(ALL, 4711)
    assert found["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4711/anthropic"
    assert found["OPENAI_BASE_URL"] == "http://127.0.0.1:4711/openai/v1"
    assert found["GOOGLE_GEMINI_BASE_URL"] == "http://127.0.0.1:4711/gemini"
    assert {value for name, value in found.items() if "KEY" in name or "TOKEN" in name} == {PLACEHOLDER}
    # Aider, in any profile with models: which model, where it is, and none of its questions.
    assert found["AIDER_ANTHROPIC_API_KEY"] == PLACEHOLDER
    assert found["OPENAI_API_BASE"] == found["OPENAI_BASE_URL"]
    assert found["GEMINI_API_BASE"] == found["GOOGLE_GEMINI_BASE_URL"] + "/v1beta"
    assert defaults(Profile(models=("openai",))) == {
        f"AIDER_{name}": "false" for name in ("GITIGNORE", "SHOW_RELEASE_NOTES", "ANALYTICS", "CHECK_UPDATE")
    }
    assert routes(NONE, 4711) == defaults(NONE) == {}
    assert defaults(Profile(models=("gemini",)))["GEMINI_CLI_TRUST_WORKSPACE"] == "true"
    assert script(NONE, 4711) == b""


def test_credentials_of_a_client_are_taken_out() -> None:
    sent = {
        "LANG": b"C", "ANTHROPIC_MODEL": b"opus", "ANTHROPIC_API_KEY": b"sk-mine\n", "OPENAI_API_KEY": b"sk-other",
        "ANTHROPIC_AUTH_TOKEN": b"theirs", "CLAUDE_CODE_OAUTH_TOKEN": b"sk-ant-oat01-x", "GH_API_KEY": b"x",
        "ANTHROPIC_CUSTOM_HEADERS": b"x-key: x", "GEMINI_API_KEY": b"two words",
    }  # fmt: skip
    found = without_credentials(sent, ALL)
    assert found.environment == {"LANG": b"C", "ANTHROPIC_MODEL": b"opus"}
    assert found.keys == {"anthropic": "sk-mine", "openai": "sk-other"}
    assert not any("sk-" in text for text in (*found.sentences, *found.of_keys(False)))
    assert found.of_keys(False)[0].startswith("your ANTHROPIC_API_KEY stays outside")
    assert found.of_keys(True)[0].startswith("your ANTHROPIC_API_KEY is not used yet")
    (refused,) = [text for text in found.sentences if text.startswith("CLAUDE_CODE_OAUTH_TOKEN")]
    assert "subscription" in refused
    only = without_credentials(sent, Profile(models=("openai",)))
    assert only.keys == {"openai": "sk-other"}


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE",
        "ANTHROPIC_CUSTOM_HEADERS",
    ],
)  # fmt: skip
def test_a_variable_with_a_credential_is_taken_out(name: str) -> None:
    assert without_credentials({name: b"x"}, ALL).environment == {}


@pytest.mark.parametrize(
    "name", ["FOO_API_KEY_FILE", "ANTHROPIC_CUSTOM_HEADERS_X", "CLAUDE_CODE_MAX_OUTPUT_TOKENS", "ANTHROPIC_MODEL"]
)
def test_a_variable_that_only_looks_like_one_stays(name: str) -> None:
    assert without_credentials({name: b"x"}, ALL).environment == {name: b"x"}


def test_an_empty_variable_and_the_placeholder_are_no_keys() -> None:
    found = without_credentials({"ANTHROPIC_API_KEY": b"", "OPENAI_API_KEY": PLACEHOLDER.encode()}, ALL)
    assert (found.keys, found.sentences) == ({}, ())


def test_settings_files_are_written_where_there_is_none(tmp_path: Path) -> None:
    mine = tmp_path / ".codex" / "config.toml"
    mine.parent.mkdir()
    mine.write_text("mine = 1\n")
    for _ in range(2):
        subprocess.run(
            ["sh", "-c", script(ALL, 4712)], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True
        )
    assert mine.read_text() == "mine = 1\n"
    claude = json.loads((tmp_path / ".claude/settings.json").read_text())
    assert claude["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4712/anthropic"
    assert json.loads((tmp_path / ".gemini/settings.json").read_text())
    opencode = json.loads((tmp_path / ".config/opencode/opencode.json").read_text())["provider"]["anthropic"]["options"]
    assert opencode == {"baseURL": "http://127.0.0.1:4712/anthropic/v1", "apiKey": PLACEHOLDER}
    mine.unlink()
    subprocess.run(["sh", "-c", script(ALL, 4712)], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True)
    assert tomllib.loads(mine.read_text())["model_provider"] == "sshgate"


def test_a_home_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = subprocess.run(
        ["sh", "-c", script(ALL, 4711) + b"echo on"], env={"HOME": str(tmp_path / "file"), "PATH": "/usr/bin:/bin"},
        check=True, capture_output=True,
    )  # fmt: skip
    assert (run.stdout, run.stderr) == (b"on\n", b"")
