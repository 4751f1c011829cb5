"""Reads one YAML file into a ``Config``. Strict: it reports all mistakes at once, each with its line and a remedy.

The dataclasses of ``config.model`` are the schema: ``_Walker`` follows their type hints. A ``float`` is a duration, an
``int`` whose name ends in ``_bytes`` is a size, and a ``Path`` is relative to the file's directory.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sshgate.config import values
from sshgate.config.model import Address, Config, Dollars, Profile, Share
from sshgate.config.rules import (
    CHECKS,
    MAY_BE_ZERO,
    MUST_BE,
    OF_BROKER,
    cross_field_errors,
    resolve_paths,
    resolve_section_paths,
)
from sshgate.config.values import is_label
from sshgate.config.yaml_nodes import (
    TAG,
    InvalidValue,
    child_of,
    choice_of,
    is_kind,
    kind_of,
    number_of,
    suggestion,
    syntax,
    text_of,
    truth_of,
    whole_number,
)
from sshgate.errors import ConfigError

VERSION = 1
NODE_VARIABLE = "SSHGATE_NODE"

D = TypeVar("D")


def node_address() -> str | None:
    """Return the address of the node, to whose ports users connect; ``None`` if the gateway does not run in a pod.

    The manifests set it in the environment.
    """
    return os.environ.get(NODE_VARIABLE) or None


def load(path: Path, of_broker: bool = False) -> Config:
    """Read a configuration file.

    Args:
        of_broker: Only the files that ``sshgate broker`` uses must exist.

    Raises:
        ConfigError: The file cannot be read or has mistakes. Holds all of them as ``FILE:LINE: sentence``, by line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            [f"{path}: cannot be read: {error.strerror}; sshgate.example.yaml shows the form."]
        ) from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: this is not UTF-8 text."]) from error
    return parse(text, path, of_broker)


