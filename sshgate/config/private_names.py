"""Checks that an installed library has the private names of it that are used here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from sshgate.errors import ConfigError


def check(library: str, works: str, used: Mapping[tuple[str, str], str]) -> None:
    """Raise ``ConfigError`` if the installed version of a library lacks a name.

    Args:
        works: The version that is known to work.
        used: The names, separated by blanks, by module of the library and class in it; ``""``: of the module itself.
    """
    missing = [
        f"{kind or module}.{name}"
        for (module, kind), names in used.items()
        for name in sorted(set(names.split()) - attributes(f"{library}.{module}", kind))
    ]
    if missing:
        installed = importlib.import_module(library).__version__
        remedy = f"install the version that is known to work, {library}=={works}."
        raise ConfigError([f"{library} {installed} cannot be used, as it has no {', '.join(missing)}: {remedy}"])


def attributes(module: str, kind: str) -> set[str]:
    """Return the names of a class's attributes, and of those that its instances get from ``__init__``."""
    try:
        place = importlib.import_module(module)
    except ImportError:
        return set()
    if not kind:
        return set(dir(place))
    found = getattr(place, kind, object)
    made = (getattr(one.__dict__.get("__init__"), "__code__", None) for one in found.__mro__)
    return {*dir(found), *(name for code in made if code is not None for name in code.co_names)}
