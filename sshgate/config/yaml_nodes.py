"""Conversions of one YAML node to the expected type, and suggestions for mistakes in it. Pure.

The conversions raise ``InvalidValue`` with a clause for the author of the file, or ``ValueError`` as ``values`` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from sshgate.config import values
from sshgate.config.model import Config, Profile

TAG = "tag:yaml.org,2002:"
READS_AS = {
    "bool": "a truth value", "int": "a number", "float": "a number", "null": "nothing", "timestamp": "a date",
    "seq": "a list", "map": "a mapping", "str": "a text",
}  # fmt: skip


class InvalidValue(Exception):
    """A value cannot be used. The text is a clause, which is reported with the value's line."""


def is_kind(node: Node, kind: str) -> bool:
    """Whether the node has the standard YAML tag ``kind``, such as ``null`` or ``int``."""
    return bool(node.tag == TAG + kind)


def kind_of(node: Node, show: bool = True) -> str:
    """Describe a node for an error message. ``show``: include its value, which must then not be a secret."""
    kind = READS_AS.get(node.tag.removeprefix(TAG), node.tag)
    return f"{node.value} ({kind})" if show and isinstance(node, ScalarNode) and node.value else kind


def child_of(node: Node, key: str) -> Node | None:
    """Return the value of ``key`` if the node is a mapping that has it."""
    if not isinstance(node, MappingNode):
        return None
    return next((child for name, child in node.value if name.value == key), None)


def text_of(node: Node, show: bool = True) -> str:
    """Return the text of a string node. Unquoted text that YAML reads as another type is refused.

    Args:
        show: Quote the value in the error. False for values that may be secrets.
    """
    if not isinstance(node, ScalarNode):
        raise InvalidValue(f"expected a text, found {kind_of(node)}")
    if is_kind(node, "null"):
        raise InvalidValue("the value is missing; leave the line out for the default")
    if not is_kind(node, "str"):
        kind = READS_AS.get(node.tag.removeprefix(TAG), node.tag)
        written = f'{node.value} as {kind}: write "{node.value}"' if show else f"this as {kind}: write it"
        raise InvalidValue(f"YAML reads {written} in quotes")
    return str(node.value)


def whole_number(node: Node) -> int:
    """Return a plain decimal integer. YAML's octal, hexadecimal and other forms are refused."""
    if not isinstance(node, ScalarNode) or not is_kind(node, "int"):
        raise InvalidValue(f"expected a whole number, found {kind_of(node)}")
    if not re.fullmatch(r"[-+]?(0|[1-9]\d*)", node.value):
        meant = yaml.SafeLoader("").construct_yaml_int(node)
        raise InvalidValue(f"YAML reads {node.value} as {meant}: write a plain decimal number")
    return int(node.value)


def number_of(node: ScalarNode, duration: bool, size: bool) -> float:
    """Return a duration in seconds, a size in bytes, or a whole number; none may be negative."""
    if duration:
        return values.duration(node.value)
    number = values.size(node.value) if size else whole_number(node)
    if number < 0:
        raise InvalidValue(f"{number} is less than 0")
    return number


def truth_of(node: Node) -> bool:
    """Return a boolean. Only true and false are accepted, not YAML's yes, no, on and off."""
    if is_kind(node, "bool") and node.value.lower() in ("true", "false"):
        return bool(node.value.lower() == "true")
    raise InvalidValue(f"expected true or false, found {kind_of(node)}")


def choice_of(text: str, choices: list[str]) -> str:
    """Return ``text`` if it is one of ``choices``."""
    if text in choices:
        return text
    raise InvalidValue(f"{text!r} is none of {', '.join(choices)}{closest(text, choices)}")


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
