"""Measures, prints the table and keeps it as JSON. Exit status 1 when a row misses its target."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from pathlib import Path

from tests.bench.measure import Row
from tests.bench.rows import ROWS
from tests.bench.scene import Scene


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"which rows; all: {' '.join(ROWS)}")
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each side (7)")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where to keep the figures")
    options = parser.parse_args()
    # `workers` is all rows that begin with `workers-`.
    names = [row for name in options.rows for row in ([name] if name in ROWS else _group(name) or [name])]
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no row {unknown[0]}; there are: {' '.join(ROWS)}")
    # TERM tidies up first, as ^C does: gateways, namespaces, and files of hundreds of MiB would stay.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows: list[Row] = []
    with Scene() as scene:
        for name in names or ROWS:
            row = ROWS[name](scene, options.runs)
            rows.append(row)
            print(_line(row), flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    options.json.write_text(json.dumps({"machine": machine, "rows": [row.as_json() for row in rows]}, indent=1) + "\n")
    return 0 if all(row.met for row in rows) else 1


def _group(name: str) -> list[str]:
    return [row for row in ROWS if row.startswith(f"{name}-")]


def _line(row: Row) -> str:
    base = f" | {row.baseline.what}: {row.baseline.median:.4g} ({row.baseline.spread})" if row.baseline else ""
    verdict = "met" if row.met else "MISSED"
    ours = f"{row.ours.what}: {row.ours.median:.4g} ({row.ours.spread}) {row.unit}"
    return f"{row.name:10} {ours}{base} | {row.figure:.3g}, {row.target}: {verdict}"


if __name__ == "__main__":
    sys.exit(main())
