"""Suggestions for mistakes in the configuration file: similar names, the right section, and YAML syntax. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml

from sshgate.config.model import Config, Profile


def closest(word: str, known: list[str]) -> str:
    """Return ``; did you mean ...?`` with the most similar known name, or an empty string if none is similar."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).replace("-", "_").lower()
    near = get_close_matches(plain, known, n=1, cutoff=0.6) or get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def suggestion(key: str, known: list[str], where: str | None = None) -> str:
    """Return a clause that helps with the unknown name ``key``, to be appended to the error.

    The clause names the most similar of ``known``, else the section in which the key is valid, else all of ``known``.

    Args:
        where: The path of the section that holds the key. ``None``: the name is not a key; no section is searched.
    """
    near = closest(key, known)
    if near:
        return near
    homes = [home for home, names in _homes() if key in names and known != names] if where is not None else []
    if homes:
        return f"; it belongs under {homes[0]}"
    return f"; known here: {', '.join(known)}" if known else ""


def _homes() -> Iterator[tuple[str, list[str]]]:
    config = Config()
    for section in fields(config):
        value = getattr(config, section.name)
        if is_dataclass(value):
            yield f"'{section.name}:'", [known.name for known in fields(value)]
    yield "a profile", [known.name for known in fields(Profile)]
    yield "a profile's 'limits:'", [known.name for known in fields(Profile().limits)]


def syntax(error: yaml.YAMLError, text: str, path: Path) -> str:
    """Explain why ``text`` is not YAML, as ``FILE:LINE: sentence``. Never quotes the text: it may hold secrets."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # a ReaderError: the text holds a character that YAML does not allow
        before = text[: getattr(error, "position", 0)]
        return f"{path}:{before.count(chr(10)) + 1}: a control character, which YAML does not allow."
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    problem = getattr(error, "problem", None) or "not YAML"
    if re.search(r":\s+(\*:\d|\[[0-9a-fA-F:.]*\]:)", line):
        problem = 'an address with * or brackets needs quotes, such as "[::]:2222"'
    elif "\\t" in problem or line[: mark.column + 1].strip(" ").startswith("\t"):
        problem = "YAML indents with blanks, not with tabs"
    return f"{path}:{mark.line + 1}: {problem}."
