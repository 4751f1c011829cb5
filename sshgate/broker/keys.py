"""The API keys of providers: the operator's, from files that are read again when they change, and those users bring."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sshgate.broker.caller import Refused
from sshgate.config.values import is_user

if TYPE_CHECKING:
    from sshgate.config.model import GitHost, Model, Provider

# Bytes of a file with a key. Keys have some hundred.
LONGEST_KEY = 4096
# Files whose keys are remembered. Beyond that, all are read again.
MOST_FILES = 10_000
# A header's value without blanks.
_KEY = re.compile(r"[\x21-\x7e]+\Z")
# Of a subscription. Its terms forbid others to keep it, or to pass it on.
_SUBSCRIPTION = "sk-ant-oat"

VARIABLES: Mapping[str, Provider] = {
    "ANTHROPIC_API_KEY": "anthropic",
    "OPENAI_API_KEY": "openai",
    "GEMINI_API_KEY": "gemini",
    "GOOGLE_API_KEY": "gemini",
}
"""The provider of the key in each of the variables by which users bring one."""


class Keys:
    """The operator's keys. Never shown by ``repr``, in an error, or in a log."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, ...], str]] = {}

    def of(self, provider: str, model: Model, user: str, brought: Mapping[str, str]) -> str:
        """Return the key for this user's requests: the one that they brought, else the operator's.

        Raises:
            Refused: there is none, or the file cannot be used.
        """
        if provider in brought:
            return brought[provider]
        if model.keys is None:
            variable = next(name for name, theirs in VARIABLES.items() if theirs == provider)
            raise Refused(
                f"there is no key for {provider} here: log in again with `ssh -o SendEnv={variable}`, the variable "
                "being set on your machine; it stays outside the sandbox.", 401
            )  # fmt: skip
        return self._operators(model.keys, user, f"key of {provider}", 401)

    def of_git(self, name: str, host: GitHost, user: str) -> str:
        """Return the token for this user at a server of git. Raises ``Refused`` as ``of`` does."""
        # 401 would make git ask for a name and a password.
        return self._operators(host.keys or Path(), user, f"token of {name}", 403)

    def _operators(self, place: Path, user: str, what: str, missing: int) -> str:
        try:
            if place.is_dir():
                place = place / user if is_user(user) else place / "/nobody"
            return self._of_file(place)
        except FileNotFoundError:
            raise Refused(f"your operator has no {what} for you; ask them for one.", missing) from None
        except (OSError, ValueError):
            raise Refused(f"your operator's {what} cannot be read; ask them to look at it.", 503) from None

    def _of_file(self, path: Path) -> str:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())  # of what is read: the path may lead to another file by now
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
            known = self._read.get(path)
            if known is not None and known[0] == stamp and found.st_size:
                return known[1]
            text = file.read(LONGEST_KEY + 1).decode("ascii").strip()
        if len(text) > LONGEST_KEY or not _KEY.match(text) or text.startswith(_SUBSCRIPTION):
            raise ValueError("no key")
        if len(self._read) >= MOST_FILES:
            self._read.clear()
        self._read[path] = stamp, text
        return text


def brought_key(value: bytes) -> str | None:
    """Return the key in a variable that a client has sent; ``None`` if it is none.

    Raises:
        ValueError: it belongs to a subscription, which is not carried; the text is a sentence for the user.
    """
    text = value.decode("ascii", "replace").strip()
    if text.startswith(_SUBSCRIPTION):
        raise ValueError("a claude.ai subscription's token is not taken here: its terms forbid it; bring an API key.")
    return text if len(text) <= LONGEST_KEY and _KEY.match(text) else None
