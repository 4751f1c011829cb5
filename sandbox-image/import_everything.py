"""Import each public module of the standard library; print those that cannot be."""

import contextlib
import importlib
import io
import sys

# Not for this system, a program rather than a library, or does something when it is imported.
ELSEWHERE = {
    "antigravity",
    "this",
    "idlelib",
    "turtledemo",
    "msilib",
    "msvcrt",
    "nt",
    "winreg",
    "winsound",
    "_winapi",
}

missing = []
for name in sorted(sys.stdlib_module_names):
    if name.startswith(("_", "nt")) or name in ELSEWHERE:
        continue
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module(name)
    except ImportError as error:
        missing.append(f"{name} ({error})")
if missing:
    print(", ".join(missing))