def parse(text: str, path: Path, of_broker: bool = False) -> Config:
    """Parse the text of a configuration file.

    Args:
        path: The file's path, for error messages. Relative paths in ``text`` are resolved against its directory.
        of_broker: As in ``load``.

    Raises:
        ConfigError: As in ``load``.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError([syntax(error, text, path)]) from error
    walker = _Walker(path.parent, of_broker)
    config = walker.config(root)
    if walker.mistakes:
        raise ConfigError([f"{path}:{line}: {sentence}" for line, sentence in sorted(set(walker.mistakes))])
    return config


class _Walker:
    """Reads YAML nodes by the type hints of the settings, and collects all mistakes instead of raising."""

    def __init__(self, directory: Path, of_broker: bool) -> None:
        self._of_broker = of_broker
        self.mistakes: list[tuple[int, str]] = []
        self._directory = directory
        self._lines: dict[str, int] = {}
        self._open: set[int] = set()

    def config(self, root: Node | None) -> Config:
        config = resolve_paths(Config(), self._directory)
        if root is not None:
            config = self._section(root, config, "", extra=("version",))
        for keys, sentence in cross_field_errors(config):
            line = next((self._lines[key] for key in keys if key in self._lines), None)
            # A line with a mistake was replaced by its default, so a conflict on it would be a false report.
            if line is not None and all(line != other for other, _ in self.mistakes):
                self.wrong(line, sentence)
        return config

    def wrong(self, node: Node | int, sentence: str) -> None:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        self.mistakes.append((line, sentence if sentence.endswith(("?", ".")) else sentence + "."))

    # --- sections and mappings ---

    def _section(self, node: Node, base: D, where: str, extra: tuple[str, ...] = ()) -> D:
        """Return ``base`` with the settings of the node. An empty section changes nothing."""
        if is_kind(node, "null"):
            return base
        owner = type(base)
        hints = typing.get_type_hints(owner)
        names = [known.name for known in fields(typing.cast(Any, base)) if (owner, known.name) != (Profile, "name")]
        changes: dict[str, Any] = {}
        for key, key_node, child in self._entries(node, where):
            path = f"{where}.{key}" if where else key
            self._lines[path] = key_node.start_mark.line + 1
            if key in extra:
                # `extends` is handled in `_profile`.
                if key == "version" and not (is_kind(child, "int") and child.value == str(VERSION)):
                    self.wrong(child, f"version: this sshgate reads version {VERSION} of the file")
            elif key in names:
                changes[key] = self._value(child, hints[key], (owner, key), path, getattr(base, key))
            else:
                self.wrong(key_node, f"{path}: unknown key{suggestion(key, [*names, *extra], where)}")
        return typing.cast(D, replace(typing.cast(Any, base), **changes))

    def _entries(self, node: Node, where: str) -> Iterator[tuple[str, Node, Node]]:
        """Yield the entries of a mapping as (key, its node, the value's node). Reports and skips unusable keys."""
        name = where or "the file"
        if not isinstance(node, MappingNode):
            self.wrong(node, f"{name}: expected a mapping of names to values, found {kind_of(node, show=False)}")
            return
        if id(node) in self._open:
            self.wrong(node, f"{name}: this mapping contains itself")
            return
        self._open.add(id(node))
        seen: dict[str, int] = {}
        try:
            for key, child in node.value:
                line = key.start_mark.line + 1
                if is_kind(key, "merge"):
                    self.wrong(key, f"{name}: '<<' is not read here; let a profile extend another one")
                elif not is_kind(key, "str"):
                    self.wrong(key, f"{name}: this key is read as {kind_of(key)} by YAML; put it in quotes")
                elif key.value in seen:
                    self.wrong(key, f"{name}: {key.value!r} is there twice, first on line {seen[key.value]}")
                else:
                    seen[key.value] = line
                    yield key.value, key, child
        finally:
            self._open.discard(id(node))

    # --- values ---

    def _value(self, node: Node, hint: Any, at: tuple[type, str], where: str, base: Any) -> Any:
        """Return the node as a value of type ``hint``. Reports a mistake and then returns ``base``."""
        try:
            return self._typed(node, hint, at, where, base)
        except (InvalidValue, ValueError) as error:
            self.wrong(node, f"{where}: {error}")
            return base

    def _typed(self, node: Node, hint: Any, at: tuple[type, str], where: str, base: Any) -> Any:
        if not node.tag.startswith(TAG):
            raise InvalidValue(f"the tag {node.tag!r} has no meaning here")
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            if is_kind(node, "null"):
                return None
            hint = next(kind for kind in arguments if kind is not type(None))
            return self._typed(node, hint, at, where, base)
        if is_dataclass(hint) and hint is not Address:
            absent = resolve_section_paths(typing.cast(Any, hint)(), self._directory)
            return self._section(node, base if is_dataclass(base) else absent, where)
        if hint == Mapping[str, Profile]:
            return self._profiles(node, where)
        if origin is Literal:
            return choice_of(text_of(node), list(arguments))
        if origin is tuple:
            return self._list(node, arguments[0], at, where)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(node, arguments[1], at, where, base)
        if hint is Any:
            return self._raw(node, at, where)
        return self._scalar(node, hint, at)

    def _scalar(self, node: Node, hint: Any, at: tuple[type, str]) -> Any:
        if not isinstance(node, ScalarNode):
            raise InvalidValue(f"expected a single value, found {kind_of(node)}")
        if is_kind(node, "null"):
            raise InvalidValue("the value is missing; leave the line out for the default")
        if hint is bool:
            return truth_of(node)
        if hint is Share:
            return values.share(node.value)
        if hint is Dollars:
            return values.dollars(node.value)
        if hint is Address:
            return values.address(node.value)
        if hint is Path:
            return self._path(text_of(node), at)
        if hint is str:
            number_like = CHECKS.get(at) is values.quantity and re.fullmatch(r"(0|[1-9]\d*)(\.\d+)?", node.value)
            text = node.value if number_like else text_of(node, show=at != (Profile, "environment"))
            return CHECKS.get(at, str)(text)
        number = number_of(node, hint is float, at[1].endswith("_bytes"))
        if not number and at[1] not in MAY_BE_ZERO:
            raise InvalidValue("must be more than 0")
        return number

    def _path(self, text: str, at: tuple[type, str]) -> Path:
        if not text:
            raise InvalidValue("the path is empty")
        try:
            path = self._directory / Path(text).expanduser()
        except RuntimeError as error:
            raise InvalidValue(f"there is no home directory for {text.split('/')[0]!r}") from error
        check = MUST_BE.get(at) if not self._of_broker or at in OF_BROKER else None
        try:
            missing = check is not None and not check(path)
        except OSError as error:
            raise InvalidValue(f"{path} cannot be looked at: {error.strerror}") from error
        if missing:
            raise InvalidValue(f"there is no {'directory' if check is Path.is_dir else 'file'} {path}")
        return path.absolute() if at == (Profile, "binds") else path

    def _list(self, node: Node, hint: Any, at: tuple[type, str], where: str) -> tuple[Any, ...]:
        if not isinstance(node, SequenceNode):
            example = f": [{node.value}]" if isinstance(node, ScalarNode) and node.value else ""
            raise InvalidValue(f"expected a list, found {kind_of(node)}; write it in brackets{example}")
        missing = object()
        read = [self._value(child, hint, at, f"{where}[{i}]", missing) for i, child in enumerate(node.value)]
        return tuple(value for value in read if value is not missing)

    def _mapping(self, node: Node, hint: Any, at: tuple[type, str], where: str, base: Any) -> dict[str, Any]:
        """Merge the node's entries into those of ``base``. An entry of ``null`` removes one."""
        merged = dict(base) if isinstance(base, Mapping) else {}
        if is_kind(node, "null"):
            return merged
        for key, key_node, child in self._entries(node, where):
            path = f"{where}.{key}"
            if at == (Profile, "environment"):
                try:
                    values.variable(key)
                except ValueError as error:
                    self.wrong(key_node, f"{where}: {error}")
            if hint is Any:
                merged[key] = values.merged(merged.get(key), self._value(child, Any, at, path, None))
            elif is_kind(child, "null"):
                merged.pop(key, None)
            else:
                merged[key] = self._value(child, hint, at, path, merged.get(key, ""))
        return merged

    def _raw(self, node: Node, at: tuple[type, str], where: str) -> Any:
        """Return the node as plain JSON values, for settings that are passed to Kubernetes as they are."""
        if isinstance(node, MappingNode):
            return {
                key: self._value(child, Any, at, f"{where}.{key}", None) for key, _, child in self._entries(node, where)
            }
        if isinstance(node, SequenceNode):
            if id(node) in self._open:
                raise InvalidValue("this list contains itself")
            self._open.add(id(node))
            try:
                return [self._value(child, Any, at, f"{where}[{i}]", None) for i, child in enumerate(node.value)]
            finally:
                self._open.discard(id(node))
        if is_kind(node, "null"):
            return None
        if is_kind(node, "bool"):
            return truth_of(node)
        if is_kind(node, "int"):
            return whole_number(node)
        return float(node.value) if is_kind(node, "float") else node.value

    # --- profiles ---

    def _profiles(self, node: Node, where: str) -> dict[str, Profile]:
        if is_kind(node, "null"):
            return {"default": Profile()}
        nodes: dict[str, Node] = {}
        for name, key_node, child in self._entries(node, where):
            if not is_label(name):
                self.wrong(key_node, f"{where}: {name!r} cannot name a profile: use 1-40 of a-z, 0-9 and inner '-'")
            nodes[name] = child
        read: dict[str, Profile] = {}
        for name in nodes:
            self._profile(name, nodes, read, ())
        return {name: read[name] for name in nodes}

    def _profile(
        self, name: str, nodes: Mapping[str, Node], read: dict[str, Profile], chain: tuple[str, ...]
    ) -> Profile:
        if name in read:
            return read[name]
        node, base = nodes[name], Profile()
        parent = child_of(node, "extends")
        if parent is not None:
            where = f"profiles.{name}.extends"
            extended = parent.value if isinstance(parent, ScalarNode) else ""
            if extended in (*chain, name):
                self.wrong(parent, f"{where}: a circle: {' -> '.join((*chain, name, extended))}")
            elif extended in nodes:
                base = replace(self._profile(extended, nodes, read, (*chain, name)), description="")
            else:
                others = [other for other in nodes if other != name]
                self.wrong(parent, f"{where}: there is no profile {extended!r}{suggestion(extended, others)}")
        if name not in read:
            read[name] = replace(self._section(node, base, f"profiles.{name}", extra=("extends",)), name=name)
        return read[name]
