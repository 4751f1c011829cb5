"""Imports kubernetes_asyncio without its API models, to start quickly.

The library's packages import every model of the API: a quarter of a second before each ``sshgate cp``, and about
30 MiB in a gateway, which uses raw JSON. So its two outer packages are created without running their code, and
urllib3, which one function needs, is loaded on first use. If a version of the library does not work that way, it is
imported normally.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

_PACKAGES = ("kubernetes_asyncio", "kubernetes_asyncio.client")


class Library(NamedTuple):
    """The parts of kubernetes_asyncio in use: a class and two modules."""

    Configuration: Any
    kube_config: Any
    incluster_config: Any


def load() -> Library:
    """Import the library without its models, or use it as it is if it was imported before."""
    if _PACKAGES[0] not in sys.modules:
        try:
            _enter()
        except (ImportError, AttributeError):
            for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGES[0]]:
                del sys.modules[name]
    return Library(
        importlib.import_module("kubernetes_asyncio.client").Configuration,
        importlib.import_module("kubernetes_asyncio.config.kube_config"),
        importlib.import_module("kubernetes_asyncio.config.incluster_config"),
    )


def _enter() -> None:
    """Create the two packages without running them, and add only what reading a configuration needs."""
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ImportError(name)
        sys.modules[name] = importlib.util.module_from_spec(spec)
    client: Any = sys.modules["kubernetes_asyncio.client"]
    with _loaded_when_used("urllib3"):
        client.Configuration = importlib.import_module("kubernetes_asyncio.client.configuration").Configuration
    # kube_config imports this name for a function that is not used here; the real class would import the models.
    client.ApiClient = ModuleType("kubernetes_asyncio.client.ApiClient")
    importlib.import_module("kubernetes_asyncio.config.kube_config")


@contextmanager
def _loaded_when_used(name: str) -> Iterator[None]:
    """Modules imported in the body get a placeholder for module ``name``, which loads it at first attribute access."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = later = ModuleType(name)
    later.__getattr__ = lambda attribute: getattr(importlib.import_module(name), attribute)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del sys.modules[name]
