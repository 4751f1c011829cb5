"""The variables by which agents in a sandbox find the broker, and those of clients that must not get there. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sshgate.broker.keys import VARIABLES, brought_key
from sshgate.config.model import Profile
from sshgate.config.values import is_credential
from sshgate.sandbox.launcher import quote

PLACEHOLDER = "sshgate"
"""What stands for a key in a sandbox. Agents want one; the broker removes it."""

# By provider: where it is found, and what makes its agents start without a question.
_ROUTES: Mapping[str, Mapping[str, str]] = {
    # Aider does not know the token; Claude Code asks about a key in ANTHROPIC_API_KEY.
    "anthropic": {
        "ANTHROPIC_BASE_URL": "{base}/anthropic", "ANTHROPIC_AUTH_TOKEN": PLACEHOLDER,
        "AIDER_ANTHROPIC_API_KEY": PLACEHOLDER,
    },
    "openai": {
        "OPENAI_BASE_URL": "{base}/openai/v1", "OPENAI_API_BASE": "{base}/openai/v1", "OPENAI_API_KEY": PLACEHOLDER,
    },
    "gemini": {
        "GOOGLE_GEMINI_BASE_URL": "{base}/gemini", "GEMINI_API_BASE": "{base}/gemini/v1beta",  # Aider knows the second
        "GEMINI_API_KEY": PLACEHOLDER,
    },
}  # fmt: skip
# Else Aider asks about .gitignore, what is new in it and statistics, and looks for updates.
_AIDER = dict.fromkeys(
    ("AIDER_GITIGNORE", "AIDER_SHOW_RELEASE_NOTES", "AIDER_ANALYTICS", "AIDER_CHECK_UPDATE"), "false"
)
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "anthropic": {
        # Else the title of every first prompt is asked of the dearest model.
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "claude-haiku-4-5",
        # Off where the base URL is not the provider's.
        "ENABLE_TOOL_SEARCH": "true",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
        "DISABLE_UPDATES": "1",
        # No question whether the directory is trusted, which is not documented, and none about themes and the like.
        "CLAUDE_CODE_SANDBOXED": "1",
        "IS_DEMO": "1",
    },
    # Without it Gemini CLI ends where it has no terminal to ask on.
    "gemini": {"GEMINI_CLI_TRUST_WORKSPACE": "true"},
}


@dataclass(frozen=True, slots=True)
class Brought:
    """A client's environment without credentials, the keys among them by provider, and sentences for the user."""

    environment: Mapping[str, bytes]
    keys: Mapping[str, str]
    variables: Mapping[str, str]
    """By the variable that held a key: its provider."""
    sentences: tuple[str, ...]
    """What the user should know of the others."""

    def of_keys(self, elsewhere: bool) -> tuple[str, ...]:
        """What the user should know of the keys. ``elsewhere``: another gateway has the sandbox's port open."""
        return tuple(
            f"your {name} is not used yet: another gateway answers this sandbox, by the key of {provider} that it has."
            if elsewhere
            else f"your {name} stays outside: the broker adds it to what this sandbox asks {provider}."
            for name, provider in self.variables.items()
        )


def routes(profile: Profile, port: int) -> dict[str, str]:
    """The variables that lead agents to the broker. Neither a client nor the profile can set them otherwise."""
    if not profile.brokered:
        return {}
    base = f"http://127.0.0.1:{port}"
    found = {"SSHGATE_BROKER": base}
    for provider in profile.models:
        found |= {name: text.format(base=base) for name, text in _ROUTES[provider].items()}
    return found | _git(profile.git, base) | (_proxy(base) if profile.egress is not None else {})


def _git(hosts: Sequence[str], base: str) -> dict[str, str]:
    """The variables by which git asks the broker instead of these hosts, also where an address is one for ssh."""
    pairs = [
        (f"url.{base}/git/{host}/.insteadOf", address)
        for host in hosts
        for address in (f"https://{host}/", f"git@{host}:", f"ssh://git@{host}/")
    ]
    found = {"GIT_CONFIG_COUNT": str(len(pairs))} if pairs else {}
    for number, (key, value) in enumerate(pairs):
        found |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return found


def _proxy(base: str) -> dict[str, str]:
    """The variables by which programs find the proxy. Some read the names in capitals, some the others."""
    found = {"http_proxy": base, "https_proxy": base, "no_proxy": "localhost,127.0.0.1,::1"}
    return found | {name.upper(): text for name, text in found.items()}


def defaults(profile: Profile) -> dict[str, str]:
    """More variables for agents, which the profile and a client may set otherwise."""
    found = dict(_AIDER) if profile.models else {}
    found |= {name: text for provider in profile.models for name, text in _DEFAULTS.get(provider, {}).items()}
    # Else `fetch` of Node, and what is built on it, knows no proxy.
    return found | ({"NODE_USE_ENV_PROXY": "1"} if profile.egress is not None else {})


def files(profile: Profile, port: int) -> dict[str, str]:
    """The settings files of agents that do not follow variables alone, by their paths in the home directory.

    Claude Code's background agents take the address from there only; so does Codex.
    """
    found: dict[str, str] = {}
    variables = routes(profile, port)
    if "anthropic" in profile.models:
        ours = {**_DEFAULTS["anthropic"], **{name: variables[name] for name in _ROUTES["anthropic"]}}
        found[".claude/settings.json"] = json.dumps({"env": ours}, indent=2)
        options = {"baseURL": f"{variables['ANTHROPIC_BASE_URL']}/v1", "apiKey": PLACEHOLDER}
        opencode = {"provider": {"anthropic": {"options": options}}}
        found[".config/opencode/opencode.json"] = json.dumps(opencode, indent=2)
    if "openai" in profile.models:
        found[".codex/config.toml"] = (
            'model_provider = "sshgate"\n[model_providers.sshgate]\nname = "sshgate"\n'
            f'base_url = "{variables["OPENAI_BASE_URL"]}"\nenv_key = "OPENAI_API_KEY"\n'
            'wire_api = "responses"\nsupports_websockets = false\n'
        )
    if "gemini" in profile.models:
        found[".gemini/settings.json"] = json.dumps(
            {"security": {"auth": {"selectedType": "gemini-api-key"}}}, indent=2
        )
    return found


def script(profile: Profile, port: int) -> bytes:
    """A shell command that writes those files, each where its user has none."""
    commands = [
        b'f="$HOME"/%s;[ -e "$f" ]||{ mkdir -p "${f%%/*}"&&printf "%%s\\n" %s >"$f";};'
        % (path.encode(), quote(text.encode()))
        for path, text in files(profile, port).items()
    ]
    return b"(umask 077;set -C;%s) 2>/dev/null;" % b"".join(commands) if commands else b""


def without_credentials(environment: Mapping[str, bytes], profile: Profile) -> Brought:
    """Take the credentials out of a client's environment, in a profile with models; in others they pass."""
    kept: dict[str, bytes] = {}
    keys: dict[str, str] = {}
    variables: dict[str, str] = {}
    sentences: list[str] = []
    for name, value in environment.items():
        if not profile.models or not is_credential(name):
            kept[name] = value
            continue
        if not value or value == PLACEHOLDER.encode():
            continue
        provider = VARIABLES.get(name, "")
        try:
            key = brought_key(value)
        except ValueError as error:
            sentences.append(f"{name}: {error}")
            continue
        if key is not None and provider in profile.models:
            keys[provider] = key
            variables[name] = provider
        else:
            sentences.append(f"your {name} was not passed on: no key gets into a sandbox of this profile.")
    return Brought(kept, keys, variables, tuple(sentences))
