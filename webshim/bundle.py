"""All modules of a page as one script: a slow line is waited for once, and not for each of them.

A module becomes a function that runs when it is first imported, as it does in a browser. What is edited, checked and
installed are plain modules; nothing is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|class|const) (\w+)", re.MULTILINE)
_LATER = re.compile(r'\bimport\("\./([^"]+)"\)')
_MODULE = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
_AWAIT = re.compile(r"^( *)(.*?)\bawait\b.*")
_START = "const once = (make, made) => () => (made ??= make());\nexport const modules = {"


def bundle(entry: str, texts: Mapping[str, str]) -> str:
    """Return one module that does what the module ``entry`` does, with all that it imports.

    Its ``modules`` has a function for each module that it contains, which returns what that exports. What ``texts``
    does not have is imported as it stands.

    Args:
        entry: the name of a module, e.g. ``page.js``.
        texts: modules by their names, which begin with ``./`` where they import each other.

    Raises:
        ValueError: one has an import or an export of another form than ours have, imports what the other does not
            export, or awaits outside of a function; or modules import each other.
    """
    needs = {name: [found[2] for found in _IMPORT.finditer(text) if found[2] in texts] for name, text in texts.items()}
    try:
        # Each would wait for the other to return.
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise ValueError(f"modules import each other: {', '.join(error.args[1])}") from None
    names, outside = [entry], dict[str, str]()
    for name in names:
        for other in [*needs[name], *_LATER.findall(texts[name])]:
            if other in texts and other not in names:
                names.append(other)

    def imported(found: re.Match[str]) -> str:
        wanted, name = found[1].replace(" as ", ": "), found[2]
        source = f'modules["{name}"]()' if name in texts else outside.setdefault(name, f"outside{len(outside)}")
        return f"const {{{wanted}}} = {source};"

    def imported_later(found: re.Match[str]) -> str:
        return f'Promise.resolve().then(modules["{found[1]}"])' if found[1] in texts else found[0]

    exported = {name: [found[2] for found in _EXPORT.finditer(text)] for name, text in texts.items()}
    parts = []
    for name in names:
        exports = ", ".join(exported[name])
        for found in _IMPORT.finditer(texts[name]):
            wanted = [each.partition(" as ")[0].strip() for each in found[1].split(",")]
            missing = [each for each in wanted if each and each not in exported.get(found[2], wanted)]
            if missing:
                raise ValueError(f"{name} imports {missing[0]}, which {found[2]} does not export")
        if line := _awaits(texts[name]):
            raise ValueError(f"{name} awaits outside of a function, which cannot be bundled: {line}")
        text = _EXPORT.sub(r"\1 \2", _LATER.sub(imported_later, _IMPORT.sub(imported, texts[name])))
        if odd := _MODULE.search(text):
            raise ValueError(f"{name} has a line that cannot be bundled: {odd[0]}")
        parts.append(f'"{name}": once(() => {{\n{text.strip()}\nreturn {{ {exports} }};\n}}),')
    heads = [f'import * as {alias} from "./{name}";' for name, alias in outside.items()]
    return "\n".join([*heads, _START, *parts, "};", f'modules["{entry}"]();\n'])


def _awaits(text: str) -> str:
    """Return a line that awaits outside of an ``async`` function; empty: there is none. Modules are indented."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if (found := _AWAIT.match(line)) and "async" not in found[2] and not _in_async(lines[:at], len(found[1])):
            return line.strip()
    return ""


def _in_async(before: list[str], indent: int) -> bool:
    """Whether a line that has this indentation, after these, is within an ``async`` function."""
    closes = False
    for line in reversed(before):
        text = line.lstrip()
        depth = len(line) - len(text)
        # `) => {` and `} else {` belong to what they close, which is indented as they are.
        if text and (depth < indent or (closes and depth == indent)):
            if "async" in text:
                return True
            indent, closes = depth, text.startswith((")", "}", "]"))
    return False
