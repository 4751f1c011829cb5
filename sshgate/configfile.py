"""One YAML file -> ``Config``: strict, with every mistake told at once, each with its line and a way out.

The dataclasses of ``config`` are the schema: ``_Walker`` follows their type hints. A ``float`` is a duration,
an ``int`` whose name ends in ``_bytes`` a size, a ``Path`` is relative to the file.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sshgate import configvalues as values
from sshgate.access.identity import is_label
from sshgate.config import Access, Address, Config, Home, Profile, Resources, SandboxPlace
from sshgate.confighints import closest, instead, syntax
from sshgate.errors import ConfigError

VERSION = 1

D = TypeVar("D")

_TAG = "tag:yaml.org,2002:"
_READS_AS = {
    "bool": "a truth value", "int": "a number", "float": "a number", "null": "nothing", "timestamp": "a date",
    "seq": "a list", "map": "a mapping", "str": "a text",
}  # fmt: skip
_MAY_BE_ZERO = frozenset({"idle", "detached", "drain", "keepalive", "warm", "settle"})
_CHECKS: Mapping[tuple[type, str], Callable[[str], object]] = {
    (Access, "accept_env"): values.accepted_variables,
    (SandboxPlace, "namespace"): values.dns_label,
    (SandboxPlace, "gateway"): values.dns_label,
    (Profile, "shell"): values.absolute,
    (Profile, "image"): values.image,
    (Resources, "requests"): values.quantity,
    (Resources, "limits"): values.quantity,
    (Home, "size"): values.quantity,
    (Home, "path"): values.absolute,
}
_MUST_BE: Mapping[tuple[type, str], Callable[[Path], bool]] = {
    (Access, "user_ca"): Path.is_file,
    (SandboxPlace, "kubeconfig"): Path.is_file,
    (Profile, "binds"): Path.is_dir,
}


def load(path: Path) -> Config:
    """Read the file. Raises ``ConfigError`` with all mistakes, each ``FILE:LINE: sentence``, in their order."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            [f"{path}: cannot be read: {error.strerror}; sshgate.example.yaml shows the form."]
        ) from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: this is not UTF-8 text."]) from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """The meaning of ``text``; ``path`` names it in messages, and relative paths begin at its directory."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError([syntax(error, text, path)]) from error
    walker = _Walker(path.parent)
    config = walker.config(root)
    if walker.mistakes:
        raise ConfigError([f"{path}:{line}: {sentence}" for line, sentence in sorted(set(walker.mistakes))])
    return config


class _Wrong(Exception):
    """A value that cannot be used; its sentence goes to the line of the value."""


