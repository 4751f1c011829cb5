"""The last lines of a test run: what could not run and why, what failed, and the count. Sets the exit status.

Arguments: the directory of junit files, the value of $CI, the layers that failed, and one text for each thing
that was not to be had.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def main(directory: str, ci: str, failed: str, *unable: str) -> int:
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    again = {
        (report.stem.removesuffix(".again"), name): result
        for report in _reports(directory, again=True)
        for name, result in _cases(report)
    }
    for report in _reports(directory, again=False):
        layer = report.stem
        for name, result in _cases(report):
            if result.startswith("skipped"):
                skipped[f"{layer}: {result.removeprefix('skipped: ')}"] += 1
            elif result == "failed" and again.get((layer, name)) == "passed":
                print(f"passed only when run again: {layer}: {name}")
                result = "passed"
            elif result == "failed":
                print(f"failed: {layer}: {name}")
            counts[result.partition(":")[0]] += 1
    for text in unable:
        print(f"could not run: {text}")
    for text, number in sorted(skipped.items()):
        print(f"skipped: {number} tests of {text}")
    for layer in failed.split():
        print(f"layer failed: {layer}")
    bad = bool(failed or counts["failed"])
    if ci == "true" and (unable or skipped):
        print("With CI=true everything has to run.")
        bad = True
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if bad else 0


def _reports(directory: str, again: bool) -> list[Path]:
    return [path for path in sorted(Path(directory).glob("*.xml")) if path.stem.endswith(".again") == again]


def _cases(report: Path) -> list[tuple[str, str]]:
    """Each test's name and ``passed``, ``failed`` or ``skipped: REASON``."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        skip = case.find("skipped")
        if skip is not None:
            result = f"skipped: {skip.get('message', 'no reason given')}"
        elif case.find("failure") is not None or case.find("error") is not None:
            result = "failed"
        else:
            result = "passed"
        found.append((f"{case.get('classname')}.{case.get('name')}", result))
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
