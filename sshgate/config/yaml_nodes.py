"""Conversions of one YAML node to the expected type.

They raise ``InvalidValue`` with a clause for the author of the file, or ``ValueError`` as ``values`` does.
"""

from __future__ import annotations

import re

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from sshgate.config import values
from sshgate.config.hints import closest

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