class _Walker:
    """Goes through the nodes of a file beside the type hints of the settings, and collects mistakes."""

    def __init__(self, directory: Path) -> None:
        self.mistakes: list[tuple[int, str]] = []
        self._directory = directory
        self._lines: dict[str, int] = {}
        self._open: set[int] = set()

    def config(self, root: Node | None) -> Config:
        config = self._placed(Config())
        if root is not None:
            config = self._section(root, config, "", extra=("version",))
        self._across(config)
        return config

    def wrong(self, node: Node | int, sentence: str) -> None:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        self.mistakes.append((line, sentence if sentence.endswith(("?", ".")) else sentence + "."))

    # --- sections and mappings ---

    def _section(self, node: Node, base: D, where: str, extra: tuple[str, ...] = ()) -> D:
        """``base`` with what the node says. A section without content is as good as none."""
        if _is(node, "null"):
            return base
        owner = type(base)
        hints = typing.get_type_hints(owner)
        names = [known.name for known in fields(typing.cast(Any, base)) if (owner, known.name) != (Profile, "name")]
        changes: dict[str, Any] = {}
        for key, key_node, child in self._entries(node, where):
            path = f"{where}.{key}" if where else key
            self._lines[path] = key_node.start_mark.line + 1
            if key in extra:
                self._extra(key, child)
            elif key in names:
                changes[key] = self._value(child, hints[key], (owner, key), path, getattr(base, key))
            else:
                self.wrong(key_node, f"{path}: unknown key{instead(key, [*names, *extra], where)}")
        return typing.cast(D, replace(typing.cast(Any, base), **changes))

    def _entries(self, node: Node, where: str) -> Iterator[tuple[str, Node, Node]]:
        """The entries of a mapping, without those whose key cannot be used."""
        name = where or "the file"
        if not isinstance(node, MappingNode):
            self.wrong(node, f"{name}: expected a mapping of names to values, found {_kind(node, show=False)}")
            return
        if id(node) in self._open:
            self.wrong(node, f"{name}: this mapping contains itself")
            return
        self._open.add(id(node))
        seen: dict[str, int] = {}
        try:
            for key, child in node.value:
                line = key.start_mark.line + 1
                if _is(key, "merge"):
                    self.wrong(key, f"{name}: '<<' is not read here; let a profile extend another one")
                elif not _is(key, "str"):
                    self.wrong(key, f"{name}: this key is read as {_kind(key)} by YAML; put it in quotes")
                elif key.value in seen:
                    self.wrong(key, f"{name}: {key.value!r} is there twice, first on line {seen[key.value]}")
                else:
                    seen[key.value] = line
                    yield key.value, key, child
        finally:
            self._open.discard(id(node))

    def _extra(self, key: str, node: Node) -> None:
        if key == "version" and not (_is(node, "int") and node.value == str(VERSION)):
            self.wrong(node, f"version: this sshgate reads version {VERSION} of the file")
        # `extends` was followed before.

    # --- values ---

    def _value(self, node: Node, hint: Any, at: tuple[type, str], where: str, base: Any) -> Any:
        """What the node says as a value of type ``hint``; ``base`` after a mistake."""
        try:
            return self._typed(node, hint, at, where, base)
        except (_Wrong, ValueError) as error:
            self.wrong(node, f"{where}: {error}")
            return base

    def _typed(self, node: Node, hint: Any, at: tuple[type, str], where: str, base: Any) -> Any:
        if not node.tag.startswith(_TAG):
            raise _Wrong(f"the tag {node.tag!r} has no meaning here")
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            if _is(node, "null"):
                return None
            hint = next(kind for kind in arguments if kind is not type(None))
            return self._typed(node, hint, at, where, base)
        if is_dataclass(hint) and hint is not Address:
            return self._section(node, base if is_dataclass(base) else typing.cast(Any, hint)(), where)
        if hint == Mapping[str, Profile]:
            return self._profiles(node, where)
        if origin is Literal:
            return _choice(_text(node), list(arguments))
        if origin is tuple:
            return self._list(node, arguments[0], at, where)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(node, arguments[1], at, where, base)
        if hint is Any:
            return self._raw(node, at, where)
        return self._scalar(node, hint, at)

    def _scalar(self, node: Node, hint: Any, at: tuple[type, str]) -> Any:
        if not isinstance(node, ScalarNode):
            raise _Wrong(f"expected a single value, found {_kind(node)}")
        if _is(node, "null"):
            raise _Wrong("the value is missing; leave the line out for the default")
        if hint is bool:
            return _truth(node)
        if hint is Address:
            return values.address(node.value)
        if hint is Path:
            return self._path(_text(node), at)
        if hint is str:
            number_like = _CHECKS.get(at) is values.quantity and re.fullmatch(r"(0|[1-9]\d*)(\.\d+)?", node.value)
            text = node.value if number_like else _text(node, show=at != (Profile, "environment"))
            return _CHECKS.get(at, str)(text)
        number = _number(node, hint is float, at[1].endswith("_bytes"))
        if not number and at[1] not in _MAY_BE_ZERO:
            raise _Wrong("must be more than 0")
        return number

    def _path(self, text: str, at: tuple[type, str]) -> Path:
        if not text:
            raise _Wrong("the path is empty")
        try:
            path = self._directory / Path(text).expanduser()
        except RuntimeError as error:
            raise _Wrong(f"there is no home directory for {text.split('/')[0]!r}") from error
        check = _MUST_BE.get(at)
        try:
            missing = check is not None and not check(path)
        except OSError as error:
            raise _Wrong(f"{path} cannot be looked at: {error.strerror}") from error
        if missing:
            raise _Wrong(f"there is no {'directory' if check is Path.is_dir else 'file'} {path}")
        return path.absolute() if at == (Profile, "binds") else path

    def _list(self, node: Node, hint: Any, at: tuple[type, str], where: str) -> tuple[Any, ...]:
        if not isinstance(node, SequenceNode):
            example = f": [{node.value}]" if isinstance(node, ScalarNode) and node.value else ""
            raise _Wrong(f"expected a list, found {_kind(node)}; write it in brackets{example}")
        missing = object()
        read = [self._value(child, hint, at, f"{where}[{i}]", missing) for i, child in enumerate(node.value)]
        return tuple(value for value in read if value is not missing)

    def _mapping(self, node: Node, hint: Any, at: tuple[type, str], where: str, base: Any) -> dict[str, Any]:
        """Entries are merged with those of ``base``; ``null`` takes one away."""
        merged = dict(base) if isinstance(base, Mapping) else {}
        if _is(node, "null"):
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
            elif _is(child, "null"):
                merged.pop(key, None)
            else:
                merged[key] = self._value(child, hint, at, path, merged.get(key, ""))
        return merged

    def _raw(self, node: Node, at: tuple[type, str], where: str) -> Any:
        """The node as JSON would have it, for what Kubernetes itself reads."""
        if isinstance(node, MappingNode):
            return {
                key: self._value(child, Any, at, f"{where}.{key}", None) for key, _, child in self._entries(node, where)
            }
        if isinstance(node, SequenceNode):
            if id(node) in self._open:
                raise _Wrong("this list contains itself")
            self._open.add(id(node))
            try:
                return [self._value(child, Any, at, f"{where}[{i}]", None) for i, child in enumerate(node.value)]
            finally:
                self._open.discard(id(node))
        if _is(node, "null"):
            return None
        if _is(node, "bool"):
            return _truth(node)
        if _is(node, "int"):
            return _whole(node)
        return float(node.value) if _is(node, "float") else node.value

    # --- profiles ---

    def _profiles(self, node: Node, where: str) -> dict[str, Profile]:
        if _is(node, "null"):
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
        parent = _child(node, "extends")
        if parent is not None:
            where = f"profiles.{name}.extends"
            extended = parent.value if isinstance(parent, ScalarNode) else ""
            if extended in (*chain, name):
                self.wrong(parent, f"{where}: a circle: {' -> '.join((*chain, name, extended))}")
            elif extended in nodes:
                base = self._profile(extended, nodes, read, (*chain, name))
            else:
                others = [other for other in nodes if other != name]
                self.wrong(parent, f"{where}: there is no profile {extended!r}{instead(extended, others)}")
        if name not in read:
            read[name] = replace(self._section(node, base, f"profiles.{name}", extra=("extends",)), name=name)
        return read[name]

    # --- what only the whole shows ---

    def _placed(self, config: Config) -> Config:
        """Defaults that are paths begin at the file's directory too."""
        here = self._directory
        return replace(
            config,
            ssh=replace(config.ssh, host_keys=here / config.ssh.host_keys),
            access=replace(config.access, authorized_keys=here / config.access.authorized_keys),
        )

    def _across(self, config: Config) -> None:
        local = config.sandbox.provider == "local"
        line = self._lines.get("ssh.listen", self._lines.get("sandbox.provider", 1))
        misread = any(line == other for other, _ in self.mistakes)
        if local and not values.is_loopback(config.ssh.listen) and not misread:
            self.wrong(
                line,
                f"ssh.listen: sandboxes on this machine itself are for its own users, and {config.ssh.listen} is open "
                f"to others: write 127.0.0.1:{config.ssh.listen.port}, or provider: kubernetes",
            )
        for name, profile in config.profiles.items():
            if profile.binds and not local:
                at = self._lines.get(f"profiles.{name}.binds")
                if at is not None:
                    self.wrong(at, f"profiles.{name}.binds: only the local provider has it; use pod_overrides.volumes")


