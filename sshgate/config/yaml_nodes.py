"""Reading one node of a YAML file as what it shall be. Raises ``Wrong`` with words for the person who wrote it."""

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
    """A value that cannot be used; its sentence goes to the line of the value."""


def is_kind(node: Node, kind: str) -> bool:
    return bool(node.tag == TAG + kind)


def kind_of(node: Node, show: bool = True) -> str:
    kind = READS_AS.get(node.tag.removeprefix(TAG), node.tag)
    return f"{node.value} ({kind})" if show and isinstance(node, ScalarNode) and node.value else kind


def child_of(node: Node, key: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((child for name, child in node.value if name.value == key), None)


def text_of(node: Node, show: bool = True) -> str:
    """A text that was written as one, not something that only looks like it. ``show``: it is no secret."""
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
    if not isinstance(node, ScalarNode) or not is_kind(node, "int"):
        raise InvalidValue(f"expected a whole number, found {kind_of(node)}")
    if not re.fullmatch(r"[-+]?(0|[1-9]\d*)", node.value):
        meant = yaml.SafeLoader("").construct_yaml_int(node)
        raise InvalidValue(f"YAML reads {node.value} as {meant}: write a plain decimal number")
    return int(node.value)


def number_of(node: ScalarNode, duration: bool, size: bool) -> float:
    if duration:
        return values.duration(node.value)
    number = values.size(node.value) if size else whole_number(node)
    if number < 0:
        raise InvalidValue(f"{number} is less than 0")
    return number


def truth_of(node: Node) -> bool:
    if is_kind(node, "bool") and node.value.lower() in ("true", "false"):
        return bool(node.value.lower() == "true")
    raise InvalidValue(f"expected true or false, found {kind_of(node)}")


def choice_of(text: str, choices: list[str]) -> str:
    if text in choices:
        return text
    raise InvalidValue(f"{text!r} is none of {', '.join(choices)}{closest(text, choices)}")