# --- nodes ---


def _is(node: Node, kind: str) -> bool:
    return bool(node.tag == _TAG + kind)


def _kind(node: Node, show: bool = True) -> str:
    kind = _READS_AS.get(node.tag.removeprefix(_TAG), node.tag)
    return f"{node.value} ({kind})" if show and isinstance(node, ScalarNode) and node.value else kind


def _child(node: Node, key: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((child for name, child in node.value if name.value == key), None)


def _text(node: Node, show: bool = True) -> str:
    """A text that was written as one, not something that only looks like it. ``show``: it is no secret."""
    if not isinstance(node, ScalarNode):
        raise _Wrong(f"expected a text, found {_kind(node)}")
    if _is(node, "null"):
        raise _Wrong("the value is missing; leave the line out for the default")
    if not _is(node, "str"):
        kind = _READS_AS.get(node.tag.removeprefix(_TAG), node.tag)
        written = f'{node.value} as {kind}: write "{node.value}"' if show else f"this as {kind}: write it"
        raise _Wrong(f"YAML reads {written} in quotes")
    return str(node.value)


def _whole(node: Node) -> int:
    if not isinstance(node, ScalarNode) or not _is(node, "int"):
        raise _Wrong(f"expected a whole number, found {_kind(node)}")
    if not re.fullmatch(r"[-+]?(0|[1-9]\d*)", node.value):
        meant = yaml.SafeLoader("").construct_yaml_int(node)
        raise _Wrong(f"YAML reads {node.value} as {meant}: write a plain decimal number")
    return int(node.value)


def _number(node: ScalarNode, duration: bool, size: bool) -> float:
    if duration:
        return values.duration(node.value)
    number = values.size(node.value) if size else _whole(node)
    if number < 0:
        raise _Wrong(f"{number} is less than 0")
    return number


def _truth(node: Node) -> bool:
    if _is(node, "bool") and node.value.lower() in ("true", "false"):
        return bool(node.value.lower() == "true")
    raise _Wrong(f"expected true or false, found {_kind(node)}")


def _choice(text: str, choices: list[str]) -> str:
    if text in choices:
        return text
    raise _Wrong(f"{text!r} is none of {', '.join(choices)}{closest(text, choices)}")
